"""The bundled tasks: the same seed draws the same bytes, and nothing of one split is in another."""

from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from robustft.datasets import digits, scripts
from robustft.registry import discover
from robustft.sources import domains_of, get_dataset
from robustft.types import Dataset, UserError
from robustft.world.tasks import SPLITS, split_pool

TASKS = sorted(discover("datasets"))


@pytest.fixture
def drawn(world_cache: Path) -> "dict[tuple[str, str, str], Dataset]":
    """Every split of every domain, drawn once a session; looked up as ``drawn[task, domain, split]``."""

    class Drawn(dict):  # type: ignore[type-arg]
        def __missing__(self, key: tuple[str, str, str]) -> Dataset:
            return _get(*key, world_cache)

    return Drawn()


@cache
def _get(task: str, domain: str, split: str, root: Path) -> Dataset:
    return get_dataset(task, domain, split, root)


def pictures(dataset: Dataset) -> list[bytes]:
    return [image.tobytes() for image in np.asarray(dataset.images)]


@pytest.mark.parametrize("task", TASKS)
def test_seed_decides_every_byte(task: str, drawn: dict[tuple[str, str, str], Dataset]) -> None:
    domain, draw = domains_of(task)[0], discover("datasets")[task].function
    stored, again, other = drawn[task, domain, "val"], draw("val", domain=domain, seed=0), draw("val", domain=domain, seed=1)
    assert torch.equal(torch.as_tensor(stored.images), torch.as_tensor(again.images)) and stored.fingerprint == again.fingerprint
    assert (stored.class_names, stored.templates) == (again.class_names, again.templates)
    assert not set(pictures(again)) & set(pictures(other)) and again.fingerprint != other.fingerprint
    assert torch.equal(torch.as_tensor(again.labels), torch.as_tensor(other.labels))


@pytest.mark.parametrize("task", TASKS)
def test_splits_and_domains_share_no_picture(task: str, drawn: dict[tuple[str, str, str], Dataset]) -> None:
    parts = [drawn[task, domain, split] for domain in domains_of(task) for split in SPLITS]
    for part in parts:
        assert len(set(pictures(part))) == len(part)
    for a, b in combinations(parts, 2):
        assert not set(pictures(a)) & set(pictures(b)), f"{a.domain} {a.split} and {b.domain} {b.split}"
    assert len({part.fingerprint for part in parts}) == len(parts)
    assert len({part.class_names for part in parts}) == 1


@pytest.mark.parametrize("task", TASKS)
def test_split_is_complete_and_consistent(task: str, drawn: dict[tuple[str, str, str], Dataset]) -> None:
    for domain in domains_of(task):
        for split in SPLITS:
            part = drawn[task, domain, split]
            images, labels = torch.as_tensor(part.images), torch.as_tensor(part.labels)
            assert images.dtype == torch.uint8 and images.shape == (len(labels), 3, 64, 64)
            assert labels.unique().tolist() == list(range(len(part.class_names))), f"{domain} {split} lacks a class"
            assert labels.bincount().unique().numel() == 1, f"{domain} {split} is not balanced"
            assert images.float().flatten(1).std(1).min() > 4, f"{domain} {split} holds an empty picture"


@pytest.mark.parametrize("task", TASKS)
def test_domains_look_different(task: str, drawn: dict[tuple[str, str, str], Dataset]) -> None:
    # The mean picture of a domain differs more from another domain's than from that of its own other split.
    first, second = domains_of(task)
    mean = {key: np.asarray(drawn[(task, *key)].images, np.float64).mean(0) for key in ((first, "train"), (first, "test"), (second, "train"))}
    within, between = (np.abs(mean[first, "train"] - mean[other]).mean() for other in ((first, "test"), (second, "train")))
    assert between > 1.2 * within


@pytest.mark.parametrize("task", TASKS)
def test_names_tell_classes_apart(task: str, drawn: dict[tuple[str, str, str], Dataset]) -> None:
    part = drawn[task, domains_of(task)[0], "val"]
    assert len({name.casefold().strip() for name in part.class_names}) == len(part.class_names) >= 10
    assert all(name == name.strip() and "_" not in name for name in part.class_names)
    assert all(template.count("{}") == 1 for template in part.templates)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("what", "value"), [("split", "Train"), ("split", ""), ("domain", "sketch"), ("domain", "../line")])
def test_unknown_split_or_domain_is_refused(task: str, what: str, value: str) -> None:
    arguments = {"split": "val", what: value}
    with pytest.raises(UserError, match=f"{what} '{value}' is unknown; choose one of "):
        discover("datasets")[task].function(**arguments)


# --- what is drawn from: no digit and no letter in two splits ---------------------------------------------------------


@pytest.mark.parametrize("domain", digits.DOMAINS)
def test_digit_is_in_one_split_only(domain: str) -> None:
    images, labels = digits._load(domain)
    for digit in range(10):
        pools = {split: {image.tobytes() for image in split_pool(images[labels == digit], split, 0)} for split in SPLITS}
        for a, b in combinations(SPLITS, 2):
            assert not pools[a] & pools[b], f"{a} and {b} share a picture of {digit}"


@pytest.mark.parametrize("name", scripts.NAMES)
def test_letter_is_in_one_split_only(name: str) -> None:
    # Compared as drawn: two code points may have one shape.
    pools = {split: {glyph.tobytes() for glyph in scripts.letter_glyphs(name, split, "regular")} for split in SPLITS}
    for a, b in combinations(SPLITS, 2):
        assert not pools[a] & pools[b], f"{a} and {b} share {len(pools[a] & pools[b])} letters"
