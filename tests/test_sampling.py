"""Batches: what is in them, that all is seen, and that they depend on seed and step alone."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustft.sampling import Sampler, class_similarities, hard_classes, make_sampler, random_crop
from robustft.types import UserError

CLASSED = ["class_balanced", "hard_classes"]


def labels_of(classes: int, per_class: int) -> torch.Tensor:
    return torch.arange(classes).repeat_interleave(per_class)


def alike(classes: int, seed: int = 0) -> np.ndarray:
    """Cosines of random directions, one a class."""
    directions = np.random.default_rng(seed).normal(size=(classes, 6)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions @ directions.T


def sampler_of(name: str, labels: torch.Tensor, batch_size: int, seed: int = 0) -> Sampler:
    return make_sampler(name, labels, batch_size, seed, alike(len(labels.unique())) if name == "hard_classes" else None)


@pytest.mark.parametrize("name", CLASSED)
@pytest.mark.parametrize("classes", [16, 19, 32, 48])  # 19 is no divisor of anything: `scripts` has so many
def test_batch_is_sixteen_classes_by_four(classes: int, name: str) -> None:
    labels = labels_of(classes, 10)
    sampler = sampler_of(name, labels, 64)
    for step in range(2 * classes):
        rows = sampler(step)
        assert Counter(Counter(labels[rows].tolist()).values()) == {4: 16}, f"step {step}"
        assert len(set(rows.tolist())) == 64, f"step {step} holds an image twice"


@given(classes=st.integers(2, 60), batch_size=st.sampled_from([8, 32, 64]), seed=st.integers(0, 99))
def test_balanced_pass_sees_every_class(classes: int, batch_size: int, seed: int) -> None:
    labels = labels_of(classes, 5)
    sampler = make_sampler("class_balanced", labels, batch_size, seed)
    per_batch = min(classes, batch_size // 4)
    seen = {label for step in range(-(-classes // per_batch)) for label in labels[sampler(step)].tolist()}
    assert seen == set(range(classes))


@pytest.mark.parametrize("name", CLASSED)
@pytest.mark.parametrize(("classes", "share"), [(10, 6), (3, 21), (2, 32)])
def test_fewer_classes_give_more_of_each(classes: int, share: int, name: str) -> None:
    labels = labels_of(classes, 70)
    assert Counter(labels[sampler_of(name, labels, 64)(5)].tolist()) == dict.fromkeys(range(classes), share)


@pytest.mark.parametrize("name", CLASSED)
def test_tiny_class_is_drawn_again(name: str) -> None:
    labels = torch.tensor([0] * 20 + [1] * 2)
    rows = sampler_of(name, labels, 16)(0)
    assert Counter(labels[rows].tolist()) == {0: 8, 1: 8}
    assert set(rows[labels[rows] == 1].tolist()) <= {20, 21} and len(set(rows[labels[rows] == 0].tolist())) == 8


@pytest.mark.parametrize("name", CLASSED)
def test_labels_may_have_gaps_and_any_order(name: str) -> None:
    labels = torch.tensor([7, 3, 40] * 6)
    assert Counter(labels[sampler_of(name, labels, 12)(0)].tolist()) == {3: 4, 7: 4, 40: 4}


@pytest.mark.parametrize("name", CLASSED)
@pytest.mark.parametrize("batch_size", [2, 4, 7])
def test_small_batch_still_holds_two_classes(batch_size: int, name: str) -> None:
    labels = labels_of(5, 10)
    rows = sampler_of(name, labels, batch_size)(0)
    assert len(labels[rows].unique()) >= 2 and len(rows) <= batch_size


@pytest.mark.parametrize("name", CLASSED)
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^the sampler {name} needs at least two classes .* use sampler=uniform"):
        make_sampler(name, torch.full((9,), 4), 8, 0, np.ones((1, 1), np.float32))


@pytest.mark.parametrize("name", CLASSED)
def test_class_of_one_image_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^class 7 has one training image and the sampler {name} needs two .* use sampler=uniform"):
        make_sampler(name, torch.tensor([3, 3, 7, 9, 9]), 8, 0, alike(3))


@pytest.mark.parametrize("labels", [[4] * 9, [3, 3, 7, 9, 9]])
def test_uniform_takes_any_classes(labels: list[int]) -> None:
    assert len(make_sampler("uniform", torch.tensor(labels), 4, 0)(0)) == 4


@given(n=st.integers(2, 50), batch_size=st.integers(2, 16), seed=st.integers(0, 99))
def test_uniform_epoch_sees_no_image_twice(n: int, batch_size: int, seed: int) -> None:
    sampler = make_sampler("uniform", torch.zeros(n, dtype=torch.long), batch_size, seed)
    size = min(n, batch_size)
    seen = torch.cat([sampler(step) for step in range(n // size)]).tolist()
    assert len(seen) == len(set(seen)) == n // size * size and set(seen) <= set(range(n))


def test_uniform_epochs_differ_in_order() -> None:
    sampler = make_sampler("uniform", torch.zeros(12, dtype=torch.long), 4, 0)
    first, second = (torch.cat([sampler(step) for step in steps]) for steps in (range(3), range(3, 6)))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12)) and not torch.equal(first, second)


@pytest.mark.parametrize("name", ["uniform", *CLASSED])
def test_batch_is_a_function_of_seed_and_step(name: str) -> None:
    labels = labels_of(20, 10)
    one, same, other = (sampler_of(name, labels, 32, seed) for seed in (3, 3, 4))
    assert torch.equal(one(7), same(7))  # asked for out of order, by samplers that have drawn nothing else
    one(0)
    assert torch.equal(one(7), same(7))
    assert not torch.equal(one(7), one(8)) and not torch.equal(one(7), other(7))


@pytest.mark.parametrize("name", ["uniform", *CLASSED])
@settings(max_examples=15)
@given(steps=st.permutations(range(0, 60, 4)))
def test_steps_may_be_taken_in_any_order(name: str, steps: list[int]) -> None:
    labels = labels_of(9, 6)
    expected, sampler = sampler_of(name, labels, 16), sampler_of(name, labels, 16)
    in_order = {step: expected(step) for step in range(60)}
    torch.manual_seed(steps[0])  # no global generator plays a part
    np.random.seed(steps[0])
    assert all(torch.equal(sampler(step), in_order[step]) for step in steps)


# --- hard classes -----------------------------------------------------------------------------------------------------


@given(classes=st.integers(2, 40), batch_size=st.integers(8, 64), per_class=st.integers(2, 12), seed=st.integers(0, 99))
def test_hard_pass_serves_every_class_and_none_twice_in_a_batch(classes: int, batch_size: int, per_class: int, seed: int) -> None:
    labels = labels_of(classes, per_class)
    sampler = sampler_of("hard_classes", labels, batch_size, seed)
    per_batch = min(classes, batch_size // 4)
    share = batch_size // per_batch
    a_pass = max(-(-len(labels) // batch_size), -(-classes // per_batch))
    for turn in (0, 1):
        served: Counter[int] = Counter()
        for step in range(turn * a_pass, (turn + 1) * a_pass):
            counts = Counter(labels[sampler(step)].tolist())
            assert len(counts) == per_batch and set(counts.values()) == {share}
            served.update(counts.keys())
        assert set(served) == set(range(classes))


@given(classes=st.integers(2, 40), n_classes=st.integers(1, 16), spare=st.integers(0, 3), seed=st.integers(0, 99), sharp=st.floats(0.1, 100))
def test_hard_plan_has_room_for_every_class(classes: int, n_classes: int, spare: int, seed: int, sharp: float) -> None:
    """However unevenly classes are drawn to each other, and with not one batch to spare."""
    n_classes = min(n_classes, classes)
    plan = hard_classes(sharp * alike(classes, seed), n_classes, -(-classes // n_classes) + spare, np.random.default_rng(seed))
    assert all(len(set(batch.tolist())) == len(batch) == n_classes for batch in plan)
    assert set(np.concatenate(plan).tolist()) == set(range(classes))


def test_similar_classes_meet_more_often_than_others() -> None:
    """Two families of eight classes, alike inside; batches of four classes over 200 passes."""
    family = np.arange(16) // 8
    similarities = np.where(family[:, None] == family, 0.9, 0.5).astype(np.float32)
    met = np.zeros((16, 16))
    for seed in range(200):
        for batch in hard_classes(similarities, 4, 6, np.random.default_rng(seed)):
            met[np.ix_(batch, batch)] += 1
    inside, across = met[(family[:, None] == family) & ~np.eye(16, dtype=bool)], met[family[:, None] != family]
    assert across.min() > 0 and inside.mean() > 5 * across.mean()
    assert met.diagonal().max() < 1.5 * met.diagonal().min(), "no class is starved"


def test_company_is_drawn_by_softmax_of_similarity() -> None:
    """Pairs of classes, many batches to spare: the partner of class 0 follows exp(similarity / 0.1)."""
    similarities = np.array([[1, 0.3, 0.2, 0.1], [0.3, 1, 0, 0], [0.2, 0, 1, 0], [0.1, 0, 0, 1]], np.float32)
    partners: Counter[int] = Counter()
    for seed in range(20):
        batches = hard_classes(similarities, 2, 400, np.random.default_rng(seed))
        partners.update(int(second) for first, second in batches[10:] if first == 0)
    expected = np.exp([3, 2, 1]) / np.exp([3, 2, 1]).sum()
    found = np.array([partners[k] for k in (1, 2, 3)]) / sum(partners.values())
    np.testing.assert_allclose(found, expected, atol=0.04)


def test_hard_classes_of_equal_similarity_are_any_classes() -> None:
    met = np.zeros((6, 6))
    for seed in range(300):
        for batch in hard_classes(np.ones((6, 6), np.float32), 3, 4, np.random.default_rng(seed)):
            met[np.ix_(batch, batch)] += 1
    apart = met[~np.eye(6, dtype=bool)]
    assert apart.min() > 0.75 * apart.mean() and apart.max() < 1.25 * apart.mean()


def test_similarities_by_hand() -> None:
    """Unit features first, so that lengths do not count; then unit means: class 1 lies between the axes."""
    features = torch.tensor([[9.0, 0.0], [0.0, 2.0], [0.5, 0.0], [5.0, 0.0], [0.0, -3.0]])
    labels = torch.tensor([4, 4, 2, 2, 9])
    half = 0.5**0.5
    expected = [[1, half, 0], [half, 1, -half], [0, -half, 1]]  # in the order of the labels: 2, 4, 9
    np.testing.assert_allclose(class_similarities(features, labels), expected, atol=1e-6)


@given(seed=st.integers(0, 99), classes=st.integers(1, 6))
def test_similarities_are_cosines(seed: int, classes: int) -> None:
    features = torch.randn(classes * 3, 4, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(classes).repeat(3)
    found = class_similarities(features, labels)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-5)
    assert (np.abs(found) <= 1 + 1e-5).all()
    np.testing.assert_allclose(found, class_similarities(3 * features, labels), atol=1e-5)


# --- random_crop ------------------------------------------------------------------------------------------------------


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crop_keeps_shape_and_depends_on_the_seed() -> None:
    images = torch.rand(4, 3, 8, 8)
    cropped = random_crop(images, seeded(0))
    assert cropped.shape == images.shape
    assert torch.equal(cropped, random_crop(images, seeded(0))) and not torch.equal(cropped, random_crop(images, seeded(1)))
    assert not torch.equal(*random_crop(images[:1].repeat(2, 1, 1, 1), seeded(0)))


def test_crop_shows_at_least_nine_tenths_of_the_area_and_nothing_outside() -> None:
    # A ramp of pixel columns: after a crop of side s its slope is s times as steep, and no value is new.
    ramp = torch.arange(64.0).expand(200, 1, 64, 64)
    for cropped in (random_crop(ramp, seeded(0)), random_crop(ramp.transpose(2, 3), seeded(0)).transpose(2, 3)):
        slopes = (cropped[:, 0, 32, 40] - cropped[:, 0, 32, 20]) / 20
        assert slopes.min() >= 0.9**0.5 - 1e-4 and slopes.max() <= 1 + 1e-4 and slopes.std() > 0.005
        assert cropped.min() >= 0 and cropped.max() <= 63


def test_crop_of_everything_changes_nothing() -> None:
    images = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(random_crop(images, seeded(0), smallest=1.0), images, atol=1e-5, rtol=0)
