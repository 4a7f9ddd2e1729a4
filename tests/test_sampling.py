"""Batches: what is in them, that all is seen, and that they depend on seed and step alone."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustft.sampling import make_sampler, random_crop


def labels_of(classes: int, per_class: int) -> torch.Tensor:
    return torch.arange(classes).repeat_interleave(per_class)


@pytest.mark.parametrize("classes", [16, 19, 32, 48])  # 19 is no divisor of anything: `scripts` has so many
def test_balanced_batch_is_sixteen_classes_by_four(classes: int) -> None:
    labels = labels_of(classes, 10)
    sampler = make_sampler("class_balanced", labels, 64, seed=0)
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


@pytest.mark.parametrize(("classes", "share"), [(10, 6), (3, 21), (1, 64)])
def test_fewer_classes_give_more_of_each(classes: int, share: int) -> None:
    labels = labels_of(classes, 70)
    assert Counter(labels[make_sampler("class_balanced", labels, 64, 0)(5)].tolist()) == dict.fromkeys(range(classes), share)


def test_tiny_class_is_drawn_again() -> None:
    labels = torch.tensor([0] * 20 + [1] * 2)
    rows = make_sampler("class_balanced", labels, 16, 0)(0)
    assert Counter(labels[rows].tolist()) == {0: 8, 1: 8}
    assert set(rows[labels[rows] == 1].tolist()) <= {20, 21} and len(set(rows[labels[rows] == 0].tolist())) == 8


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


@pytest.mark.parametrize("name", ["uniform", "class_balanced"])
def test_batch_is_a_function_of_seed_and_step(name: str) -> None:
    labels = labels_of(20, 10)
    one, same, other = (make_sampler(name, labels, 32, seed) for seed in (3, 3, 4))
    assert torch.equal(one(7), same(7))  # asked for out of order, by samplers that have drawn nothing else
    one(0)
    assert torch.equal(one(7), same(7))
    assert not torch.equal(one(7), one(8)) and not torch.equal(one(7), other(7))


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
