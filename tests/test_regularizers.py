"""Laws that every regularizer obeys by being discovered, then each against hand-worked values or loops written from the papers."""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustft.registry import discover
from robustft.regularizers import ewc as ewc_file
from robustft.regularizers.ewc import Fisher, ewc
from robustft.regularizers.fda import calibrate, fda, fda_loss
from robustft.regularizers.kd import distillation_loss, kd
from robustft.regularizers.l1_sp import l1_sp
from robustft.regularizers.l2_sp import l2_sp
from robustft.regularizers.ldifs import ldifs, ldifs_distance
from robustft.regularizers.lwf import lwf
from robustft.types import Batch, TrainData, UserError

ALL = sorted(discover("regularizers"))
STILL_AT_START = [name for name in ALL if "zero_at_start" in discover("regularizers")[name].declares("LAWS", ())]
SEEDS = st.integers(0, 10_000)
SIZE = 12


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TinyEncoder(nn.Module):
    """Images of one pixel to 5 features, by weights of the names and shapes that `batch_at_start` anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(normal(1, 2, 3)), nn.Parameter(normal(2, 4))

    def forward(self, images: Tensor) -> Tensor:
        hidden = images.flatten(1) @ self.a.T
        return torch.cat([hidden * self.b[:2], torch.tanh(hidden + self.b[2:]), hidden.sum(1, keepdim=True)], dim=1)


class TinyTeacher(nn.Module):
    """A start of ten weights that answers about three classes; frozen, as the loop's is."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = TinyEncoder(), nn.Parameter(normal(3, 3, 5))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images) @ self.head.T


def pixels(*colours: tuple[int, int, int]) -> TrainData:
    """Images of one pixel each, read as three numbers from 0 to 1."""
    images = torch.tensor(colours, dtype=torch.uint8).view(-1, 3, 1, 1)
    return TrainData(images, torch.zeros(len(colours), dtype=torch.long), lambda raw: raw.float() / 255)


RAINBOW = pixels((255, 0, 0), (200, 90, 0), (60, 255, 30), (0, 120, 255), (130, 0, 200))


def batch_at_start(seed: int) -> Batch:
    """Everything a regularizer may look at, with the student where the start is."""
    features, taps, logits = normal(seed, SIZE, 5), [normal(seed + i, SIZE, 4, 3) for i in range(5)], normal(seed + 8, SIZE, 3)
    weights = {"a": normal(seed + 6, 2, 3), "b": normal(seed + 7, 4)}
    return Batch(
        features.clone().requires_grad_(),
        torch.arange(SIZE) % 3,
        features_0=features,
        logits=logits.clone().requires_grad_(),
        logits_0=logits,
        class_weights=normal(seed + 9, 3, 5),
        captions=normal(seed + 10, SIZE, 5),
        taps=tuple(t.clone().requires_grad_() for t in taps),
        taps_0=tuple(taps),
        theta={name: value.clone().requires_grad_() for name, value in weights.items()},
        theta_0=weights,
    )


def moved(batch: Batch, seed: int) -> Batch:
    """The same batch after a thousand updates: whatever the student makes is elsewhere."""
    theta = {name: value.detach() + 0.1 * normal(seed, *value.shape) for name, value in batch.theta.items()}
    taps = tuple(tap.detach() + 0.1 * normal(seed + 1, *tap.shape) for tap in batch.taps)
    made = {key: getattr(batch, key).detach() for key in ("features", "logits", "class_weights", "captions")}
    made = {key: value + 0.1 * normal(seed + 2 + i, *value.shape) for i, (key, value) in enumerate(made.items())}
    return replace(batch, **made, taps=taps, theta=theta, step=1000)


def permuted(batch: Batch, order: Tensor) -> Batch:
    rows = {key: getattr(batch, key)[order] for key in ("features", "labels", "features_0", "logits", "logits_0", "captions")}
    return replace(batch, **rows, taps=tuple(t[order] for t in batch.taps), taps_0=tuple(t[order] for t in batch.taps_0))


def options_of(name: str) -> dict[str, Any]:
    return {p.name: p.default for p in discover("regularizers")[name].params}


@cache
def memory_of(name: str) -> tuple[nn.Module, ...]:
    """What a regularizer keeps between batches, as the loop makes it, if it keeps anything."""
    begin = discover("regularizers")[name].declares("init")
    return (begin(TinyTeacher(), RAINBOW, options_of(name) | {"fisher_samples": 10}, 0),) if begin else ()


def value_of(name: str, batch: Batch, **given_: Any) -> Tensor:
    """Calls a regularizer at its defaults; what it leaves open is calibrated on the batch, as the loop does."""
    entry = discover("regularizers")[name]
    options = options_of(name) | given_
    fill = entry.declares("calibrate")
    return entry.function(batch, *memory_of(name), **options | (fill([batch.features_0], options) if fill else {}))


def gradients(value: Tensor, batch: Batch) -> list[Tensor]:
    found = torch.autograd.grad(value, [batch.features, batch.logits, *batch.taps, *batch.theta.values()], allow_unused=True)
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
        # A softmax sums to 1 but for its last digit, so a gradient of it is zero but for that.
        assert all((g.abs() < 1e-6).all() for g in gradients(at_start, start))


def test_anchors_say_that_they_are_still_at_the_start() -> None:
    assert {"l1_sp", "l2_sp", "ewc", "ldifs", "lwf"} <= set(STILL_AT_START) and not {"fda", "proxy_fda", "kd"} & set(STILL_AT_START)


# --- FDA --------------------------------------------------------------------------------------------------------------


def fda_by_loops(x: np.ndarray, x_0: np.ndarray, k: int, tau: float, b: float) -> np.ndarray:
    """FDA as published (arXiv:2505.24088), pair by pair: w is +cos_0 for the k nearest others at the start, else -cos_0, clamped at 0."""

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
    """LDIFS as in its code: each channel of each image is scaled to unit norm over its tokens; then the mean of squared differences."""
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
    assert ldifs(batch, reg_weight=7.0).item() == pytest.approx(7 * ldifs_by_loops(list(batch.taps), list(batch.taps_0)), rel=1e-5)
    assert ldifs(batch, norm_axis="token") == ldifs(batch) != ldifs(batch, norm_axis="channel")


def ldifs_of_channels_by_loops(taps: list[Tensor], taps_0: list[Tensor]) -> float:
    """The other axis: each token of each image is scaled to unit norm over its channels; squares are summed over them."""
    values = []
    for h, h_0 in zip(taps, taps_0, strict=True):
        for a, b in zip(h.double().numpy().reshape(-1, h.shape[2]), h_0.double().numpy().reshape(-1, h.shape[2]), strict=True):
            values.append(sum((u / math.sqrt(a @ a) - v / math.sqrt(b @ b)) ** 2 for u, v in zip(a, b, strict=True)))
    return float(np.mean(values))


@given(seed=SEEDS, tokens=st.integers(1, 4), channels=st.integers(1, 5))
def test_ldifs_along_channels_equals_the_loops_and_keeps_its_bound(seed: int, tokens: int, channels: int) -> None:
    taps, taps_0 = ([normal(seed + 10 * s + i, 3, tokens, channels) for i in range(5)] for s in (0, 1))
    value = ldifs_distance(taps, taps_0, "channel").item()
    assert value == pytest.approx(ldifs_of_channels_by_loops(taps, taps_0), rel=1e-5)
    assert value <= 4 * (1 + 1e-6)
    assert ldifs_distance(taps, [-t for t in taps], "channel").item() == pytest.approx(4, rel=1e-5)


def test_ldifs_along_channels_does_not_see_the_scale_of_a_token() -> None:
    taps, taps_0 = [normal(0, 4, 6, 3)], [normal(1, 4, 6, 3)]
    rescaled = taps[0] * torch.rand(4, 6, 1, generator=torch.Generator().manual_seed(0)).add(0.5)
    torch.testing.assert_close(ldifs_distance([rescaled], taps_0, "channel"), ldifs_distance(taps, taps_0, "channel"))


@given(seed=SEEDS)
def test_ldifs_pooled_compares_unit_embeddings_alone(seed: int) -> None:
    batch = moved(batch_at_start(seed), seed)
    x, x_0 = batch.features.double().numpy(), batch.features_0.double().numpy()
    apart = x / np.linalg.norm(x, axis=1, keepdims=True) - x_0 / np.linalg.norm(x_0, axis=1, keepdims=True)
    value = ldifs(replace(batch, taps=(), taps_0=()), reg_weight=3.0, pooled_only=True)
    assert value.item() == pytest.approx(3 * np.mean((apart**2).sum(1)), rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"norm_axis": "channel"}, {"pooled_only": True}], ids=["token", "channel", "pooled"])
def test_ldifs_compares_each_image_with_itself(options: dict[str, Any]) -> None:
    batch, order = moved(batch_at_start(0), 1), torch.arange(SIZE).roll(1)
    turned = permuted(batch, order)
    one_side = replace(batch, features=turned.features, taps=turned.taps)
    assert ldifs(turned, **options).item() == pytest.approx(ldifs(batch, **options).item(), rel=1e-5)
    assert ldifs(one_side, **options) > 2 * ldifs(batch, **options)


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


# --- L1-SP ------------------------------------------------------------------------------------------------------------


def test_l1_sp_by_hand() -> None:
    # |1 - 0| + |4 - 6| + |5 - 5| = 3, and |1 - 3| = 2: together 5; a weight without a start is free.
    here = {"w": torch.tensor([1.0, 4.0, 5.0], requires_grad=True), "b": torch.tensor([1.0]), "new": torch.tensor([9.0])}
    start = {"w": torch.tensor([0.0, 6.0, 5.0]), "b": torch.tensor([3.0])}
    value = l1_sp(Batch(torch.ones(1, 1), torch.tensor([0]), theta=here, theta_0=start), reg_weight=0.5)
    assert value.item() == 2.5
    # The pull is the strength's size whatever the distance, and nothing where the weight is at its start: sign(0) = 0.
    assert torch.autograd.grad(value, here["w"])[0].tolist() == [0.5, -0.5, 0.0]


def test_l1_sp_is_still_at_the_start() -> None:
    batch = batch_at_start(0)
    value = l1_sp(batch, reg_weight=1.0)
    assert value == 0 and all((g == 0).all() for g in torch.autograd.grad(value, list(batch.theta.values())))


# --- KD and LwF -------------------------------------------------------------------------------------------------------


def answers(seed: int, scale: float = 1.0, n: int = 6, classes: int = 4) -> Batch:
    """Student and teacher that disagree about some images."""
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    return Batch(torch.ones(n, 1), labels, logits=(scale * normal(seed, n, classes)).requires_grad_(), logits_0=scale * normal(seed + 1, n, classes))


def probabilities(logits: Tensor, temperature: float = 1.0) -> np.ndarray:
    powers = np.exp(logits.detach().double().numpy() / temperature)
    return powers / powers.sum(1, keepdims=True)


@given(seed=SEEDS, scale=st.floats(0.0, 30.0), kappa=st.floats(0.0, 1.0))
def test_kd_added_to_cross_entropy_is_the_published_mixture(seed: int, scale: float, kappa: float) -> None:
    batch = answers(seed, scale)
    here, start = probabilities(batch.logits), probabilities(batch.logits_0)
    of_labels = -np.mean(np.log(here[np.arange(6), batch.labels]))
    of_teacher = -np.mean((start * np.log(here)).sum(1))
    mixture = (1 - kappa) * of_labels + kappa * of_teacher
    assert (F.cross_entropy(batch.logits, batch.labels) + kd(batch, reg_weight=kappa)).item() == pytest.approx(mixture, rel=1e-4, abs=1e-4)
    assert distillation_loss(batch).item() == pytest.approx(of_teacher, rel=1e-4, abs=1e-4)


@given(seed=SEEDS)
def test_kd_of_kappa_one_knows_no_labels(seed: int) -> None:
    batch = answers(seed)
    whole = F.cross_entropy(batch.logits, batch.labels) + kd(batch, reg_weight=1.0)
    torch.testing.assert_close(whole, distillation_loss(batch))
    torch.testing.assert_close(*(torch.autograd.grad(loss, batch.logits)[0] for loss in (whole, distillation_loss(batch))), rtol=1e-5, atol=1e-6)


@given(seed=SEEDS, scale=st.floats(0.0, 20.0))
def test_kd_is_the_teachers_entropy_at_the_start_and_does_not_pull_there(seed: int, scale: float) -> None:
    batch = answers(seed, scale)
    batch = replace(batch, logits=batch.logits_0.clone().requires_grad_())
    p = probabilities(batch.logits_0)
    loss = distillation_loss(batch)
    assert loss.item() == pytest.approx(-np.mean((p * np.log(p)).sum(1)), rel=1e-4, abs=1e-5)
    assert torch.autograd.grad(loss, batch.logits)[0].abs().max() < 1e-6
    assert distillation_loss(answers(seed, scale)).item() >= -np.mean((p * np.log(p)).sum(1)) - 1e-5


@given(seed=SEEDS, scale=st.floats(0.1, 20.0), temperature=st.floats(0.5, 20.0))
def test_lwf_equals_its_divergence(seed: int, scale: float, temperature: float) -> None:
    batch = answers(seed, scale)
    here, start = probabilities(batch.logits, temperature), probabilities(batch.logits_0, temperature)
    expected = temperature**2 * np.mean((start * np.log(start / here)).sum(1))
    value = lwf(batch, reg_weight=3.0, temperature=temperature).item()
    assert value == pytest.approx(3 * expected, rel=1e-3, abs=1e-3) and value > 0


@given(seed=SEEDS, scale=st.floats(0.0, 100.0), temperature=st.floats(0.01, 100.0))
def test_lwf_is_still_where_the_answers_agree(seed: int, scale: float, temperature: float) -> None:
    batch = answers(seed, scale)
    same = replace(batch, logits=batch.logits_0.clone().requires_grad_())
    value = lwf(same, temperature=temperature)
    assert value == 0 and torch.autograd.grad(value, same.logits)[0].abs().max() < 1e-6 * temperature
    shifted = replace(batch, logits=batch.logits_0 + 5)  # a constant added to all logits of an image changes no answer
    assert lwf(shifted, temperature=temperature).item() == pytest.approx(0, abs=1e-3)


def test_lwf_keeps_the_gradients_size_at_high_temperature() -> None:
    # Where all answers are soft, T^2 KL is half the squared distance of centred logits over the classes, T or not (Hinton 2015).
    batch = answers(0)
    apart = (batch.logits - batch.logits_0).detach()
    expected = (apart - apart.mean(1, keepdim=True)) / apart.numel()
    torch.testing.assert_close(torch.autograd.grad(lwf(batch, temperature=100.0), batch.logits)[0], expected, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("term", [kd, distillation_loss, lwf], ids=["kd", "distillation_loss", "lwf"])
def test_answers_send_no_gradient_into_the_start(term: Callable[[Batch], Tensor]) -> None:
    batch = answers(0)
    teacher = batch.logits_0.requires_grad_()
    term(batch).backward()
    assert teacher.grad is None and batch.logits.grad is not None


@pytest.mark.parametrize("term", [kd, distillation_loss, lwf], ids=["kd", "distillation_loss", "lwf"])
def test_teacher_of_other_classes_is_refused(term: Callable[[Batch], Tensor]) -> None:
    batch = copy.copy(answers(0))
    object.__setattr__(batch, "logits_0", normal(1, 6, 7))  # behind the back of the shape hook of the tests, which would answer first
    with pytest.raises(UserError, match="student has 4 classes and the teacher 7; give both the same"):
        inspect.unwrap(term)(batch)


# --- EWC --------------------------------------------------------------------------------------------------------------


class Logistic(nn.Module):
    """A start whose answers are known: softmax of a linear map of the pixel."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, len(weight), bias=False))
        self.encoder[1].weight.data = weight
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)


def fisher_of(teacher: nn.Module, data: TrainData, samples: int, seed: int = 0) -> Fisher:
    return ewc_file.init(teacher, data, {"fisher_samples": samples}, seed)


def exact_fisher(weight: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Squares of d log p(y | x) / dW[k, j] = ([k = y] - p_k) x_j, over every image and every label by its probability; mean 1."""
    total = np.zeros_like(weight)
    for x in images:
        p = np.exp(weight @ x) / np.exp(weight @ x).sum()
        for y in range(len(p)):
            for k in range(len(p)):
                for j in range(len(x)):
                    total[k, j] += p[y] * (((k == y) - p[k]) * x[j]) ** 2
    return total / total.mean()


def test_fisher_approaches_its_expectation() -> None:
    weight = normal(5, 3, 3) / 2  # far from certain: rare labels have great gradients, and would need many more samples
    fisher = fisher_of(Logistic(weight), RAINBOW, 3000)["1.weight"].numpy()
    expected = exact_fisher(weight.double().numpy(), RAINBOW.inputs(slice(None), "cpu").flatten(1).double().numpy())
    np.testing.assert_allclose(fisher, expected, rtol=0.1)
    assert np.abs(fisher - expected).sum() < 0.04 * expected.sum()


def test_fisher_has_mean_one_over_all_weights_together() -> None:
    fisher = fisher_of(TinyTeacher(), RAINBOW, 7)
    values = torch.cat([fisher["a"].flatten(), fisher["b"].flatten()])
    assert {name for name, _ in fisher.named_buffers()} == {"a", "b"} and not list(fisher.parameters())
    assert values.mean().item() == pytest.approx(1, rel=1e-5) and fisher["a"].mean() != pytest.approx(1, rel=1e-2) and (values >= 0).all()


def test_fisher_samples_labels_and_does_not_take_the_likeliest() -> None:
    # Answers of 0.8, 0.15 and 0.05 on a red pixel. E over labels: p_k (1 - p_k) = .16, .1275, .0475; of the likeliest
    # alone it would be (1 - .8)^2, .15^2, .05^2 = .04, .0225, .0025: the third a sixteenth of the first, not under a third.
    p = torch.tensor([0.8, 0.15, 0.05])
    fisher = fisher_of(Logistic(torch.stack([p.log(), torch.zeros(3), torch.zeros(3)], dim=1)), pixels((255, 0, 0)), 1500)["1.weight"]
    assert (fisher[:, 1:] == 0).all()
    shares, sampled, likeliest = fisher[:, 0] / fisher[:, 0].sum(), p * (1 - p), torch.tensor([0.04, 0.0225, 0.0025])
    torch.testing.assert_close(shares, sampled / sampled.sum(), rtol=0, atol=0.02)
    assert (shares - likeliest / likeliest.sum()).abs().max() > 0.08


def test_fisher_depends_on_the_seed_alone_and_on_no_label() -> None:
    first, again, other = (fisher_of(TinyTeacher(), RAINBOW, 7, seed)["a"] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first, fisher_of(TinyTeacher(), replace(RAINBOW, labels=torch.tensor([2, 1, 0, 1, 2])), 7, 3)["a"])


def test_fisher_leaves_the_start_as_it_was() -> None:
    teacher = TinyTeacher()
    before = copy.deepcopy(teacher.state_dict())
    fisher_of(teacher, RAINBOW, 3)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(not weight.requires_grad and weight.grad is None for weight in teacher.parameters())


def test_fisher_of_answers_that_hang_on_no_weight_counts_all_alike() -> None:
    fisher = fisher_of(Logistic(torch.zeros(3, 3)), pixels((0, 0, 0)), 2)
    assert fisher["1.weight"].tolist() == [[1.0] * 3] * 3


def test_ewc_by_hand() -> None:
    # Information 0, 1, 2 and 5 has mean 2, so it is scaled to 0, .5, 1 and 2.5. Moved by 9, 2, -1 and 2: 0 + 2 + 1 + 10 = 13, half is 6.5.
    memory = Fisher({"layer.w": torch.tensor([0.0, 1.0, 2.0]), "b": torch.tensor([5.0])})
    start = {"layer.w": torch.tensor([1.0, 1.0, 1.0]), "b": torch.tensor([0.0])}
    here = {"layer.w": torch.tensor([10.0, 3.0, 0.0], requires_grad=True), "b": torch.tensor([2.0]), "new": torch.tensor([7.0])}
    value = ewc(Batch(torch.ones(1, 1), torch.tensor([0]), theta=here, theta_0=start), memory, reg_weight=2.0)
    assert value.item() == 13.0
    # d/dw of lambda / 2 * F (w - w_0)^2 is lambda F (w - w_0).
    assert torch.autograd.grad(value, here["layer.w"])[0].tolist() == [0.0, 2.0, -2.0]


@given(seed=SEEDS)
def test_ewc_of_equal_information_is_half_of_l2_sp(seed: int) -> None:
    batch = moved(batch_at_start(seed), seed)
    memory = Fisher({name: torch.full_like(value, 7.0) for name, value in batch.theta_0.items()})
    torch.testing.assert_close(ewc(batch, memory, reg_weight=2.0), l2_sp(batch, reg_weight=1.0))
