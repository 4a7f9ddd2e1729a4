"""Moments between before and after: some steps of training, and the alphas between the ends, with their features of the trained task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import store
from .analysis import FLOOR_NEIGHBORS, weights_key
from .encoder import Backbone
from .evaluate import head_accuracy
from .files import read_json, write_json
from .graph import nearest, neighbor_overlap
from .heads import Classifier
from .sources import domains_of, features_key, get_dataset, get_features, get_graph
from .types import RunConfig, UserError, quoted

PARTS = 4
"""Training is cut into so many parts; the features between two of them are kept."""


def kept_steps(steps: int) -> frozenset[int]:
    """Returns the steps after which a run keeps features: between the quarters of its training.

    Example:
        >>> sorted(kept_steps(120)), sorted(kept_steps(2))
        ([30, 60, 90], [1])
    """
    return frozenset(steps * part // PARTS for part in range(1, PARTS)) - {0, steps}


def keep_step(classifier: Classifier, step: int, backbone: Backbone, config: RunConfig, root: Path) -> None:
    """Keeps what a model in the middle of its training makes of the test images of its task."""
    key, name = weights_key(classifier, backbone), f"step {step}"
    accuracy, kept = keep_features(classifier, key, backbone, config, root)
    run_id = store.run_id_of(config)
    others = [row for row in _step_rows(run_id, root) if row["moment"] != name]
    rows = [*others, {"moment": name, "weights": key, "id_accuracy": accuracy, "kept": kept}]
    write_json(_file(run_id, root), sorted(rows, key=lambda row: int(row["moment"].split()[1])))


def keep_features(classifier: Classifier, key: str, backbone: Backbone, config: RunConfig, root: Path) -> tuple[float, float]:
    """Stores features and graphs of the trained task's test images; returns ID accuracy and the share of ID neighbours kept since before.

    Args:
        classifier: The model at that moment, with the head that trains.
        key: Hash of its tower.
        backbone: The foundation model.
        config: Names the task.
        root: Cache folder.
    """
    accuracies, kept = [], []
    for domain in domains_of(config.dataset):
        data, graphs = get_dataset(config.dataset, domain, "test", root), []
        for encoder, weights in ((backbone.encoder, backbone.weights_hash), (classifier.encoder, key)):
            features = get_features(encoder, backbone.preprocess, weights, data, root)
            graphs.append(get_graph(features_key(weights, data), features, root))
        accuracies.append(head_accuracy(classifier.head, features))
        k = min(FLOOR_NEIGHBORS, graphs[0].indices.shape[1])
        kept.append(float(neighbor_overlap(*(nearest(graph, k) for graph in graphs)).mean()))
    return accuracies[0], kept[0]


def get_moments(run_id: str, root: Path) -> list[dict[str, Any]]:
    """Returns a run's moments: steps in their order, then alphas between 0 and 1.

    Each is ``moment`` (``step 30``, ``alpha 0.1``), ``weights`` (what its features are stored under), ``id_accuracy`` and
    ``kept``, the share of the ten ID neighbours before that it still has; fractions. Empty for runs of older versions.
    """
    curve = read_json(store.run_folder(run_id, root) / "wise.json")
    between = [row for row in curve if row.get("weights") and 0 < row.get("alpha", 0) < 1] if isinstance(curve, list) else []
    alphas = [{"moment": f"alpha {row['alpha']:g}", **{key: row.get(key) for key in ("weights", "id_accuracy", "kept")}} for row in between]
    return [*_step_rows(run_id, root), *alphas]


def weights_at(run_id: str, moment: str, root: Path) -> str:
    """Returns what the features of a moment are stored under.

    Raises:
        UserError: If the run has no such moment; names those it has.
    """
    found: Mapping[str, str] = {row["moment"]: row["weights"] for row in get_moments(run_id, root)}
    if moment not in found:
        known = ", ".join(found) or "none: it was measured by an older version, or trains nothing"
        raise UserError(f"this run kept no features at {quoted(moment)}; choose among {known}.")
    return found[moment]


def _step_rows(run_id: str, root: Path) -> list[dict[str, Any]]:
    rows = read_json(_file(run_id, root))
    return [row for row in rows if isinstance(row, dict) and {"moment", "weights"} <= row.keys()] if isinstance(rows, list) else []


def _file(run_id: str, root: Path) -> Path:
    return store.run_folder(run_id, root) / "moments.json"
