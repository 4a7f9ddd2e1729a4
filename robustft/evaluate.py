"""What is measured, and on what: one task before and after, and the summary of a run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from .heads import Head, TextHead, probe_head
from .intervals import paired_error
from .metrics.accuracy import accuracy
from .probe import LinearProbe, resampled_rows
from .registry import discover, find
from .robustness import effective_robustness
from .types import Features, Score

REFITS = 3
"""Times that a pair of probes is fitted again, on training images drawn anew, to see how much of a change is the probes' own noise."""
HEADLINE = ("accuracy", "ece", "nll")


@dataclass(frozen=True)
class Encoded:
    """One domain of one task, as features of its splits by one model; ``val`` is None where nothing is chosen on it."""

    dataset: str
    domain: str
    train: Features
    test: Features
    val: Features | None = None


def logits_of(head: Head | TextHead, features: Features) -> Float[np.ndarray, "n c"]:
    """Returns a head's logits of features."""
    with torch.no_grad():
        logits = head(torch.from_numpy(np.asarray(features.values)).to(next(head.parameters()).device))
    return logits.float().cpu().numpy()


def head_accuracy(head: Head | TextHead, features: Features) -> float:
    """Returns the accuracy of a head on features."""
    return accuracy(logits_of(head, features), features.labels)


def fit_probe(encoded: Encoded, strength: float | None = None) -> LinearProbe:
    """Fits a probe on the training features; its strength is chosen on validation unless given."""
    if strength is None:
        assert encoded.val is not None
        return LinearProbe().fit(encoded.train.values, encoded.train.labels, encoded.val.values, encoded.val.labels)
    return LinearProbe(strength).fit(encoded.train.values, encoded.train.labels)


# --- one task, before and after ---------------------------------------------------------------------------------------


def compare(before: Encoded, after: Encoded, zero_shot: Head, strength: float, own_text: Head | None = None) -> list[Score]:
    """Measures one task in one domain before and after: zero-shot, linear probe, and how sure the changes are.

    Both probes use the same code, data and strength, the one chosen on the validation features of the start.
    ``error_zs`` and ``error_lp`` are the standard errors of the changes over test images; ``noise_lp`` is twice the standard
    deviation of the linear-probe change over refits: a smaller change is none.

    Args:
        before: Features of the foundation model.
        after: Features of the fine-tuned one; same images.
        zero_shot: The task's zero-shot head, from the unchanged text tower.
        strength: Of both probes.
        own_text: The task's zero-shot head from the tuned text tower, where that was trained too.
    """
    # Both fitted anew from zero: features that did not change then give exactly the same probe.
    heads = {"zs": (zero_shot, zero_shot), "lp": (probe_head(fit_probe(before, strength)), probe_head(fit_probe(after, strength)))}
    values: dict[str, float] = {}
    for kind, (head_0, head_1) in heads.items():
        right_0, right_1 = _is_right(head_0, before.test), _is_right(head_1, after.test)
        values |= {f"{kind}_accuracy_0": float(right_0.mean()), f"{kind}_accuracy": float(right_1.mean())}
        values |= {f"delta_{kind}": values[f"{kind}_accuracy"] - values[f"{kind}_accuracy_0"], f"error_{kind}": paired_error(right_0, right_1)}
    values["noise_lp"] = probe_noise(before, after, strength)
    if own_text is not None:
        values["delta_zs_own_text"] = head_accuracy(own_text, after.test) - values["zs_accuracy_0"]
    n = len(before.test.labels)
    return [Score(before.dataset, before.domain, metric, value, n) for metric, value in values.items()]


def _is_right(head: Head | TextHead, features: Features) -> Float[np.ndarray, "n"]:
    return (logits_of(head, features).argmax(1) == features.labels).astype(np.float64)


def probe_noise(before: Encoded, after: Encoded, strength: float) -> float:
    """Returns twice the standard deviation of the linear-probe change over refits on training images drawn anew with replacement.

    A probe is convex and has no seed: what it could have been instead is another draw of its training images. Both sides of
    a refit see the same draw.
    """
    changes = []
    for seed in range(REFITS):
        rows = resampled_rows(before.train.labels, seed)
        scores = [
            LinearProbe(strength).fit(side.train.values[rows], side.train.labels[rows]).score(side.test.values, side.test.labels) for side in (before, after)
        ]
        changes.append(scores[1] - scores[0])
    return float(2 * np.std(changes, ddof=1))


def downstream_scores(domains: Sequence[Encoded], head: Head | TextHead) -> list[Score]:
    """Measures the trained head and a fresh probe on the downstream task: the first domain is ID, the others OOD.

    The probe is fitted in the first domain only and read in all of them. Effective robustness is there only where the task
    declares a baseline fit.
    """
    probe, task = probe_head(fit_probe(domains[0])), domains[0].dataset
    id_accuracy = head_accuracy(head, domains[0].test)
    scores: list[Score] = []
    for index, encoded in enumerate(domains):
        kind, logits, labels = ("id" if index == 0 else "ood"), logits_of(head, encoded.test), encoded.test.labels
        values = {f"{kind}_{name}": entry.function(logits, labels) for name, entry in discover("metrics").items()}
        values[f"lp_{kind}_accuracy"] = head_accuracy(probe, encoded.test)
        baseline = find("datasets", task).declares("BASELINES", {}).get(encoded.domain)
        if index and baseline is not None:
            values["effective_robustness"] = effective_robustness(id_accuracy, values["ood_accuracy"], baseline)
        scores += [Score(task, encoded.domain, metric, value, len(labels)) for metric, value in values.items()]
    val = domains[0].val
    assert val is not None
    return [*scores, Score(task, domains[0].domain, "val_accuracy", head_accuracy(head, val), len(val.labels))]


# --- the summary of a run ---------------------------------------------------------------------------------------------


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
    headline = [f"{kind}_{metric}" for metric in HEADLINE for kind in ("id", "ood")]
    for metric in (*headline, "lp_id_accuracy", "lp_ood_accuracy", "val_accuracy", "effective_robustness"):
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
