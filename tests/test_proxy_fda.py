"""Proxy-FDA: what proxies are, that the two gradients stay apart, the joined term against loops, and that proxies keep their spread."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustft.regularizers import fda as plain
from robustft.regularizers import proxy_fda as file
from robustft.regularizers.fda import fda
from robustft.regularizers.proxy_fda import Generator, Side, generator_loss, make_sides, proxy_fda, spread_ratio
from robustft.types import Batch, TrainData, UserError

SEEDS = st.integers(0, 10_000)
LATE = 1000
SETTINGS: dict[str, Any] = {"n_neighbors": 3, "temperature": 0.2, "bias": 2.0}


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved_batch(seed: int, n: int = 10, d: int = 6, step: int = LATE) -> Batch:
    """Features around a common direction, and those of the start a little off."""
    features_0 = 1 + normal(seed, n, d)
    return Batch((features_0 + 0.3 * normal(seed + 1, n, d)).requires_grad_(), torch.zeros(n, dtype=torch.long), features_0, step=step)


def generator_of(seed: int, width: int = 6, sharpness: float = 30.0) -> Generator:
    """A generator whose mixing is far from even, so that its rows differ; 0 mixes evenly."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = Generator(width)
    with torch.no_grad():
        generator.conv2.weight.mul_(sharpness)
        generator.conv2.bias.mul_(sharpness)
    return generator


def weights_of(generator: Generator) -> list[Tensor]:
    return list(generator.parameters())


# --- What proxies are -------------------------------------------------------------------------------------------------


def test_generator_has_the_published_size() -> None:
    assert sum(p.numel() for p in Generator(512).parameters()) == 23_626


@given(seed=SEEDS, n=st.integers(1, 5), m=st.integers(1, 12), p=st.integers(1, 58))
def test_mixing_is_a_share_of_each_feature_of_the_set(seed: int, n: int, m: int, p: int) -> None:
    mixing = generator_of(0)(normal(seed, n, m, 6), p)
    assert mixing.shape == (n, p, m) and (mixing >= 0).all()
    torch.testing.assert_close(mixing.sum(-1), torch.ones(n, p))


@given(seed=SEEDS)
def test_generator_sees_neither_place_nor_scale_of_the_set(seed: int) -> None:
    features, generator = normal(seed, 3, 8, 6), generator_of(1)
    torch.testing.assert_close(generator(5 * features + normal(seed + 1, 3, 1, 6), 4), generator(features, 4), rtol=1e-3, atol=1e-4)


@given(seed=SEEDS, k=st.integers(1, 8), share=st.floats(0.01, 1.0))
def test_proxies_lie_in_the_hull_of_their_set(seed: int, k: int, share: float) -> None:
    batch, generator = moved_batch(seed), generator_of(seed)
    sides = make_sides(batch, generator, k, share)
    assert [side.sign for side in sides] == [1, -1] and [side.features.shape[1] for side in sides] == [k, 9 - k]
    for side in sides:
        n_proxies = side.proxies.shape[1]
        mixing = generator(side.features, n_proxies)
        assert n_proxies == max(1, round(share * side.features.shape[1]))
        torch.testing.assert_close(side.features.norm(dim=-1), torch.ones(side.features.shape[:2]))
        torch.testing.assert_close(side.proxies, F.normalize(mixing @ side.features, dim=-1))
        torch.testing.assert_close(side.proxy_weights, torch.einsum("npm,nm->np", mixing, side.weights))


@given(seed=SEEDS, k=st.integers(1, 8), share=st.floats(0.01, 1.0))
def test_proxy_weights_lie_between_those_of_real_features(seed: int, k: int, share: float) -> None:
    for side in make_sides(moved_batch(seed), generator_of(seed), k, share):
        low, high = side.weights.min(1, keepdim=True).values, side.weights.max(1, keepdim=True).values
        assert (low >= 0).all() and (side.proxy_weights >= low - 1e-6).all() and (side.proxy_weights <= high + 1e-6).all()


def test_sides_are_the_neighbours_and_the_others_at_the_start_nearest_first() -> None:
    # At the start the second to fourth image lie 10, 30 and 100 degrees from the first; the student has them elsewhere.
    angles, here = torch.tensor([0.0, 10.0, 30.0, 100.0]).deg2rad(), torch.tensor([0.0, 80.0, 20.0, 50.0]).deg2rad()
    circle = [torch.stack([a.cos(), a.sin()], dim=1) for a in (angles, here)]
    near, far = make_sides(Batch(3 * circle[1], torch.zeros(4, dtype=torch.long), circle[0]), generator_of(0, width=2), 1, 0.4)
    torch.testing.assert_close(near.features[0], circle[1][[1]])
    torch.testing.assert_close(far.features[0], circle[1][[2, 3]])
    assert near.weights[0].tolist() == pytest.approx([math.cos(math.radians(10))], rel=1e-5)
    assert far.weights[0].tolist() == pytest.approx([math.cos(math.radians(30)), 0.0], rel=1e-5)  # cos 100 degrees is clamped


@pytest.mark.parametrize(("n", "k", "share", "expected"), [(64, 8, 0.4, (3, 22)), (64, 8, 0.01, (1, 1)), (20, 2, 0.4, (1, 7)), (150, 70, 1.0, (58, 58))])
def test_number_of_proxies(n: int, k: int, share: float, expected: tuple[int, int]) -> None:
    sides = make_sides(moved_batch(0, n=n), generator_of(0), k, share)
    assert tuple(side.proxies.shape[1] for side in sides) == expected == tuple(side.proxy_weights.shape[1] for side in sides)


# --- The encoder's term -----------------------------------------------------------------------------------------------


def joined_by_loops(batch: Batch, generator: Generator, k: int, share: float, tau: float, b: float) -> Tensor:
    """Anchor by anchor: real pairs as in FDA, then proxies made of the anchor's own two sets, all terms averaged."""
    unit, unit_0 = F.normalize(batch.features, dim=1), F.normalize(batch.features_0, dim=1)
    losses = []
    for i in range(len(unit)):
        others = sorted((j for j in range(len(unit)) if j != i), key=lambda j: -float(unit_0[i] @ unit_0[j]))
        terms = []
        for sign, members in ((1, others[:k]), (-1, others[k:])):
            points = [unit[j].detach() for j in members]
            weights = [max(0.0, float(unit_0[i] @ unit_0[j])) for j in members]
            terms += [F.softplus(sign * w * (b - unit[i] @ unit[j] / tau)) for w, j in zip(weights, members, strict=True)]
            for row in generator(torch.stack(points)[None], max(1, round(share * len(members))))[0].detach():
                proxy = sum(a * x for a, x in zip(row, points, strict=True))
                weight = float(sum(a * w for a, w in zip(row, weights, strict=True)))
                terms.append(F.softplus(sign * weight * (b - unit[i] @ (proxy / proxy.norm()) / tau)))
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


@given(seed=SEEDS, n=st.integers(4, 10), tau=st.floats(0.05, 1.0), b=st.floats(-5.0, 10.0), share=st.floats(0.01, 1.0), data=st.data())
def test_joined_term_equals_the_double_loop(seed: int, n: int, tau: float, b: float, share: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 2))
    batch, generator = moved_batch(seed, n), generator_of(seed)
    value = proxy_fda(batch, generator, reg_weight=2.0, n_neighbors=k, temperature=tau, bias=b, proxy_share=share)
    expected = 2 * joined_by_loops(batch, generator, k, share, tau, b)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(torch.autograd.grad(v, batch.features)[0] for v in (value, expected)), rtol=1e-3, atol=1e-5)


@given(seed=SEEDS, start=st.integers(1, 1000))
def test_before_its_start_it_is_fda_and_from_then_on_not(seed: int, start: int) -> None:
    batch, generator = moved_batch(seed, step=start - 1), generator_of(seed)
    before = proxy_fda(batch, generator, reg_weight=3.0, proxy_start=start, **SETTINGS)
    same = fda(batch, reg_weight=3.0, **SETTINGS)
    torch.testing.assert_close(before, same)
    torch.testing.assert_close(*(torch.autograd.grad(v, batch.features)[0] for v in (before, same)))
    joined = proxy_fda(replace(batch, step=start), generator, reg_weight=3.0, proxy_start=start, **SETTINGS)
    torch.testing.assert_close(joined, 3 * joined_by_loops(batch, generator, 3, 0.4, 0.2, 2.0))
    assert joined != before


# --- The generator's loss ---------------------------------------------------------------------------------------------


def learning_by_loops(side: Side, other: Side, tau: float, b: float) -> tuple[float, float]:
    """Closeness to own and distance from foreign features, pair by pair; then lack of spread, channel by channel."""
    own, foreign, proxies = (points.detach().double().numpy() for points in (side.features, other.features, side.proxies))
    contrast, lacks = [], []
    for i in range(len(own)):
        for p in proxies[i]:
            contrast += [np.logaddexp(0, -(p @ r / tau - b)) for r in own[i]] + [np.logaddexp(0, p @ r / tau - b) for r in foreign[i]]
        for c in range(own.shape[2]):
            lacks.append(max(0.0, 0.5 - math.sqrt(proxies[i, :, c].var() + 1e-12) / math.sqrt(own[i, :, c].var() + 1e-12)))
    return float(np.mean(contrast)), float(np.mean(lacks))


@given(seed=SEEDS, k=st.integers(1, 8), sharpness=st.floats(1.0, 100.0), weight=st.floats(0.0, 5.0))
def test_generators_loss_equals_the_loops(seed: int, k: int, sharpness: float, weight: float) -> None:
    near, far = make_sides(moved_batch(seed), generator_of(seed, sharpness=sharpness), k, 0.4)
    for side, other in ((near, far), (far, near)):
        contrast, lack = learning_by_loops(side, other, 0.2, 2.0)
        assert generator_loss(side, other, 0.2, 2.0, weight).item() == pytest.approx(contrast + weight * lack, rel=1e-3)


def test_spread_ratio_of_the_features_themselves_is_one_and_of_one_point_zero() -> None:
    features, weights = F.normalize(1 + normal(0, 3, 7, 5), dim=-1), torch.ones(3, 7)
    torch.testing.assert_close(spread_ratio(Side(1, features, weights, features, weights)), torch.ones(3, 5))
    assert spread_ratio(Side(1, features, weights, features[:, :1].expand(3, 4, 5), weights[:, :4])).max() < 0.01


def gradients(batch: Batch, generator: Generator, **options: Any) -> tuple[Tensor, list[Tensor]]:
    """What a value sends to the features and to the generator."""
    value = proxy_fda(batch, generator, **SETTINGS | options)
    to_features, *to_generator = torch.autograd.grad(value, [batch.features, *weights_of(generator)])
    return to_features, to_generator


@pytest.mark.parametrize("step", [0, LATE], ids=["before its start", "joined"])
@pytest.mark.parametrize("reg_weight", [0.0, 1.0, 100.0])
def test_generator_learns_the_same_whatever_the_encoders_term(reg_weight: float, step: int) -> None:
    batch, generator = moved_batch(0, step=step), generator_of(0)
    near, far = make_sides(batch, generator, 3, 0.4)
    alone = sum(generator_loss(*pair, 0.2, 2.0, 1.0) for pair in ((near, far), (far, near)))
    expected = torch.autograd.grad(alone, weights_of(generator))
    found = gradients(batch, generator, reg_weight=reg_weight)[1]
    assert max(g.abs().max() for g in found) > 1e-3
    torch.testing.assert_close(found, list(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("step", [0, LATE], ids=["before its start", "joined"])
def test_encoder_hears_nothing_of_the_generators_loss(step: int) -> None:
    batch, generator = moved_batch(0, step=step), generator_of(0)
    near, far = make_sides(batch, generator, 3, 0.4)
    alone = generator_loss(near, far, 0.2, 2.0, 1.0) + generator_loss(far, near, 0.2, 2.0, 1.0)
    assert torch.autograd.grad(alone, batch.features, allow_unused=True) == (None,)
    assert torch.equal(gradients(batch, generator, diversity_weight=0.0)[0], gradients(batch, generator, diversity_weight=100.0)[0])
    assert (gradients(batch, generator, reg_weight=0.0)[0] == 0).all()


def test_start_gets_no_gradient_and_half_precision_around_changes_nothing() -> None:
    batch, generator = moved_batch(0), generator_of(0)
    batch.features_0.requires_grad_()
    value = proxy_fda(batch, generator, **SETTINGS)
    value.backward()
    assert batch.features_0.grad is None
    with torch.autocast("cpu", torch.bfloat16):
        assert proxy_fda(batch, generator, **SETTINGS) == value


# --- Learning ---------------------------------------------------------------------------------------------------------


def cone(seed: int, noise: float) -> Tensor:
    """A batch of 64 features of a foundation model: a direction that all share, and what tells them apart."""
    return normal(99, 32) + noise * normal(seed, 64, 32)


def spread_after(steps: int, noise: float, diversity_weight: float) -> tuple[float, ...]:
    """Spread ratios of both sides after a generator has learned along on fresh batches, at the loop's rate."""
    options = {"n_neighbors": 8, "temperature": 0.1, "bias": None}
    options |= plain.calibrate([cone(1000 + i, noise) for i in range(20)], options)
    generator = generator_of(0, width=32, sharpness=1.0)
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-3, weight_decay=0.0)
    for step in range(steps):
        x = cone(step, noise)
        optimizer.zero_grad()
        proxy_fda(Batch(x, torch.zeros(64, dtype=torch.long), x, step=step), generator, diversity_weight=diversity_weight, **options).backward()
        optimizer.step()
    x = cone(5000, noise)
    with torch.no_grad():
        return tuple(spread_ratio(side).mean().item() for side in make_sides(Batch(x, torch.zeros(64, dtype=torch.long), x), generator, 8, 0.4))


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_proxies_have_spread_after_a_hundred_updates(noise: float) -> None:
    assert min(spread_after(100, noise, 1.0)) >= 0.3  # seen: 0.73 near and 0.62 far at noise 0.5, 0.63 and 0.48 at 1


def test_proxies_without_push_for_spread_stay_near_their_mean() -> None:
    assert max(spread_after(0, 1.0, 0.0)) < 0.03  # so is where they start
    assert max(spread_after(100, 1.0, 0.0)) < 0.15  # seen: 0.02 near, 0.07 far


# --- Hooks ------------------------------------------------------------------------------------------------------------


class Start(nn.Module):
    """As much of a start as `init` looks at: an encoder of six features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 6))


def test_generator_begins_by_its_seed_alone_and_learns() -> None:
    data = TrainData(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), torch.zeros(2, dtype=torch.long), lambda raw: raw.float())
    teacher, before = Start(), torch.random.get_rng_state()
    first, again, other = (file.init(teacher, data, {}, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.reduce.in_features == 6 and all(p.requires_grad for p in first.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights_of(first), weights_of(again), strict=True))
    assert not torch.equal(first.reduce.weight, other.reduce.weight)


def test_bias_is_calibrated_as_that_of_fda_and_needed() -> None:
    assert file.calibrate is plain.calibrate
    with pytest.raises(UserError, match="bias = None"):
        proxy_fda(moved_batch(0), generator_of(0), bias=None)


@pytest.mark.parametrize("k", [9, 10, 100])
def test_more_neighbours_than_leave_others_are_refused(k: int) -> None:
    with pytest.raises(UserError, match=rf"n_neighbors = {k} .* batch of 10 .* 1 to 8"):
        proxy_fda(moved_batch(0), generator_of(0), **SETTINGS | {"n_neighbors": k})


def report(generator: Generator, step: int, **options: Any) -> Mapping[str, float]:
    return file.health(moved_batch(0, n=20, step=step), generator, {"n_neighbors": 8, "proxy_share": 0.4} | options)


def test_health_reports_spread_beside_what_fda_reports() -> None:
    batch = moved_batch(0, n=20, step=LATE)
    expected = [spread_ratio(side).mean().item() for side in make_sides(batch, generator_of(0), 8, 0.4)]
    found = report(generator_of(0), LATE)
    assert min(expected) > 0.3
    assert found == plain.health(batch, {"n_neighbors": 8}) | {"proxy_spread_near": expected[0], "proxy_spread_far": expected[1]}


def test_collapsed_generator_ends_the_run_after_five_hundred_updates_and_not_before() -> None:
    even = generator_of(0, sharpness=0.0)
    found = report(even, 499)
    assert max(found["proxy_spread_near"], found["proxy_spread_far"]) < 0.01
    for step in (500, 5000):
        with pytest.raises(UserError, match=rf"collapsed: their spread is 0\.00\d .* at step {step}; raise diversity_weight, or use fda"):
            report(even, step)


@pytest.mark.parametrize("options", [{"n_neighbors": 2}, {"n_neighbors": 3}, {"proxy_share": 0.05}], ids=repr)
def test_a_single_proxy_is_not_taken_for_collapse(options: dict[str, Any]) -> None:
    # One proxy a set, as these allowed options give, has no spread that could be lost.
    assert report(generator_of(0), 500, **options)


def test_collapse_is_seen_though_some_channels_never_vary() -> None:
    # Features after a ReLU have channels that are 0 for a whole set; those say nothing of the proxies' spread.
    batch = moved_batch(0, n=20, d=6, step=500)
    dead = replace(batch, features=batch.features.detach() * torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    with pytest.raises(UserError, match="collapsed"):
        file.health(dead, generator_of(0, sharpness=0.0), {"n_neighbors": 8, "proxy_share": 0.4})
