"""A run's neighbourhoods: its test samples with graphs and maps before and after, and what of a change is noise."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from . import store
from .feature_cache import read_features, read_graph
from .files import read_arrays, read_json, write_arrays
from .graph import class_purity, nearest, neighbor_overlap
from .maps import MapPair, arrays_of, pair_of, pca_pair, umap_pair, umap_parameters
from .moments import weights_at
from .samples import ALL_DOMAINS, get_samples
from .sources import VIEWS, domains_of, features_key, get_dataset, get_graph
from .types import Dataset, Features, KnnGraph, RunConfig, RunRecord, UserError


@dataclass(frozen=True)
class Overlap:
    """How much of each sample's neighbourhood survived on one domain of one task.

    Attributes:
        data: The samples.
        graph_0: Nearest neighbours by the foundation model's features.
        graph_1: Nearest neighbours by the fine-tuned model's.
        kept: Each sample's share of neighbours kept, in [0, 1].
        floor: The same between two augmented views under the foundation model alone; None if it was not measured.
        purity_0: Each sample's share of neighbours of its own class before; the rest crosses classes.
        purity_1: The same after.
    """

    data: Dataset
    graph_0: KnnGraph
    graph_1: KnnGraph
    kept: Float[np.ndarray, "n"]
    floor: Float[np.ndarray, "n"] | None
    purity_0: Float[np.ndarray, "n"]
    purity_1: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Neighborhood(Overlap):
    """An overlap with its pictures before and after, which carry their own errors."""

    maps: MapPair


def get_overlap(run_id: str, dataset: str, domain: str, n_neighbors: int, root: Path, moment: str = "") -> Overlap:
    """Returns the graphs of a run on one domain of one task, and what they have in common.

    Raises:
        UserError: If the run has not measured that task, its features were cleared, or there are not so many neighbours.
    """
    keys, data = _keys_of(run_id, root, moment), get_samples(dataset, domain, root)
    labels = np.asarray(data.labels)
    graph_0, graph_1 = (nearest(_graph_of(run_id, key, data, root), n_neighbors) for key in keys)
    purities = (class_purity(graph_0, labels), class_purity(graph_1, labels))
    return Overlap(data, graph_0, graph_1, neighbor_overlap(graph_0, graph_1), _floor_of(keys[0], data, n_neighbors, root), *purities)


def get_neighborhood(run_id: str, dataset: str, domain: str, n_neighbors: int, root: Path, moment: str = "") -> Neighborhood:
    """Returns graphs and maps of a run on one domain of one task: UMAPs if they have been drawn, else PCA.

    Args:
        run_id: The run.
        dataset: A task that it measured.
        domain: One of the task's domains.
        n_neighbors: Neighbours a sample.
        root: Cache folder.
        moment: What stands for after: the end of the run, or one of `moments.get_moments` on the task that it trained on.

    Raises:
        UserError: If the run has not measured that task, its features were cleared, or there are not so many neighbours.
    """
    overlap = get_overlap(run_id, dataset, domain, n_neighbors, root, moment)
    return Neighborhood(**vars(overlap), maps=get_maps(run_id, dataset, domain, root, moment))


def _keys_of(run_id: str, root: Path, moment: str = "") -> tuple[str, str]:
    """Returns the names of the model before and after, or at a moment between, by which their features are stored."""
    keys = read_json(store.run_folder(run_id, root) / "encoders.json")
    if not isinstance(keys, dict) or not {"before", "after"} <= keys.keys():
        raise UserError("this run has no features yet: they are computed after training. Come back when it is finished.")
    return keys["before"], weights_at(run_id, moment, root) if moment else keys["after"]


def get_features_of(run_id: str, dataset: str, domain: str, root: Path, moment: str = "") -> tuple[Dataset, Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Returns test samples with their features before and after a run, or at a moment of it.

    Raises:
        UserError: If the run has not measured that task, or its features were cleared.
    """
    data = get_samples(dataset, domain, root)
    before, after = (_features_of(run_id, key, data, root) for key in _keys_of(run_id, root, moment))
    return data, before, after


def _features_of(run_id: str, key: str, data: Dataset, root: Path) -> np.ndarray:
    if data.domain == ALL_DOMAINS:
        parts = [get_dataset(data.name, domain, "test", root) for domain in domains_of(data.name)]
        return np.concatenate([_features_of(run_id, key, part, root) for part in parts])
    found = read_features(features_key(key, data), root)
    if found is None or len(found) != len(data):
        again = f"`python -m robustft evaluate {run_id}` computes them again."
        raise UserError(f"the features of this run on {data.name} ({data.domain}) are not in the cache; {again}")
    return found


def _graph_of(run_id: str, key: str, data: Dataset, root: Path) -> KnnGraph:
    """Returns a stored graph, or makes it of stored features."""
    name = features_key(key, data)
    return read_graph(name, root) or get_graph(name, Features(_features_of(run_id, key, data, root), np.asarray(data.labels)), root)


def _floor_of(key: str, data: Dataset, n_neighbors: int, root: Path) -> np.ndarray | None:
    views = [read_graph(features_key(key, data, view), root) for view in VIEWS]
    if views[0] is None or views[1] is None:
        return None
    return neighbor_overlap(nearest(views[0], n_neighbors), nearest(views[1], n_neighbors))


# --- maps -------------------------------------------------------------------------------------------------------------


def get_maps(run_id: str, dataset: str, domain: str, root: Path, moment: str = "") -> MapPair:
    """Returns the pair of UMAPs of a run on one domain of one task if they have been drawn, else the PCA maps, which are made at once."""
    for kind in ("umap", "pca"):
        stored = read_arrays(_maps_file(run_id, dataset, domain, kind, root, moment))
        if stored is not None:
            return pair_of(*stored)
    _, before, after = get_features_of(run_id, dataset, domain, root, moment)
    pair = pca_pair(before, after)
    write_arrays(_maps_file(run_id, dataset, domain, "pca", root, moment), *arrays_of(pair))
    return pair


def make_maps(run_id: str, dataset: str, domain: str, root: Path, moment: str = "") -> None:
    """Draws and stores the pair of UMAPs of a run on one domain of one task, the second started from the first; slow, for a worker."""
    path = _maps_file(run_id, dataset, domain, "umap", root, moment)
    if read_arrays(path) is not None:
        return
    data, before, after = get_features_of(run_id, dataset, domain, root, moment)
    # All runs from one foundation model share the map before.
    shared = store.cached_file("maps", repr((features_key(_keys_of(run_id, root)[0], data), umap_parameters(len(data)))), root)
    stored = read_arrays(shared)
    pair = umap_pair(before, after, stored[0]["map"] if stored is not None else None)
    if stored is None:
        write_arrays(shared, {"map": pair.before})
    _keys_of(run_id, root)  # a run that was deleted meanwhile must not come back as a folder of maps
    write_arrays(path, *arrays_of(pair))


def maps_stamp(run_id: str, dataset: str, domain: str, root: Path, moment: str = "") -> float:
    """Returns when the UMAPs of a run on one domain of one task were stored, 0 if they are not."""
    try:
        return _maps_file(run_id, dataset, domain, "umap", root, moment).stat().st_mtime
    except OSError:
        return 0.0


def _maps_file(run_id: str, dataset: str, domain: str, kind: str, root: Path, moment: str) -> Path:
    if moment:
        weights_at(run_id, moment, root)  # a moment that the run has is a harmless name; one from an address may not be
    return store.run_folder(run_id, root) / "maps" / f"{'-'.join(filter(None, (dataset, domain, moment, kind))).replace(' ', '-')}.safetensors"


# --- what a run has ---------------------------------------------------------------------------------------------------


def measured_tasks(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Returns the tasks that a run measures with their domains, the downstream task first."""
    return {name: domains_of(name) for name in (config.dataset, *config.held_out)}


def has_everything(record: RunRecord, root: Path) -> bool:
    """Returns whether all that pages and commands read of a finished run is there: its scores, its tables, and the features in the cache."""
    folder = store.run_folder(record.run_id, root)
    tables = ("analysis.json", *(["wise.json"] if record.config.curve else []))
    if not all((folder / name).exists() for name in tables) or not any(score.metric == "overlap_floor" for score in record.scores):
        return False
    try:
        keys = _keys_of(record.run_id, root)
    except UserError:
        return False
    tests = [get_dataset(name, domain, "test", root) for name, domains in measured_tasks(record.config).items() for domain in domains]
    has_floors = all(read_graph(features_key(keys[0], data, view), root) is not None for data in tests for view in VIEWS)
    return has_floors and all(read_features(features_key(key, data), root) is not None for key in keys for data in tests)
