"""A run's neighbourhoods: its test samples with graphs and maps before and after."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import store
from .files import read_arrays, read_json, write_arrays
from .graph import knn_graph, neighbor_overlap
from .maps import align, neighbors_shown, pca_map, umap_map
from .sources import domains_of, get_dataset
from .types import Dataset, KnnGraph, RunConfig, UserError


@dataclass(frozen=True)
class Neighborhood:
    """The test samples of one domain of one task, before and after a run.

    Attributes:
        data: The samples.
        graph_0: Nearest neighbours by the foundation model's features.
        graph_1: Nearest neighbours by the fine-tuned model's.
        kept: Each sample's share of neighbours kept, in [0, 1].
        map_0: Picture of the features before; ``map_1`` after, aligned to it.
        map_kind: ``UMAP`` or ``PCA``.
        shown: Share of true 10-neighbours that each picture keeps, before and after.
    """

    data: Dataset
    graph_0: KnnGraph
    graph_1: KnnGraph
    kept: np.ndarray
    map_0: np.ndarray
    map_1: np.ndarray
    map_kind: str
    shown: tuple[float, float]


def get_features_of(run_id: str, dataset: str, domain: str, root: Path) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Returns test samples with their features before and after a run.

    Raises:
        UserError: If the run has not measured that task, or its features were cleared.
    """
    keys = read_json(store.run_folder(run_id, root) / "encoders.json")
    if not isinstance(keys, dict):
        raise UserError("this run has no features yet: they are computed after training. Come back when it is finished.")
    data = get_dataset(dataset, domain, "test", root)
    files = [store.cached_file("features", repr((keys[which], data.fingerprint)), root) for which in ("before", "after")]
    found = [read_arrays(file) for file in files]
    if found[0] is None or found[1] is None:
        raise UserError(f"the features of this run on {dataset} ({domain}) are not in the cache; `python -m robustft evaluate {run_id}` computes them again.")
    return data, found[0][0]["values"], found[1][0]["values"]


def get_neighborhood(run_id: str, dataset: str, domain: str, n_neighbors: int, root: Path) -> Neighborhood:
    """Returns graphs and maps of a run on one domain of one task: UMAPs if a job has made them, else PCA."""
    data, before, after = get_features_of(run_id, dataset, domain, root)
    graph_0, graph_1 = knn_graph(before, n_neighbors), knn_graph(after, n_neighbors)
    stored = read_arrays(_maps_file(run_id, dataset, domain, root))
    if stored is not None:
        kind, map_0, map_1 = "UMAP", stored[0]["before"], stored[0]["after"]
    else:
        kind, map_0, map_1 = "PCA", pca_map(before), pca_map(after)
    shown = (neighbors_shown(before, map_0), neighbors_shown(after, map_1))
    return Neighborhood(data, graph_0, graph_1, neighbor_overlap(graph_0, graph_1), map_0, align(map_1, map_0), kind, shown)


def make_maps(run_id: str, dataset: str, domain: str, root: Path) -> None:
    """Computes and stores the pair of UMAPs of a run on one domain of one task, the second started from the first."""
    path = _maps_file(run_id, dataset, domain, root)
    if read_arrays(path) is not None:
        return
    _, before, after = get_features_of(run_id, dataset, domain, root)
    shared = store.cached_file("maps", repr(("umap", before.tobytes())), root)
    stored = read_arrays(shared)
    map_0 = stored[0]["map"] if stored is not None else umap_map(before)
    if stored is None:
        write_arrays(shared, {"map": map_0})
    write_arrays(path, {"before": map_0, "after": umap_map(after, map_0)})


def maps_stamp(run_id: str, dataset: str, domain: str, root: Path) -> float:
    """Returns when the UMAPs of a run on one domain of one task were stored, 0 if they are not."""
    try:
        return _maps_file(run_id, dataset, domain, root).stat().st_mtime
    except OSError:
        return 0.0


def _maps_file(run_id: str, dataset: str, domain: str, root: Path) -> Path:
    return store.run_folder(run_id, root) / "maps" / f"{dataset}-{domain}.safetensors"


def measured_tasks(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Returns the tasks that a run measures with their domains, the downstream task first."""
    return {name: domains_of(name) for name in (config.dataset, *config.held_out)}
