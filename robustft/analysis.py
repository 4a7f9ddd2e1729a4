"""What a run measures once it has trained: every task before and after, and the WiSE-FT curve."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .encoder import Backbone, TextTower, hash_weights
from .evaluate import compare, downstream_scores, head_accuracy, summarize
from .heads import Classifier, Head, TextHead, zero_shot_head
from .interpolate import interpolate, recompute_statistics
from .sources import domains_of, get_dataset, get_encoded, get_features, get_strength, get_train_data
from .types import RunConfig, Score

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class WisePoint:
    """One place between the start (alpha 0) and the fine-tuned model (alpha 1); accuracies and changes are fractions."""

    alpha: float
    id_accuracy: float
    ood_accuracy: float
    val_accuracy: float
    mean_delta_zs: float


def tasks_of(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yields (task, domain) for all that a run measures, the downstream task first."""
    for name in (config.dataset, *config.held_out):
        for domain in domains_of(name):
            yield name, domain


def weights_key(classifier: Classifier, backbone: Backbone) -> str:
    """Returns the cache key of a tower with its backbone's preprocessing."""
    preprocessing = backbone.weights_hash.rpartition("-")[2]
    return f"{hash_weights(classifier.encoder.visual.state_dict())}-{preprocessing}"


def head_of(text: TextTower, name: str, domain: str, root: Path) -> Head:
    """Returns a task's zero-shot head, on the text tower's device."""
    dataset = get_dataset(name, domain, "val", root)
    return zero_shot_head(text, dataset.class_names, dataset.templates)


def measure(backbone: Backbone, classifier: Classifier, config: RunConfig, root: Path, progress: Progress) -> list[Score]:
    """Measures the fine-tuned model on the downstream task and, before and after, on every task.

    Args:
        backbone: The foundation model.
        classifier: The fine-tuned tower and head.
        config: Names the downstream task and the held-out ones.
        root: Cache folder.
        progress: Called with stage, done and total.
    """
    pairs, key = list(tasks_of(config)), weights_key(classifier, backbone)
    scores, downstream = [], []
    for index, (name, domain) in enumerate(pairs):
        progress("measuring", index, len(pairs))
        before = get_encoded(backbone.encoder, backbone.preprocess, backbone.weights_hash, name, domain, root)
        after = get_encoded(classifier.encoder, backbone.preprocess, key, name, domain, root, with_val=name == config.dataset)
        own_text = head_of(classifier.head.tower, name, domain, root) if isinstance(classifier.head, TextHead) else None
        scores += compare(before, after, head_of(backbone.text, name, domain, root), get_strength(before, backbone.weights_hash, root), own_text)
        if name == config.dataset:
            downstream.append(after)
    return [*downstream_scores(downstream, classifier.head), *scores]


def wise_curve(
    backbone: Backbone, start: Classifier, end: Classifier, config: RunConfig, scores: list[Score], root: Path, progress: Progress
) -> list[WisePoint]:
    """Measures the models between start and end: ID and OOD accuracy of the head, mean zero-shot change on held-out tasks.

    Args:
        backbone: The foundation model, for preprocessing and zero-shot heads.
        start: The starting tower with the head that fine-tuning began from.
        end: The fine-tuned tower and head.
        config: Names the tasks.
        scores: The run's scores, for the accuracies at the start.
        root: Cache folder.
        progress: Called with stage, done and total.
    """
    theta_0, theta_1 = start.state_dict(), end.state_dict()
    between, curve, points = copy.deepcopy(end), _Curve(backbone, config, scores, root), []
    has_moved = any(not torch.equal(theta_0[name], theta_1[name]) for name in theta_1)
    for index, alpha in enumerate(ALPHAS):
        progress("interpolating", index, len(ALPHAS))
        # Averaging a model with itself would change its last bits, and with them its key in the cache.
        between.load_state_dict(interpolate(theta_0, theta_1, alpha) if has_moved else theta_1)
        if has_moved and 0 < alpha < 1:
            recompute_statistics(between.encoder, curve.train_data)
        points.append(curve.point(alpha, between))
    return points


class _Curve:
    """What every point of a WiSE-FT curve is measured with: zero-shot heads and the accuracies before."""

    def __init__(self, backbone: Backbone, config: RunConfig, scores: list[Score], root: Path):
        self.backbone, self.config, self.root = backbone, config, root
        self.before = {(s.dataset, s.domain): s.value for s in scores if s.metric == "zs_accuracy_0"}
        self.train_data = get_train_data(config.dataset, backbone.preprocess, root)
        self.heads = {pair: head_of(backbone.text, *pair, root) for pair in tasks_of(config) if pair[0] != config.dataset}

    def point(self, alpha: float, model: Classifier) -> WisePoint:
        """Measures one model."""
        key = weights_key(model, self.backbone)

        def accuracy(head: Head | TextHead, name: str, domain: str, split: str = "test") -> float:
            data = get_dataset(name, domain, split, self.root)
            # Features of interior points are looked at once and would only fill the disk.
            return head_accuracy(head, get_features(model.encoder, self.backbone.preprocess, key, data, self.root, keep=alpha in (0, 1)))

        name, domains = self.config.dataset, domains_of(self.config.dataset)
        by_domain = [accuracy(model.head, name, domain) for domain in domains]
        changes = [Score(*pair, "delta_zs", accuracy(head, *pair) - self.before[pair], 0) for pair, head in self.heads.items()]
        ood = sum(by_domain[1:]) / max(1, len(domains) - 1)
        change = summarize(changes, name).get("mean_delta_zs", 0.0)
        return WisePoint(alpha, by_domain[0], ood, accuracy(model.head, name, domains[0], "val"), change)


def wise_rows(points: list[WisePoint]) -> list[dict[str, float]]:
    """Returns the curve as JSON rows."""
    return [asdict(point) for point in points]
