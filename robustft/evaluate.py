"""What is measured, and on what: one task before and after, and the summary of a run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .heads import Head, TextHead, probe_head
from .metrics.accuracy import accuracy
from .probe import LinearProbe
from .registry import discover
from .types import Features, Score


@dataclass(frozen=True)
class Encoded:
    """One domain of one task, as features of its splits by one model; ``val`` is None where nothing is chosen on it."""

    dataset: str
    domain: str
    train: Features
    test: Features
    val: Features | None = None


def head_accuracy(head: Head | TextHead, features: Features) -> float:
    """Returns the accuracy of a head on features."""
    with torch.no_grad():
        logits = head(torch.from_numpy(np.asarray(features.values)).to(next(head.parameters()).device))
    return accuracy(logits.cpu().numpy(), features.labels)


def fit_probe(encoded: Encoded, strength: float | None = None) -> LinearProbe:
    """Fits a probe on the training features; its strength is chosen on validation unless given."""
    if strength is None:
        assert encoded.val is not None
        return LinearProbe().fit(encoded.train.values, encoded.train.labels, encoded.val.values, encoded.val.labels)
    return LinearProbe(strength).fit(encoded.train.values, encoded.train.labels)


def compare(before: Encoded, after: Encoded, zero_shot: Head, strength: float, own_text: Head | None = None) -> list[Score]:
    """Measures one task in one domain before and after: zero-shot, linear probe, drift, neighbours kept.

    Both probes use the same code, data and strength, the one chosen on the validation features of the start.

    Args:
        before: Features of the foundation model.
        after: Features of the fine-tuned one; same images.
        zero_shot: The task's zero-shot head, from the unchanged text tower.
        strength: Of both probes.
        own_text: The task's zero-shot head from the tuned text tower, where that was trained too.
    """
    # Both fitted anew from zero: features that did not change then give exactly the same probe.
    probe_before, probe_after = fit_probe(before, strength), fit_probe(after, strength)
    accuracies = {
        "zs_accuracy_0": head_accuracy(zero_shot, before.test),
        "zs_accuracy": head_accuracy(zero_shot, after.test),
        "lp_accuracy_0": head_accuracy(probe_head(probe_before), before.test),
        "lp_accuracy": head_accuracy(probe_head(probe_after), after.test),
    }
    accuracies["delta_zs"] = accuracies["zs_accuracy"] - accuracies["zs_accuracy_0"]
    accuracies["delta_lp"] = accuracies["lp_accuracy"] - accuracies["lp_accuracy_0"]
    if own_text is not None:
        accuracies["delta_zs_own_text"] = head_accuracy(own_text, after.test) - accuracies["zs_accuracy_0"]
    moved = {f"drift_{name}": entry.function(before.test.values, after.test.values) for name, entry in discover("drift").items()}
    n = len(before.test.labels)
    return [Score(before.dataset, before.domain, metric, value, n) for metric, value in {**accuracies, **moved}.items()]


def downstream_scores(domains: Sequence[Encoded], head: Head | TextHead) -> list[Score]:
    """Measures the trained head and a fresh probe on the downstream task: the first domain is ID, the others OOD.

    The probe is fitted in the first domain only and read in all of them.
    """
    probe = probe_head(fit_probe(domains[0]))
    scores = []
    for index, encoded in enumerate(domains):
        kind, n = ("id" if index == 0 else "ood"), len(encoded.test.labels)
        for metric, value in ((f"{kind}_accuracy", head_accuracy(head, encoded.test)), (f"lp_{kind}_accuracy", head_accuracy(probe, encoded.test))):
            scores.append(Score(encoded.dataset, encoded.domain, metric, value, n))
    val = domains[0].val
    assert val is not None
    return [*scores, Score(domains[0].dataset, domains[0].domain, "val_accuracy", head_accuracy(head, val), len(val.labels))]


def summarize(scores: Iterable[Score], downstream: str) -> dict[str, float]:
    """Returns a run's headline: ID and OOD accuracy, and change, drift and overlap averaged over the held-out tasks.

    A task's domains are averaged first, so that every held-out task counts once. Fractions, never percent.

    Example:
        Two held-out tasks lose 10 and 20 points: 15 on average, 20 at worst.

        >>> rows = [Score("a", "x", "delta_zs", -0.1, 9), Score("b", "x", "delta_zs", -0.2, 9), Score("d", "x", "id_accuracy", 0.9, 9)]
        >>> {name: round(value, 3) for name, value in summarize(rows, "d").items()}
        {'id_accuracy': 0.9, 'mean_delta_zs': -0.15, 'worst_delta_zs': -0.2}
    """
    rows = list(scores)
    summary = {}
    for metric in ("id_accuracy", "ood_accuracy", "lp_id_accuracy", "lp_ood_accuracy", "val_accuracy"):
        values = [s.value for s in rows if s.metric == metric and s.dataset == downstream]
        if values:
            summary[metric] = float(np.mean(values))
    for metric in sorted({s.metric for s in rows if s.metric.startswith(("delta_", "drift_"))}):
        by_task = held_out(rows, downstream, metric)
        if by_task:
            summary[f"mean_{metric}"] = float(np.mean(list(by_task.values())))
            if metric.startswith("delta_"):
                summary[f"worst_{metric}"] = min(by_task.values())
    return summary


def held_out(scores: Iterable[Score], downstream: str, metric: str) -> dict[str, float]:
    """Returns a metric by held-out task, each the mean over its domains."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.metric == metric and score.dataset != downstream:
            values.setdefault(score.dataset, []).append(score.value)
    return {task: float(np.mean(v)) for task, v in values.items()}
