"""Samples as pages show them: joint domains, answers, selections in links, thumbnails by address, classes that moved."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from robustft.crossings import class_mixing, class_moves
from robustft.graph import class_purity
from robustft.neighborhoods import get_neighborhood
from robustft.samples import ALL_DOMAINS, get_answers, get_samples, outcomes, row_domains
from robustft.selected import MOST, pack, unpack
from robustft.thumbnails import thumbnail
from robustft.types import KnnGraph, RunRecord, UserError


def test_all_domains_stand_one_after_the_other(finished_run: RunRecord, world_cache: Path) -> None:
    joint, first = get_samples("food", ALL_DOMAINS, world_cache), get_samples("food", "color", world_cache)
    assert len(joint) == 2 * len(first) and (np.asarray(joint.images[: len(first)]) == np.asarray(first.images)).all()
    assert row_domains("food", ALL_DOMAINS, world_cache).tolist() == ["color"] * 384 + ["line"] * 384
    hood = get_neighborhood(finished_run.run_id, "food", ALL_DOMAINS, 10, world_cache)
    assert hood.graph_0.indices.shape == (768, 10) and hood.graph_0.indices.max() >= 384 and hood.floor is None


def test_outcomes_agree_with_the_accuracy(finished_run: RunRecord, world_cache: Path) -> None:
    answers, data = get_answers(finished_run.run_id, "food", "color", world_cache), get_samples("food", "color", world_cache)
    assert answers is not None
    said = outcomes(answers, np.asarray(data.labels))
    accuracy = next(score.value for score in finished_run.scores if (score.domain, score.metric) == ("color", "id_accuracy"))
    assert np.isin(said, ["right, still right", "became right"]).mean() == pytest.approx(accuracy)
    joint = get_answers(finished_run.run_id, "food", ALL_DOMAINS, world_cache)
    assert joint is not None and len(joint.before) == 768


@given(some.integers(1, 3000).flatmap(lambda n: some.tuples(some.just(n), some.sets(some.integers(0, n - 1)))))
def test_a_selection_survives_its_letters(case: tuple[int, set[int]]) -> None:
    n, ids = case
    letters = pack(ids, n)
    assert unpack(letters, n) == sorted(ids) and letters.replace("-", "").replace("_", "").isalnum() == bool(ids)


@given(some.text(max_size=60), some.integers(1, 200))
def test_nonsense_is_an_empty_selection(letters: str, n: int) -> None:
    assert all(0 <= row < n for row in unpack(letters, n))


def test_a_large_selection_stays_short() -> None:
    draw = np.random.default_rng(0)
    assert len(pack(draw.choice(5000, 1000, replace=False).tolist(), 5000)) < 900
    assert len(unpack(pack(range(50_000), 50_000), 50_000)) == MOST
    bomb = pack(range(20_000), 10_000_000)
    assert unpack(bomb, 100) == []


def test_thumbnails_are_the_samples(world_cache: Path, finished_run: RunRecord) -> None:
    with Image.open(io.BytesIO(thumbnail("food", "color", 3, world_cache))) as opened:
        drawn = np.asarray(opened.convert("RGB")).astype(float)
    true = np.asarray(get_samples("food", "color", world_cache).images[3]).transpose(1, 2, 0)
    assert drawn.shape == (64, 64, 3) and np.abs(drawn - true).mean() < 25


@pytest.mark.parametrize("asked", [("food", "color", 384), ("food", "color", -1), ("nope", "color", 0), ("food", "../..", 0), ("../etc", "color", 0)])
def test_what_is_not_there_has_one_answer(asked: tuple[str, str, int], world_cache: Path) -> None:
    with pytest.raises(UserError, match="^there is no such picture.$"):
        thumbnail(*asked, world_cache)


def test_a_class_of_its_own_neighbours_is_its_purity() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 60)
    graph = KnnGraph(np.stack([draw.permutation(60)[:5] for _ in range(60)]), np.ones((60, 5), np.float32))
    mixing = class_mixing(graph, labels, 5)
    purity = class_purity(graph, labels)
    assert mixing[:4].sum(1) == pytest.approx(np.ones(4)) and mixing[4].sum() == 0
    assert [mixing[c, c] for c in range(4)] == pytest.approx([purity[labels == c].mean() for c in range(4)])


def test_classes_that_stay_go_nowhere() -> None:
    moves = class_moves(np.eye(3), np.eye(3), ["a", "b", "c"])
    assert moves["nearer to"].tolist() == ["–"] * 3 and moves["away by (points)"].tolist() == [0.0] * 3
