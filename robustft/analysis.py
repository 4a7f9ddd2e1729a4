"""What a run measures once it has trained: every task before and after, its neighbourhoods, its noise, and how far all moved."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import store
from .encoder import Backbone, hash_weights
from .evaluate import compare, downstream_scores, logits_of
from .features import extract_taps
from .files import write_arrays
from .graph import nearest, neighbor_overlap
from .heads import Classifier, Head, TextHead, zero_shot_head
from .metrics.nll import log_softmax
from .registry import Entry, discover
from .seeds import generator_of
from .sources import domains_of, features_key, get_dataset, get_encoded, get_features, get_graph, get_strength, get_view_graphs
from .types import Dataset, Features, RunConfig, Score, UserError

FLOOR_NEIGHBORS = 10
TAP_IMAGES = 128
"""Images of a domain whose activations inside the tower are compared; two more passes over all of them would double the cost."""
Progress = Callable[[str, int, int], None]


def tasks_of(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yields (task, domain) for all that a run measures, the downstream task first."""
    for name in (config.dataset, *config.held_out):
        for domain in domains_of(name):
            yield name, domain


def weights_key(classifier: Classifier, backbone: Backbone) -> str:
    """Returns the cache key of a tower with its backbone's preprocessing."""
    preprocessing = backbone.weights_hash.rpartition("-")[2]
    return f"{hash_weights(classifier.encoder.visual.state_dict())}-{preprocessing}"


def task_heads(backbone: Backbone, config: RunConfig, root: Path) -> dict[str, Head]:
    """Returns the zero-shot head of every task that a run measures, from the unchanged text tower."""
    splits = {name: get_dataset(name, domains_of(name)[0], "val", root) for name in (config.dataset, *config.held_out)}
    return {name: zero_shot_head(backbone.text, data.class_names, data.templates) for name, data in splits.items()}


# --- accuracies -------------------------------------------------------------------------------------------------------


def measure(backbone: Backbone, start: Classifier, end: Classifier, config: RunConfig, root: Path, progress: Progress) -> list[Score]:
    """Measures the fine-tuned model on the downstream task and, before and after, on every task; stores each sample's answers.

    Args:
        backbone: The foundation model.
        start: Its tower with the head that fine-tuning began from.
        end: The fine-tuned tower and head.
        config: Names the downstream task and the held-out ones.
        root: Cache folder.
        progress: Called with stage, done and total.
    """
    pairs, key, heads = list(tasks_of(config)), weights_key(end, backbone), task_heads(backbone, config, root)
    scores, downstream = [], []
    for index, (name, domain) in enumerate(pairs):
        progress("measuring", index, len(pairs))
        before = get_encoded(backbone.encoder, backbone.preprocess, backbone.weights_hash, name, domain, root)
        after = get_encoded(end.encoder, backbone.preprocess, key, name, domain, root, with_val=name == config.dataset)
        scores += compare(before, after, heads[name], get_strength(before, backbone.weights_hash, root), _own_text(end, name, root))
        is_downstream = name == config.dataset
        asked = (start.head, end.head) if is_downstream else (heads[name], heads[name])
        _store_answers(asked, (before.test, after.test), answers_file(config, name, domain, root))
        downstream += [after] if is_downstream else []
    return [*downstream_scores(downstream, end.head), *scores]


def _own_text(classifier: Classifier, name: str, root: Path) -> Head | None:
    """Returns a task's zero-shot head from a tuned text tower, if the run has one."""
    if not isinstance(classifier.head, TextHead):
        return None
    data = get_dataset(name, domains_of(name)[0], "val", root)
    return zero_shot_head(classifier.head.tower, data.class_names, data.templates)


def answers_file(config: RunConfig, dataset: str, domain: str, root: Path) -> Path:
    """Returns where a run keeps its answers on one domain of one task."""
    return store.run_folder(store.run_id_of(config), root) / "answers" / f"{dataset}-{domain}.safetensors"


def _store_answers(heads: tuple[Head | TextHead, Head | TextHead], features: tuple[Features, Features], path: Path) -> None:
    """Keeps each test sample's predicted class and its probability, before and after."""
    arrays: dict[str, np.ndarray] = {}
    for side, head, seen in zip(("before", "after"), heads, features, strict=True):
        probabilities = np.exp(log_softmax(logits_of(head, seen)))
        arrays |= {side: probabilities.argmax(1).astype(np.int32), f"confidence_{side}": probabilities.max(1).astype(np.float32)}
    write_arrays(path, arrays)


# --- neighbourhoods and drift -----------------------------------------------------------------------------------------


def analyse(backbone: Backbone, end: Classifier, config: RunConfig, root: Path, progress: Progress) -> tuple[list[Score], dict[str, Any]]:
    """Measures what moved on every task: graphs and their noise floor, every drift measure, the distance of the weights.

    Returns:
        Scores, and what belongs beside them, by measure: the settings of each value, or the distance of each layer.
    """
    pairs, key = list(tasks_of(config)), weights_key(end, backbone)
    scores: list[Score] = []
    details: dict[str, dict[str, Any]] = {}
    for index, (name, domain) in enumerate(pairs):
        progress("analysing", index, len(pairs))
        data = get_dataset(name, domain, "test", root)
        before = get_features(backbone.encoder, backbone.preprocess, backbone.weights_hash, data, root)
        after = get_features(end.encoder, backbone.preprocess, key, data, root)
        values = {"overlap_floor": overlap_floor(backbone, data, root)}
        for weights, features in ((backbone.weights_hash, before), (key, after)):
            get_graph(features_key(weights, data), features, root)
        for drift, entry in _drifts("features", "labelled", "taps").items():
            try:
                is_inside = entry.declares("INPUT") == "taps"
                value, explained = (tap_drift(entry, backbone, end, data), None) if is_inside else measure_drift(entry, before, after)
            except UserError as error:  # a set too small for a measure, or a tower without known depths, must not cost the run
                value, explained = None, {"left out": str(error)}
            values |= {} if value is None else {f"drift_{drift}": value}
            if explained:
                details.setdefault(drift, {})[f"{name} {domain}"] = explained
        scores += [Score(name, domain, metric, value, len(data)) for metric, value in values.items()]
    theta_0, theta_1 = backbone.encoder.state_dict(), end.encoder.state_dict()
    name, domain = pairs[0]
    for drift, entry in _drifts("theta").items():
        scores.append(Score(name, domain, f"drift_{drift}", entry.function(theta_0, theta_1), len(theta_1)))
        by_layer = entry.declares(f"{drift}_by_layer")
        details |= {drift: by_layer(theta_0, theta_1)} if by_layer else {}
    return scores, details


def _drifts(*inputs: str) -> dict[str, Entry]:
    """Returns the drift measures that look at some kind of input."""
    return {name: entry for name, entry in discover("drift").items() if entry.declares("INPUT", "features") in inputs}


def measure_drift(entry: Entry, before: Features, after: Features) -> tuple[float, Mapping[str, Any] | None]:
    """Returns a drift measure of the same images before and after, and the settings that it was measured with, if it says them."""
    values = (before.values, after.values)
    given = (values[0], before.labels, values[1], after.labels) if entry.declares("INPUT", "features") == "labelled" else values
    explain = entry.declares(f"{entry.name}_result")
    if explain is None:
        return entry.function(*given), None
    result = explain(*given)
    return result.value, asdict(result)


def tap_drift(entry: Entry, backbone: Backbone, end: Classifier, data: Dataset) -> float:
    """Returns a drift measure of activations inside the tower, averaged over a seeded choice of images."""
    rows = torch.randperm(len(data), generator=generator_of("taps", data.fingerprint))[:TAP_IMAGES]
    images, total = torch.as_tensor(data.images)[rows], 0.0
    for size, taps_0, taps_1 in extract_taps((backbone.encoder, end.encoder), backbone.preprocess, images):
        total += size * entry.function(taps_0, taps_1)
    return total / len(rows)


def overlap_floor(backbone: Backbone, data: Dataset, root: Path) -> float:
    """Returns the share of neighbours that two augmented views of the same images have in common under the foundation model.

    A run that keeps as many has moved its neighbourhoods no more than a slightly different crop does.
    """
    graphs = get_view_graphs(backbone.encoder, backbone.preprocess, backbone.weights_hash, data, root)
    k = min(FLOOR_NEIGHBORS, graphs[0].indices.shape[1])
    return float(neighbor_overlap(*(nearest(graph, k) for graph in graphs)).mean())
