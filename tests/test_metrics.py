"""Metrics of one model's answers, intervals, and effective robustness."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import log_loss

from robustft.intervals import bootstrap_mean, paired_error
from robustft.metrics.accuracy import accuracy
from robustft.metrics.ece import ece
from robustft.metrics.nll import nll
from robustft.registry import discover
from robustft.robustness import effective_robustness, fit_baseline
from robustft.types import UserError

SEEDS = st.integers(0, 10_000)


def answers(seed: int, n: int = 40, classes: int = 5, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(n, classes)), rng.integers(0, classes, n)


@given(seed=SEEDS, n=st.integers(1, 60), classes=st.integers(2, 9))
def test_every_metric_is_a_finite_number_and_ignores_order_and_shift(seed: int, n: int, classes: int) -> None:
    logits, labels = answers(seed, n, classes)
    order = np.random.default_rng(seed + 1).permutation(n)
    for entry in discover("metrics").values():
        value = entry.function(logits, labels)
        assert isinstance(value, float) and math.isfinite(value) and value >= 0
        assert entry.function(logits[order], labels[order]) == pytest.approx(value)
        assert entry.function(logits + 7, labels) == pytest.approx(value), "a constant added to all logits says nothing"


@given(seed=SEEDS)
def test_likelihood_equals_scikit_learn_and_torch(seed: int) -> None:
    logits, labels = answers(seed)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert nll(logits, labels) == pytest.approx(log_loss(labels, probabilities, labels=range(5)))
    assert nll(logits, labels) == pytest.approx(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item())


def test_likelihood_of_the_certain() -> None:
    assert nll(np.array([[1000.0, 0.0]]), np.array([0])) == 0
    assert nll(np.array([[1000.0, 0.0]]), np.array([1])) == 1000


@given(seed=SEEDS, bins=st.integers(1, 20))
def test_calibration_error_equals_a_loop_over_bins(seed: int, bins: int) -> None:
    logits, labels = answers(seed)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), logits.argmax(1) == labels
    total = 0.0
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert ece(logits, labels, n_bins=bins) == pytest.approx(total)


def test_calibration_error_by_hand() -> None:
    # Ten answers, 90 % sure each; nine are right: perfectly calibrated. Five right: 40 points too sure.
    logits, labels = np.tile([math.log(9), 0.0], (10, 1)), np.array([0] * 9 + [1])
    assert ece(logits, labels) == pytest.approx(0)
    assert ece(logits, np.array([0, 1] * 5)) == pytest.approx(0.4)


def test_calibration_error_of_a_calibrated_model_vanishes() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(200_000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((len(logits), 1)) > probabilities.cumsum(1)).sum(1)
    assert ece(logits, labels) < 0.005
    assert ece(3 * logits, labels) > 0.1, "three times as sure is too sure"


def test_accuracy_is_a_share() -> None:
    assert accuracy(np.eye(4), np.array([0, 1, 2, 0])) == 0.75


# --- intervals --------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 200), n=st.integers(2, 50))
def test_interval_holds_the_mean_and_is_seeded(seed: int, n: int) -> None:
    values = np.random.default_rng(seed).random(n)
    low, high = bootstrap_mean(values, seed=seed)
    assert values.min() <= low <= values.mean() <= high <= values.max()
    assert bootstrap_mean(values, seed=seed) == (low, high)


def test_interval_is_as_wide_as_the_normal_one_on_many_samples() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    low, high = bootstrap_mean(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.1)


@given(seed=SEEDS, n=st.integers(2, 30))
def test_paired_error_equals_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.random(n), rng.random(n)
    assert paired_error(before, after) == pytest.approx(stats.sem(after - before))
    assert paired_error(before, before) == 0


def test_one_sample_has_no_error() -> None:
    assert paired_error(np.ones(1), np.zeros(1)) == 0


# --- effective robustness ---------------------------------------------------------------------------------------------


@given(slope=st.floats(0.2, 2), intercept=st.floats(-2, 1), share=st.floats(0.05, 0.95))
def test_models_on_the_line_have_none_of_it(slope: float, intercept: float, share: float) -> None:
    def below(x: float) -> float:
        return 1 / (1 + math.exp(-(slope * math.log(x / (1 - x)) + intercept)))

    known = [0.3, 0.5, 0.7, 0.9]
    line = fit_baseline(known, [below(x) for x in known])
    assert line == pytest.approx((slope, intercept), abs=1e-6)
    assert effective_robustness(share, below(share), line) == pytest.approx(0, abs=1e-6)
    assert effective_robustness(share, below(share) + 0.04, line) == pytest.approx(0.04, abs=1e-6)


def test_perfect_accuracy_is_foretold_a_perfect_one() -> None:
    assert effective_robustness(1.0, 1.0, (1.0, 0.0)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("id_side", "ood_side"), [([0.5], [0.4]), ([0.5, 0.5], [0.4, 0.5]), ([0.5, 0.6], [0.4]), ([0.5, 1.0], [0.4, 0.5]), ([0.0, 0.5], [0.1, 0.2])]
)
def test_line_that_cannot_be_drawn_is_refused(id_side: list[float], ood_side: list[float]) -> None:
    with pytest.raises(UserError):
        inspect.unwrap(fit_baseline)(id_side, ood_side)
