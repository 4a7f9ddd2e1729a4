"""The WiSE-FT curve: every model between start and end, on every task, in one pass over the data each."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .analysis import Progress, task_heads, tasks_of, weights_key
from .encoder import Backbone
from .evaluate import head_accuracy, held_out, summarize
from .heads import Classifier, Head
from .interpolate import interpolate, recompute_statistics
from .moments import keep_features
from .sources import domains_of, get_dataset, get_features, get_train_data
from .types import Features, RunConfig, Score

ALPHAS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class WisePoint:
    """One place between the start (alpha 0) and the fine-tuned model (alpha 1); accuracies and changes are fractions.

    Attributes:
        alpha: Share of the fine-tuned weights.
        id_accuracy: Of the run's head in the domain it was trained in.
        ood_accuracy: Mean over the other domains.
        val_accuracy: On validation images of the training domain.
        mean_delta_zs: Zero-shot change averaged over the held-out tasks.
        changes: The same for each held-out task.
        kept: Share of the ten ID neighbours at the start that are still neighbours.
        weights: What its features are stored under.
    """

    alpha: float
    id_accuracy: float
    ood_accuracy: float
    val_accuracy: float
    mean_delta_zs: float
    changes: Mapping[str, float]
    kept: float
    weights: str


def wise_curve(
    backbone: Backbone, start: Classifier, end: Classifier, config: RunConfig, scores: list[Score], root: Path, progress: Progress
) -> list[WisePoint]:
    """Measures the models between start and end: ID and OOD accuracy of the head, zero-shot change on held-out tasks.

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
        self.heads: dict[str, Head] = task_heads(backbone, config, root)

    def point(self, alpha: float, model: Classifier) -> WisePoint:
        """Measures one model, looking at each image once."""
        key, name = weights_key(model, self.backbone), self.config.dataset
        is_end = alpha in (0, 1)  # between the ends only the trained task's features are kept, for its maps; others would fill the disk
        _, kept = keep_features(model, key, self.backbone, self.config, self.root)
        accuracies = {}
        for task, domain in tasks_of(self.config):
            head = model.head if task == name else self.heads[task]
            accuracies[task, domain] = head_accuracy(head, self._features(model, key, task, domain, "test", keep=is_end))
        val = head_accuracy(model.head, self._features(model, key, name, domains_of(name)[0], "val", keep=is_end))
        rows = [Score(*pair, "delta_zs", accuracy - self.before[pair], 0) for pair, accuracy in accuracies.items() if pair[0] != name]
        by_domain = [accuracies[name, domain] for domain in domains_of(name)]
        ood = sum(by_domain[1:]) / max(1, len(by_domain) - 1)
        return WisePoint(alpha, by_domain[0], ood, val, summarize(rows, name).get("mean_delta_zs", 0.0), held_out(rows, name, "delta_zs"), kept, key)

    def _features(self, model: Classifier, key: str, task: str, domain: str, split: str, *, keep: bool) -> Features:
        return get_features(model.encoder, self.backbone.preprocess, key, get_dataset(task, domain, split, self.root), self.root, keep=keep)


def wise_rows(points: list[WisePoint]) -> list[dict[str, object]]:
    """Returns the curve as JSON rows."""
    return [asdict(point) for point in points]
