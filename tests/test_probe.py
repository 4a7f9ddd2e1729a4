"""The probe against scikit-learn's logistic regression, whose objective it claims to share."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from robustft.probe import STRENGTHS, LinearProbe
from robustft.types import UserError


def samples(seed: int, n: int = 120, classes: int = 4, spread: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds around fixed centres."""
    centres = np.random.default_rng(99).normal(size=(classes, 6))
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (centres[labels] + spread * draw.normal(size=(n, 6))).astype(np.float32), labels


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def oracle(x: np.ndarray, y: np.ndarray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, solver="lbfgs", tol=1e-8, max_iter=10_000).fit(unit(x).astype(np.float64), y)


@pytest.mark.parametrize("strength", [0.1, 3.0, 30.0])
def test_same_weights_as_scikit_learn(strength: float) -> None:
    x, y = samples(0)
    ours, theirs = LinearProbe(strength, max_iter=500).fit(x, y), oracle(x, y, strength)
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=0.01 * scale)
    # A constant added to every bias changes nothing.
    np.testing.assert_allclose(ours.bias - ours.bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=0.01 * scale)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_same_accuracy_as_scikit_learn(strength: float) -> None:
    (x, y), (x_new, y_new) = samples(0), samples(1, 1000)
    assert LinearProbe(strength).fit(x, y).score(x_new, y_new) == pytest.approx(oracle(x, y, strength).score(unit(x_new), y_new), abs=0.005)


def test_two_classes_share_one_direction_with_scikit_learn() -> None:
    # With two classes scikit-learn fits one vector w with penalty |w|^2 / 2; two vectors +-w/2 cost |w|^2 / 4, so its C is twice ours.
    x, y = samples(0, classes=2)
    ours, theirs = LinearProbe(3.0, max_iter=500).fit(x, y), oracle(x, y, 6.0)
    np.testing.assert_allclose(ours.weight[1] - ours.weight[0], theirs.coef_[0], atol=0.01 * np.abs(theirs.coef_).max())


def test_strength_is_chosen_on_validation() -> None:
    (x, y), (x_val, y_val) = samples(0, 40, spread=1.2), samples(1, 400, spread=1.2)
    chosen = LinearProbe().fit(x, y, x_val, y_val)
    scores = {c: LinearProbe(c).fit(x, y).score(x_val, y_val) for c in STRENGTHS}
    assert len(set(scores.values())) > 1
    assert chosen.score(x_val, y_val) == pytest.approx(max(scores.values()), abs=0.005)
    assert chosen.strength in STRENGTHS and scores[chosen.strength] == pytest.approx(max(scores.values()), abs=0.005)


def test_among_equals_the_smallest_strength_is_kept() -> None:
    x, y = samples(0, spread=0.01)
    assert LinearProbe().fit(x, y, x, y).strength == STRENGTHS[0]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
def test_arrays_and_tensors_are_alike(kind: Any) -> None:
    x, y = samples(0)
    probe = LinearProbe(3.0).fit(kind(x), kind(y))
    assert torch.equal(probe.weight, LinearProbe(3.0).fit(x, y).weight)
    assert probe.score(kind(x), kind(y)) == pytest.approx(LinearProbe(3.0).fit(x, y).score(x, y))


def test_scale_of_features_is_irrelevant() -> None:
    x, y = samples(0)
    scales = np.random.default_rng(0).uniform(0.1, 10, (len(x), 1)).astype(np.float32)
    torch.testing.assert_close(LinearProbe(3.0).fit(x * scales, y).weight, LinearProbe(3.0).fit(x, y).weight, atol=1e-3, rtol=1e-3)


def test_class_without_samples_is_never_predicted() -> None:
    x, y = samples(0)
    probe = LinearProbe(3.0).fit(x, 2 * y)  # labels 0, 2, 4, 6
    assert probe.weight.shape[0] == 7 and set(probe.logits(x).argmax(1).tolist()) <= {0, 2, 4, 6}


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="1 class"):
        LinearProbe().fit(samples(0)[0], np.zeros(120, int))


def test_rows_that_are_not_finite_are_named() -> None:
    x, y = samples(0)
    x[[2, 5]] = np.nan
    with pytest.raises(UserError, match=r"rows \[2, 5\]"):
        LinearProbe().fit(x, y)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan")])
def test_strength_must_be_positive(strength: float) -> None:
    with pytest.raises(UserError, match="strength"):
        LinearProbe(strength)
