"""The probe against scikit-learn's logistic regression, whose objective it claims to share."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from robustft import probe as probe_room
from robustft.probe import STRENGTHS, LinearProbe, resampled_rows
from robustft.types import UserError

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def samples(seed: int, n: int = 120, classes: int = 4, spread: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds around fixed centres."""
    centres = np.random.default_rng(99).normal(size=(classes, 6))
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (centres[labels] + spread * draw.normal(size=(n, 6))).astype(np.float32), labels


def cone(seed: int, n: int = 400, classes: int = 6, d: int = 32, height: float = 2.0, decay: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds as a foundation model makes them: around one large common direction, and wide along few others."""
    draw = np.random.default_rng(seed)
    spectrum = np.arange(1, d + 1) ** -decay
    spectrum /= np.linalg.norm(spectrum)
    labels = np.arange(n) % classes
    offsets = 0.6 * np.random.default_rng(99).normal(size=(classes, d))[labels] + draw.normal(size=(n, d))
    common = np.ones(d) / np.sqrt(d)
    return (height * common + offsets * spectrum).astype(np.float32), labels


def unit(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def oracle(x: np.ndarray, y: np.ndarray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, solver="lbfgs", tol=1e-8, max_iter=10_000).fit(unit(x), y)


def loss_and_slope(probe: LinearProbe, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The objective over C and samples, and the largest entry of its gradient, which scikit-learn compares with its ``tol``."""
    weight, bias = probe.weight.double().numpy(), probe.bias.double().numpy()
    log_p = log_softmax(unit(x) @ weight.T + bias, axis=1)
    excess = (np.exp(log_p) - np.eye(len(bias))[y]) / len(x)
    penalty = 1 / (probe.strength * len(x))
    slope = max(np.abs(excess.T @ unit(x) + penalty * weight).max(), np.abs(excess.sum(0)).max())
    return float(penalty / 2 * (weight**2).sum() - log_p[np.arange(len(y)), y].mean()), float(slope)


@cache
def lowest(strength: float) -> float:
    """The least loss on the cone, by scikit-learn."""
    (x, y), probe = cone(0), LinearProbe(strength)
    found = oracle(x, y, strength)
    probe.weight, probe.bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
    return loss_and_slope(probe, x, y)[0]


@pytest.mark.parametrize("strength", [0.1, 3.0, 30.0])
def test_same_weights_as_scikit_learn(strength: float) -> None:
    x, y = samples(0)
    ours, theirs = LinearProbe(strength, tolerance=1e-5).fit(x, y), oracle(x, y, strength)
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=0.001 * scale)
    # A constant added to every bias changes nothing; ours have mean zero.
    np.testing.assert_allclose(ours.bias, theirs.intercept_ - theirs.intercept_.mean(), atol=0.001 * scale)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("world", [samples, cone])
def test_same_accuracy_as_scikit_learn(strength: float, world: Any) -> None:
    (x, y), (x_new, y_new) = world(0), world(1, 2000)
    theirs = oracle(x, y, strength).score(unit(x_new), y_new)
    assert 0.5 < theirs < 0.95
    assert LinearProbe(strength).fit(x, y).score(x_new, y_new) == pytest.approx(theirs, abs=0.003)


def test_two_classes_share_one_direction_with_scikit_learn() -> None:
    # With two classes scikit-learn fits one vector w with penalty |w|^2 / 2; two vectors +-w/2 cost |w|^2 / 4, so its C is twice ours.
    x, y = samples(0, classes=2)
    ours, theirs = LinearProbe(3.0, tolerance=1e-5).fit(x, y), oracle(x, y, 6.0)
    np.testing.assert_allclose(ours.weight[1] - ours.weight[0], theirs.coef_[0], atol=0.001 * np.abs(theirs.coef_).max())
    assert float(ours.bias[1] - ours.bias[0]) == pytest.approx(float(theirs.intercept_[0]), rel=0.001)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_gradient_vanishes_on_a_cone(strength: float) -> None:
    x, y = cone(0)
    for tolerance, slope_left, loss_left in ((5e-4, 1e-4, 5e-4), (1e-5, 1e-5, 1e-6)):
        loss, slope = loss_and_slope(LinearProbe(strength, tolerance=tolerance).fit(x, y), x, y)
        assert slope < slope_left  # scikit-learn itself stops at 1e-4
        assert lowest(strength) - 1e-7 < loss < lowest(strength) + loss_left


@pytest.mark.parametrize("height", [0.0, 2.0, 10.0])
@pytest.mark.parametrize("decay", [0.0, 0.7, 1.5])
def test_few_passes_whatever_the_shape_of_the_features(height: float, decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, loss = [0], probe_room._Problem._loss

    def counted(*given: Any) -> tuple[float, torch.Tensor]:
        passes[0] += 1
        return loss(*given)

    monkeypatch.setattr(probe_room._Problem, "_loss", counted)
    # Rows of a higher cone differ by less, so the same fit needs larger weights.
    LinearProbe(3000.0 * (1 + height**2)).fit(*cone(0, height=height, decay=decay))
    assert passes[0] <= 40


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


@pytest.mark.parametrize("copy", [np.copy, np.asfortranarray, lambda x: np.concatenate([x, x], 1)[:, : x.shape[1]]], ids=["copy", "columns", "part"])
def test_equal_features_give_equal_bits(copy: Any) -> None:
    x, y = cone(0)
    first, second = LinearProbe(device="cpu").fit(x, y, x, y), LinearProbe(device="cpu").fit(copy(x), y.copy(), copy(x), y)
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def test_scale_of_features_is_irrelevant() -> None:
    x, y = samples(0)
    scales = np.random.default_rng(0).uniform(0.1, 10, (len(x), 1)).astype(np.float32)
    torch.testing.assert_close(LinearProbe(3.0).fit(x * scales, y).weight, LinearProbe(3.0).fit(x, y).weight, atol=1e-3, rtol=1e-3)


def test_half_precision_is_read_in_single() -> None:
    x, y = samples(0)
    half = x.astype(np.float16)
    probe = LinearProbe(3.0, device="cpu").fit(half, y)
    assert torch.equal(probe.weight, LinearProbe(3.0, device="cpu").fit(half.astype(np.float32), y).weight)
    assert probe.weight.dtype == torch.float32 and probe.score(half, y) == probe.score(half.astype(np.float32), y)


def test_each_row_twice_is_each_row_once_at_twice_the_strength() -> None:
    x, y = samples(0)
    once = LinearProbe(6.0, tolerance=1e-5).fit(x, y)
    twice = LinearProbe(3.0, tolerance=1e-5).fit(np.concatenate([x, x]), np.concatenate([y, y]))
    torch.testing.assert_close(twice.weight, once.weight, atol=1e-3, rtol=1e-3)


def test_features_of_one_number() -> None:
    probe = LinearProbe().fit(np.array([[2.0], [0.1], [-0.3], [-5.0]], np.float32), [1, 1, 0, 0])
    assert probe.logits(np.array([[7.0], [-7.0]])).argmax(1).tolist() == [1, 0]


def test_few_distinct_rows() -> None:
    # Their covariance is singular, and rounding leaves it with eigenvalues below zero, larger than so small a penalty.
    x = np.random.default_rng(0).normal(size=(4, 128)).repeat(500, 0)
    y = np.arange(4).repeat(500) // 2
    assert LinearProbe(1e6).fit(x, y).score(x, y) == 1


@pytest.mark.parametrize("rows", [8, 5000])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_equal_rows_leave_only_the_class_frequencies(rows: int, value: float) -> None:
    y = np.arange(rows) % 4 // 3  # three to one
    x = np.full((rows, 5), value, np.float32)
    probe = LinearProbe(3000.0, tolerance=1e-5).fit(x, y)
    assert probe.weight.abs().max() < 0.01
    assert torch.softmax(probe.logits(x[:1]), 1)[0].tolist() == pytest.approx([0.75, 0.25], abs=1e-3)


def test_class_without_samples_is_never_predicted() -> None:
    x, y = samples(0)
    probe, alone = LinearProbe(3.0).fit(x, 2 * y), LinearProbe(3.0).fit(x, y)  # labels 0, 2, 4, 6
    assert probe.weight.shape[0] == 7 and torch.equal(probe.weight[::2], alone.weight)
    anywhere = np.random.default_rng(0).normal(size=(5000, 6))
    assert set(probe.logits(anywhere).argmax(1).tolist()) <= {0, 2, 4, 6}


@needs_gpu
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_gpu_finds_the_same_minimum(where: str) -> None:
    x, y = (torch.from_numpy(part).to(where) for part in cone(0))
    probe, reference = LinearProbe(30.0, tolerance=1e-5).fit(x, y), LinearProbe(30.0, tolerance=1e-5, device="cpu").fit(x, y)
    assert probe.weight.device == probe.bias.device == probe.logits(x).device == torch.device("cpu")
    assert not torch.equal(probe.weight, reference.weight)  # so it was not the CPU that fitted it
    torch.testing.assert_close(probe.weight, reference.weight, atol=0.01, rtol=0.01)
    assert probe.score(x, y) == pytest.approx(reference.score(x, y), abs=0.005)


def test_unknown_device_is_refused() -> None:
    with pytest.raises(UserError, match="device"):
        LinearProbe(device="abacus")


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="1 class"):
        LinearProbe().fit(samples(0)[0], np.zeros(120, int))


def test_rows_that_are_not_finite_are_named() -> None:
    x, y = samples(0)
    x[[2, 5], [1, 3]] = np.nan, np.inf
    with pytest.raises(UserError, match=r"rows \[2, 5\]"):
        LinearProbe().fit(x, y)


@pytest.mark.parametrize(
    ("features", "labels", "fault"),
    [
        (np.ones((4, 2)), [0, 1, 1], r"shape \(4, 2\) and labels of shape \(3,\)"),
        (np.ones(4), [0, 1, 1, 0], r"shape \(4,\)"),
        (np.ones((0, 2)), [], r"shape \(0, 2\)"),
        (np.ones((3, 2)), [0, -1, 1], "label -1"),
    ],
)
def test_what_is_no_table_is_refused(features: np.ndarray, labels: list[int], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        LinearProbe().fit(features, labels)


@pytest.mark.parametrize("name", ["strength", "tolerance"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_strength_and_tolerance_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        LinearProbe(**{name: value})


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_resampled_rows_keep_every_label(labels: list[int], seed: int) -> None:
    rows = resampled_rows(labels, seed)
    assert np.array_equal(np.array(labels)[rows], labels)  # so the class counts too
    assert np.array_equal(rows, resampled_rows(torch.tensor(labels), seed))


def test_resampled_rows_are_drawn_with_replacement_and_by_seed() -> None:
    labels = np.repeat([0, 1], [5000, 50])
    rows = resampled_rows(labels, 0)
    assert not np.array_equal(rows, resampled_rows(labels, 1))
    # A row is left out with chance (1 - 1/n)^n, about 1/e; four standard deviations of the share are 0.02.
    assert len(np.unique(rows[:5000])) / 5000 == pytest.approx(1 - np.exp(-1), abs=0.02)
