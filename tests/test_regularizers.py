"""Laws that every regularizer obeys by being discovered, then FDA, LDIFS and L2-SP against loops written from the papers."""

import inspect
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robustft.registry import discover
from robustft.regularizers.fda import calibrate, fda, fda_loss
from robustft.regularizers.l2_sp import l2_sp
from robustft.regularizers.ldifs import ldifs, ldifs_distance
from robustft.types import Batch, UserError

ALL = sorted(discover("regularizers"))
STILL_AT_START = [name for name in ALL if "zero_at_start" in discover("regularizers")[name].declares("LAWS", ())]
SEEDS = st.integers(0, 10_000)
SIZE = 12


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_at_start(seed: int) -> Batch:
    """Everything a regularizer may look at, with the student where the start is."""
    features, taps = normal(seed, SIZE, 5), [normal(seed + i, SIZE, 4, 3) for i in range(5)]
    weights = {"a": normal(seed + 6, 2, 3), "b": normal(seed + 7, 4)}
    here = {name: value.clone().requires_grad_() for name, value in weights.items()}
    labels = torch.arange(SIZE) % 3
    student = features.clone().requires_grad_()
    return Batch(student, labels, features, normal(seed + 8, SIZE, 3), tuple(t.clone().requires_grad_() for t in taps), tuple(taps), here, weights)


def moved(batch: Batch, seed: int) -> Batch:
    theta = {name: value.detach() + 0.1 * normal(seed, *value.shape) for name, value in batch.theta.items()}
    taps = tuple(tap.detach() + 0.1 * normal(seed + 1, *tap.shape) for tap in batch.taps)
    return replace(batch, features=batch.features.detach() + 0.1 * normal(seed + 2, *batch.features.shape), taps=taps, theta=theta)


def permuted(batch: Batch, order: Tensor) -> Batch:
    rows = {key: getattr(batch, key)[order] for key in ("features", "labels", "features_0", "logits")}
    return replace(batch, **rows, taps=tuple(t[order] for t in batch.taps), taps_0=tuple(t[order] for t in batch.taps_0))


def value_of(name: str, batch: Batch, **given_: Any) -> Tensor:
    """Calls a regularizer at its defaults; what it leaves open is calibrated on the batch, as the loop does."""
    entry = discover("regularizers")[name]
    options = {p.name: p.default for p in entry.params} | given_
    fill = entry.declares("calibrate")
    return entry.function(batch, **options | (fill([batch.features_0], options) if fill else {}))


def gradients(value: Tensor, batch: Batch) -> list[Tensor]:
    found = torch.autograd.grad(value, [batch.features, *batch.taps, *batch.theta.values()], allow_unused=True)
    return [g for g in found if g is not None]


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS)
def test_scalar_with_finite_value_and_gradient_at_the_start(name: str, seed: int) -> None:
    batch = batch_at_start(seed)
    value = value_of(name, batch)
    found = gradients(value, batch)
    assert value.shape == () and math.isfinite(value.item())
    assert found and all(torch.isfinite(g).all() for g in found)


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS)
def test_order_of_the_batch_is_irrelevant(name: str, seed: int) -> None:
    batch = moved(batch_at_start(seed), seed)
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(value_of(name, batch), value_of(name, permuted(batch, order)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS)
def test_strength_scales_and_zero_turns_off(name: str, seed: int) -> None:
    batch = moved(batch_at_start(seed), seed)
    assert value_of(name, batch, reg_weight=0.0) == 0
    torch.testing.assert_close(value_of(name, batch, reg_weight=6.0), 3 * value_of(name, batch, reg_weight=2.0))


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS)
def test_declared_laws_hold(name: str, seed: int) -> None:
    laws = discover("regularizers")[name].declares("LAWS", frozenset())
    start = batch_at_start(seed)
    away = value_of(name, moved(start, seed))
    assert laws <= {"nonnegative", "zero_at_start"}
    if "nonnegative" in laws:
        assert away >= 0 and value_of(name, start) >= 0
    if "zero_at_start" in laws:
        at_start = value_of(name, start)
        assert at_start == 0 and away > 0
        assert all((g == 0).all() for g in gradients(at_start, start))


def test_anchors_say_that_they_are_still_at_the_start() -> None:
    assert {"l2_sp", "ldifs"} <= set(STILL_AT_START) and "fda" not in STILL_AT_START


# --- FDA --------------------------------------------------------------------------------------------------------------


def fda_by_loops(x: np.ndarray, x_0: np.ndarray, k: int, tau: float, b: float) -> np.ndarray:
    """Equation of methods.md 6.1, pair by pair: w is +cos_0 for the k nearest others at the start, else -cos_0, clamped at 0."""

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        return float(u @ v / math.sqrt((u @ u) * (v @ v)))

    losses = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        near = sorted(others, key=lambda j: -cosine(x_0[i], x_0[j]))[:k]
        total = 0.0
        for j in others:
            w = max(0.0, cosine(x_0[i], x_0[j])) * (1 if j in near else -1)
            total += float(np.logaddexp(0.0, w * (b - cosine(x[i], x[j]) / tau)))
        losses.append(total / len(others))
    return np.array(losses)


@given(seed=SEEDS, n=st.integers(3, 10), tau=st.floats(0.05, 2.0), b=st.floats(-10.0, 10.0), data=st.data())
def test_fda_equals_the_double_loop(seed: int, n: int, tau: float, b: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 1))
    x, x_0 = normal(seed, n, 4), normal(seed + 1, n, 4)
    expected = fda_by_loops(x.double().numpy(), x_0.double().numpy(), k, tau, b)
    np.testing.assert_allclose(fda_loss(x, x_0, n_neighbors=k, temperature=tau, bias=b), expected, rtol=1e-4, atol=1e-5)


@given(seed=SEEDS)
def test_fda_is_blind_to_rotation_and_scale(seed: int) -> None:
    x, x_0 = normal(seed, SIZE, 6), normal(seed + 1, SIZE, 6)
    rotation = torch.linalg.qr(normal(seed + 2, 6, 6)).Q
    options: dict[str, Any] = {"n_neighbors": 4, "temperature": 0.1, "bias": 5.0}
    torch.testing.assert_close(fda_loss(3 * x @ rotation, x_0, **options), fda_loss(x, x_0, **options), rtol=1e-4, atol=1e-5)


def test_fda_does_not_look_at_the_diagonal() -> None:
    # Of two images, each has one pair: with itself it would have two. w = cos_0 = 0.6, cos = 0.
    x, x_0 = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    expected = math.log(1 + math.exp(0.6 * (2.0 - 0.0)))
    assert fda_loss(x, x_0, n_neighbors=1, temperature=1.0, bias=2.0).tolist() == pytest.approx([expected, expected])


@pytest.mark.parametrize("k", [0, 4, 5])
def test_fda_refuses_more_neighbors_than_there_are(k: int) -> None:
    with pytest.raises(UserError, match=rf"n_neighbors = {k} .* batch of 4 .* 1 to 3"):
        fda_loss(normal(0, 4, 3), normal(1, 4, 3), n_neighbors=k, temperature=0.1, bias=1.0)


@pytest.mark.parametrize("bias", [-100.0, 100.0])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_fda_is_finite_far_from_its_threshold(bias: float, temperature: float) -> None:
    x = normal(0, 8, 4).requires_grad_()
    losses = fda_loss(x, x.detach() + 1, n_neighbors=3, temperature=temperature, bias=bias)
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(x.grad).all()


def test_fda_pulls_at_the_start() -> None:
    batch = batch_at_start(0)
    value = value_of("fda", batch)
    assert torch.autograd.grad(value, batch.features)[0].norm() > 1e-3


def test_fda_sends_no_gradient_into_the_start() -> None:
    x_0 = normal(1, 8, 4).requires_grad_()
    fda_loss(normal(0, 8, 4).requires_grad_(), x_0, n_neighbors=3, temperature=0.1, bias=1.0).sum().backward()
    assert x_0.grad is None


def test_fda_needs_a_bias() -> None:
    with pytest.raises(UserError, match="bias = None"):
        fda(batch_at_start(0), bias=None)


@given(seed=SEEDS, k=st.integers(1, 9), tau=st.floats(0.05, 1.0))
def test_calibrated_bias_halves_the_midpoints(seed: int, k: int, tau: float) -> None:
    batches = [normal(seed + i, SIZE, 6) + 1 for i in range(5)]
    threshold = tau * calibrate(batches, {"n_neighbors": k, "temperature": tau, "bias": None})["bias"]
    midpoints = []
    for batch in batches:
        unit = batch / batch.norm(dim=1, keepdim=True)
        for i in range(SIZE):
            cosines = sorted((float(unit[i] @ unit[j]) for j in range(SIZE) if j != i), reverse=True)
            midpoints.append((cosines[k - 1] + cosines[k]) / 2)
    assert np.mean(np.array(midpoints) < threshold) == pytest.approx(0.5, abs=0.05)


def test_calibration_keeps_a_given_bias_and_refuses_a_batch_without_a_next_neighbor() -> None:
    assert calibrate([normal(0, 4, 3)], {"n_neighbors": 2, "temperature": 0.1, "bias": 7.0}) == {}
    with pytest.raises(UserError, match="at most 2"):
        calibrate([normal(0, 4, 3)], {"n_neighbors": 3, "temperature": 0.1, "bias": None})


# --- LDIFS ------------------------------------------------------------------------------------------------------------


def ldifs_by_loops(taps: list[Tensor], taps_0: list[Tensor]) -> float:
    """methods.md 5: each channel of each image is scaled to unit norm over its tokens; then the mean of squared differences."""
    values = []
    for h, h_0 in zip(taps, taps_0, strict=True):
        a, b = h.double().numpy(), h_0.double().numpy()
        for n in range(a.shape[0]):
            for t in range(a.shape[1]):
                for c in range(a.shape[2]):
                    values.append((a[n, t, c] / math.sqrt((a[n, :, c] ** 2).sum()) - b[n, t, c] / math.sqrt((b[n, :, c] ** 2).sum())) ** 2)
    return float(np.mean(values))


@given(seed=SEEDS, tokens=st.integers(2, 6))
def test_ldifs_equals_the_loops_and_keeps_its_bound(seed: int, tokens: int) -> None:
    taps, taps_0 = ([normal(seed + 10 * s + i, 3, tokens, 4) for i in range(5)] for s in (0, 1))
    value = ldifs_distance(taps, taps_0).item()
    assert value == pytest.approx(ldifs_by_loops(taps, taps_0), rel=1e-5)
    assert value <= 4 / tokens


@given(seed=SEEDS, tokens=st.integers(2, 6))
def test_ldifs_bound_is_reached_by_opposite_activations(seed: int, tokens: int) -> None:
    taps = [normal(seed, 3, tokens, 4)]
    assert ldifs_distance(taps, [-taps[0]]).item() == pytest.approx(4 / tokens, rel=1e-5)


def test_ldifs_normalises_along_tokens_not_images_or_channels() -> None:
    taps, taps_0 = [normal(0, 4, 6, 3)], [normal(1, 4, 6, 3)]
    rescaled = taps[0] * torch.rand(4, 1, 3).add(0.5)
    torch.testing.assert_close(ldifs_distance([rescaled], taps_0), ldifs_distance(taps, taps_0))
    assert ldifs_distance([taps[0] * torch.rand(4, 6, 1).add(0.5)], taps_0) != pytest.approx(ldifs_distance(taps, taps_0).item(), rel=1e-3)


def test_ldifs_of_images_apart_averages_to_that_of_the_batch() -> None:
    taps, taps_0 = [normal(0, 4, 6, 3)], [normal(1, 4, 6, 3)]
    apart = [ldifs_distance([taps[0][i : i + 1]], [taps_0[0][i : i + 1]]).item() for i in range(4)]
    assert ldifs_distance(taps, taps_0).item() == pytest.approx(np.mean(apart), rel=1e-5)


def test_ldifs_is_its_distance_times_its_strength() -> None:
    batch = moved(batch_at_start(0), 1)
    assert ldifs(batch, reg_weight=7.0).item() == pytest.approx(7 * ldifs_distance(batch.taps, batch.taps_0).item())


def test_ldifs_survives_dead_channels() -> None:
    taps = torch.zeros(2, 3, 4, requires_grad=True)
    value = ldifs_distance([taps], [torch.zeros(2, 3, 4)])
    value.backward()
    assert value == 0 and torch.isfinite(taps.grad).all()


@pytest.mark.parametrize("taps_0", [[], [normal(0, 2, 3, 4)] * 2, [normal(0, 2, 3, 5)]], ids=["none", "too many", "other shape"])
def test_ldifs_refuses_taps_of_another_tower(taps_0: list[Tensor]) -> None:
    unhooked = inspect.unwrap(ldifs_distance)  # the shape hook of the tests would answer first
    with pytest.raises(UserError, match="cannot be compared"):
        unhooked([normal(0, 2, 3, 4)], taps_0)


# --- L2-SP ------------------------------------------------------------------------------------------------------------


def test_l2_sp_by_hand() -> None:
    # (1 - 0)^2 + (4 - 2)^2 = 5, and (1 - 3)^2 = 4: together 9, neither halved nor averaged; a weight without a start is free.
    here = {"w": torch.tensor([[1.0], [4.0]], requires_grad=True), "b": torch.tensor([1.0]), "new": torch.tensor([9.0])}
    start = {"w": torch.tensor([[0.0], [2.0]]), "b": torch.tensor([3.0])}
    value = l2_sp(Batch(torch.ones(1, 1), torch.tensor([0]), theta=here, theta_0=start), reg_weight=0.5)
    assert value.item() == 4.5
    # d/dw of 0.5 * (w - w_0)^2 is w - w_0.
    assert torch.autograd.grad(value, here["w"])[0].tolist() == [[1.0], [2.0]]
