"""Laws that every task loss obeys by being discovered, then each against the equation it is known by."""

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import allowed_values
from torch import Tensor

from robustft.registry import discover
from robustft.task_losses.contrastive import contrastive
from robustft.task_losses.cross_entropy import cross_entropy
from robustft.task_losses.margin_softmax import margin_softmax
from robustft.types import Batch

ENTRIES = discover("task_losses")
ALL = sorted(ENTRIES)
SEEDS = st.integers(0, 10_000)
SIZE, CLASSES, WIDTH = 8, 4, 5


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(normal(seed, *shape), dim=-1)


def images_and_texts(seed: int, scale: float = 10.0) -> Batch:
    """All that a task loss may look at, made as the loop makes it: logits of unit features, texts times the scale."""
    features, texts = normal(seed, SIZE, WIDTH), scale * unit(seed + 1, CLASSES, WIDTH)
    labels = torch.randint(CLASSES, (SIZE,), generator=torch.Generator().manual_seed(seed))
    captions = scale * F.normalize(texts[labels] / scale + 0.1 * normal(seed + 2, SIZE, WIDTH), dim=-1)
    return Batch(features, labels, logits=F.normalize(features, dim=-1) @ texts.T, class_weights=texts, captions=captions)


def tracked(batch: Batch, *names: str) -> Batch:
    return replace(batch, **{name: getattr(batch, name).clone().requires_grad_() for name in names})


# --- Laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_explains_itself(name: str) -> None:
    assert ENTRIES[name].source and ENTRIES[name].summary
    assert all(p.help for p in ENTRIES[name].params)
    assert ENTRIES[name].declares("NEEDS") <= {field.name for field in fields(Batch)} - {"features", "labels"}


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS, scale=st.floats(0.1, 100.0), data=st.data())
def test_finite_scalar_for_every_allowed_option(name: str, seed: int, scale: float, data: st.DataObject) -> None:
    options = {p.name: data.draw(allowed_values(p)) for p in ENTRIES[name].params}
    value = ENTRIES[name].function(images_and_texts(seed, scale), **options)
    assert value.shape == () and math.isfinite(value.item()) and value >= 0


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS, data=st.data())
def test_order_of_the_batch_is_irrelevant(name: str, seed: int, data: st.DataObject) -> None:
    options = {p.name: data.draw(allowed_values(p)) for p in ENTRIES[name].params}
    batch, order = images_and_texts(seed), torch.randperm(SIZE, generator=torch.Generator().manual_seed(seed))
    turned = replace(batch, **{key: getattr(batch, key)[order] for key in ("features", "labels", "logits", "captions")})
    torch.testing.assert_close(ENTRIES[name].function(turned, **options), ENTRIES[name].function(batch, **options), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS)
def test_what_it_says_it_needs_is_enough_and_learns(name: str, seed: int) -> None:
    whole, needs = images_and_texts(seed), ENTRIES[name].declares("NEEDS")
    lean = Batch(whole.features, whole.labels, **{key: getattr(whole, key) for key in needs})
    assert ENTRIES[name].function(lean) == ENTRIES[name].function(whole)
    batch = tracked(lean, *needs & {"logits", "captions"}, "features")
    reached = torch.autograd.grad(ENTRIES[name].function(batch), [batch.logits if "logits" in needs else batch.features])[0]
    assert torch.isfinite(reached).all() and reached.abs().max() > 0


# --- Cross-entropy ----------------------------------------------------------------------------------------------------


def log_softmax(logits: np.ndarray) -> np.ndarray:
    peak = logits.max(1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(1, keepdims=True))


@given(seed=SEEDS, smoothing=st.floats(0.0, 0.9))
def test_cross_entropy_equals_torch_and_its_smoothed_target(seed: int, smoothing: float) -> None:
    batch = images_and_texts(seed)
    value = cross_entropy(batch, label_smoothing=smoothing)
    torch.testing.assert_close(value, F.cross_entropy(batch.logits, batch.labels, label_smoothing=smoothing))
    target = (1 - smoothing) * np.eye(CLASSES)[batch.labels] + smoothing / CLASSES
    assert value.item() == pytest.approx(-np.mean((target * log_softmax(batch.logits.double().numpy())).sum(1)), rel=1e-5)


def test_cross_entropy_is_not_smoothed_unless_asked() -> None:
    batch = images_and_texts(0)
    assert cross_entropy(batch) == F.cross_entropy(batch.logits, batch.labels) != cross_entropy(batch, label_smoothing=0.1)


# --- Margin metric softmax --------------------------------------------------------------------------------------------


@given(seed=SEEDS, scale=st.floats(0.5, 50.0), margin=st.floats(0.0, 1.0))
def test_margin_forms_have_the_same_softmax(seed: int, scale: float, margin: float) -> None:
    batch = images_and_texts(seed, scale)
    f, t = F.normalize(batch.features.double(), dim=-1).numpy(), batch.class_weights.double().numpy() / scale
    ours, published = np.zeros((SIZE, CLASSES)), np.zeros((SIZE, CLASSES))
    for i, y in enumerate(batch.labels.tolist()):
        for k in range(CLASSES):
            ours[i, k] = scale * (f[i] @ t[k] + margin * (1 - t[y] @ t[k]))
            published[i, k] = scale * ((f[i] - margin * t[y]) @ t[k])
    np.testing.assert_allclose(log_softmax(ours), log_softmax(published), rtol=1e-4, atol=1e-4)
    expected = -np.mean(log_softmax(published)[np.arange(SIZE), batch.labels])
    assert margin_softmax(batch, margin=margin).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(seed=SEEDS)
def test_margin_softmax_without_margin_is_cross_entropy(seed: int) -> None:
    batch = images_and_texts(seed)
    torch.testing.assert_close(margin_softmax(batch, margin=0.0), cross_entropy(batch))


@given(seed=SEEDS, margins=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2))
def test_margin_makes_the_loss_harder(seed: int, margins: list[float]) -> None:
    small, great = sorted(margins)
    batch = images_and_texts(seed)
    less, more = margin_softmax(batch, margin=small), margin_softmax(batch, margin=great)
    assert more > less if great - small > 0.01 else more >= less - 1e-5


def test_margin_is_no_head_start_for_the_right_class_nor_for_an_equal_text() -> None:
    # The second class has the text of the first, so of three equal logits only the third gains: 4 * .5 * (1 - 0) = 2.
    texts = 4 * torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    value = margin_softmax(Batch(torch.ones(1, 2), torch.tensor([0]), logits=torch.zeros(1, 3), class_weights=texts), margin=0.5)
    assert value.item() == pytest.approx(math.log(2 + math.exp(2)))


# --- Contrastive ------------------------------------------------------------------------------------------------------


def contrastive_by_loops(features: np.ndarray, captions: np.ndarray, labels: list[int], soft: bool) -> float:
    """Each image among the captions, each caption among the images; a soft target is shared evenly within a class."""
    n, total = len(features), 0.0
    table = np.array([[x @ t / math.sqrt(x @ x) for t in captions] for x in features])
    for one_way in (table, table.T):
        for i in range(n):
            wanted = [j for j in range(n) if labels[j] == labels[i]] if soft else [i]
            total -= sum(one_way[i, j] - math.log(np.exp(one_way[i]).sum()) for j in wanted) / len(wanted) / n
    return total / 2


@given(seed=SEEDS, scale=st.floats(0.1, 50.0), soft=st.booleans())
def test_contrastive_equals_the_loops(seed: int, scale: float, soft: bool) -> None:
    batch = images_and_texts(seed, scale)
    expected = contrastive_by_loops(batch.features.double().numpy(), batch.captions.double().numpy(), batch.labels.tolist(), soft)
    assert contrastive(batch, soft_labels=soft).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(seed=SEEDS, soft=st.booleans())
def test_contrastive_treats_both_towers_alike(seed: int, soft: bool) -> None:
    batch = images_and_texts(seed, 10.0)
    swapped = replace(batch, features=batch.captions / 10, captions=10 * F.normalize(batch.features, dim=-1))
    torch.testing.assert_close(contrastive(swapped, soft_labels=soft), contrastive(batch, soft_labels=soft), rtol=1e-4, atol=1e-5)


@given(seed=SEEDS, soft=st.booleans(), factor=st.floats(0.01, 100.0))
def test_contrastive_does_not_see_the_length_of_features(seed: int, soft: bool, factor: float) -> None:
    batch = images_and_texts(seed)
    longer = replace(batch, features=factor * batch.features)
    torch.testing.assert_close(contrastive(longer, soft_labels=soft), contrastive(batch, soft_labels=soft), rtol=1e-4, atol=1e-5)


@given(seed=SEEDS)
def test_soft_labels_of_classes_seen_once_are_the_default(seed: int) -> None:
    batch = replace(images_and_texts(seed), labels=torch.randperm(SIZE, generator=torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(contrastive(batch, soft_labels=True), contrastive(batch))


def test_images_of_one_class_count_as_wrong_unless_asked_otherwise() -> None:
    batch = images_and_texts(0)
    assert len(batch.labels.unique()) < SIZE
    assert contrastive(batch) == contrastive(batch, soft_labels=False) != contrastive(batch, soft_labels=True)


def grouped(seed: int, duplicates: int, spread: float, scale: float = 100.0) -> Batch:
    """As many images a class, each on its class's text; captions of a class differ by ``spread``, as those of several templates do."""
    labels = torch.arange(3).repeat_interleave(duplicates)
    texts = torch.eye(WIDTH)[labels]
    captions = scale * F.normalize(texts + spread * normal(seed, len(labels), WIDTH), dim=-1)
    return Batch(texts.clone().requires_grad_(), labels, captions=captions)


@given(seed=SEEDS, duplicates=st.integers(1, 5))
def test_hard_target_has_a_floor_where_captions_of_a_class_are_equal(seed: int, duplicates: int) -> None:
    best = grouped(seed, duplicates, spread=0.0)
    assert contrastive(best).item() == pytest.approx(math.log(duplicates), abs=1e-4)
    anywhere = replace(best, features=normal(seed, len(best.labels), WIDTH))
    assert contrastive(anywhere) >= math.log(duplicates) - 1e-4


@given(seed=SEEDS, duplicates=st.integers(2, 5))
def test_soft_target_is_reached_where_classes_are_told_apart(seed: int, duplicates: int) -> None:
    best = grouped(seed, duplicates, spread=0.0)
    value = contrastive(best, soft_labels=True)
    # All that is left is the target's own entropy, and nothing pulls any more.
    assert value.item() == pytest.approx(math.log(duplicates), abs=1e-4)
    assert torch.autograd.grad(value, best.features)[0].abs().max() < 1e-3
    # Where captions of a class differ, the hard target would have images told apart by the template that was drawn for them.
    several = grouped(seed, duplicates, spread=0.05)
    soft, hard = (torch.autograd.grad(contrastive(several, soft_labels=is_soft), several.features)[0] for is_soft in (True, False))
    assert soft.norm() < hard.norm()


@given(seed=SEEDS, duplicates=st.integers(1, 5))
def test_targets_differ_only_where_captions_of_a_class_do(seed: int, duplicates: int) -> None:
    batch = replace(grouped(seed, duplicates, spread=0.0, scale=10.0), features=normal(seed, 3 * duplicates, WIDTH))
    torch.testing.assert_close(contrastive(batch, soft_labels=True), contrastive(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_contrastive_reaches_both_towers(soft: bool) -> None:
    batch = tracked(images_and_texts(0, 5.0), "features", "captions")
    value = contrastive(batch, soft_labels=soft)
    to_images, to_texts = torch.autograd.grad(value, [batch.features, batch.captions])
    assert (to_images.norm(dim=1) > 1e-4).all() and (to_texts.norm(dim=1) > 1e-4).all()
    # The scale lives in the captions, so the gradient along them is its own.
    scale = torch.tensor(5.0, requires_grad=True)
    scaled: dict[str, Any] = {"captions": scale * batch.captions.detach() / 5}
    assert torch.autograd.grad(contrastive(replace(batch, **scaled), soft_labels=soft), scale)[0].abs() > 1e-4
