"""Runs side by side: who forgot least, what noise allows to say, and what the page keeps in its URL."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from hypothesis import given
from hypothesis import strategies as draw
from made_up_runs import finish_made_up, rewrite_config
from scipy import stats
from streamlit.testing.v1 import AppTest

from robustft import pipeline, ranking, side_by_side, store
from robustft.figures import compare
from robustft.figures.tables import csv_text, worded
from robustft.types import RunConfig, UserError

PAGE = Path(__file__).parent.parent / "pages" / "6_Compare.py"


def changes_of(noise: float = 0.5, **change: float) -> pd.DataFrame:
    """One held-out task, a run a method."""
    return pd.DataFrame(
        {"run": list(change), "task": "digits", "change": list(change.values()), "noise": [noise if value else 0.0 for value in change.values()]}
    )


def say(changes: pd.DataFrame, **words) -> str:
    runs = list(dict.fromkeys(changes["run"]))
    return ranking.verdict(changes, {run: [run] for run in runs}, {run: RunConfig("m", "food", run) for run in runs}, **words)


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_winner_is_named_only_beyond_noise() -> None:
    said = say(changes_of(fda=-3.0, ft=-9.0, ldifs=-1.0))
    assert said.startswith(
        "ldifs forgot least: mean zero-shot change -1.0 ± 0.5 points on 1 held-out task. Next is fda -3.0 ± 0.5; the difference of 2.0 ± 0.7"
    )
    assert "beyond the noise of the test images." in said and "Most was lost by ft -9.0" in said and "noise between seeds comes on top" in said


def test_the_two_best_are_named_when_they_are_not_told_apart() -> None:
    said = say(changes_of(fda=-1.5, ft=-9.0, ldifs=-1.0))
    assert said.startswith(
        "ldifs and fda forgot least, and are not told apart; mean zero-shot change on 1 held-out task, in points: ldifs -1.0 ± 0.5 and fda -1.5"
    )
    assert "Next is ft -9.0 ± 0.5; the difference of 8.0 ± 0.7 to ldifs is beyond" in said


def test_nothing_is_claimed_when_nobody_is_told_apart() -> None:
    said = say(changes_of(5.0, fda=-1.5, ft=-2.0))
    assert said.startswith("fda and ft are not told apart; mean") and "forgot least" not in said and "Next" not in said


def test_what_changed_nothing_does_not_win() -> None:
    said = say(changes_of(zero_shot=0.0, ft=-9.0, ldifs=-1.0))
    assert said.startswith("ldifs forgot least") and said.endswith("zero_shot changed nothing and is left out.")
    assert say(changes_of(zero_shot=0.0, linear_probe=0.0)) == "None of these methods changed a held-out task. Nothing can be ranked."
    assert "Only one method changed anything: mean zero-shot change ft -9.0 ± 0.5 points" in say(changes_of(zero_shot=0.0, ft=-9.0))


def test_methods_are_compared_on_the_tasks_that_all_of_them_measured() -> None:
    more = pd.concat([changes_of(ft=-9.0, fda=-1.0), changes_of(fda=-50.0).assign(task="faces")])
    assert say(more).startswith("fda forgot least: mean zero-shot change -1.0 ± 0.5 points on 1 held-out task.")
    apart = pd.concat([changes_of(ft=-9.0), changes_of(fda=-1.0).assign(task="faces")])
    assert "no held-out task in common" in say(apart)
    assert "measured no zero-shot change" in say(changes_of()[:0])


def test_accuracy_stands_beside_the_loss() -> None:
    assert "ldifs forgot least: mean zero-shot change -1.0 ± 0.5 (ID 20.0 %) points" in say(
        changes_of(ft=-9.0, ldifs=-1.0), accuracy={"ldifs": 20.0, "ft": 90.0}
    )


def test_noise_holds_images_and_seeds() -> None:
    loss = ranking.Loss("a", {0: -1.0, 1: -2.0, 2: -3.0}, 1.0)
    assert loss.noise == pytest.approx(np.hypot(1.0, stats.t.ppf(0.975, 2) / np.sqrt(3)))
    # Seeds that are not shared cannot be paired: their noises add up.
    gap, noise = ranking.difference(loss, ranking.Loss("b", {5: -5.0, 6: -5.0}, 0.0))
    assert gap == pytest.approx(3.0) and noise == pytest.approx(loss.noise)


def test_several_seeds_are_told_in_the_noise() -> None:
    changes = pd.DataFrame({"run": list("abcd"), "task": "digits", "change": [-1.0, -1.2, -9.0, -9.2], "noise": 0.3})
    configs = {run: RunConfig("m", "food", method, seed) for run, (method, seed) in zip("abcd", [("fda", 0), ("fda", 1), ("ft", 0), ("ft", 1)], strict=True)}
    said = ranking.verdict(changes, {"fda": ["a", "b"], "ft": ["c", "d"]}, configs)
    assert "beyond the noise of the test images and of the seeds" in said and "1 seed" not in said
    mixed = ranking.verdict(changes[:3], {"fda": ["a", "b"], "ft": ["c"]}, configs)
    assert "1 seed of ft: noise between seeds comes on top." in mixed


@given(draw.lists(draw.floats(-50, 50), min_size=2, max_size=5), draw.floats(0.01, 9))
def test_who_is_called_first_has_the_largest_mean(values: list[float], noise: float) -> None:
    changes = changes_of(noise, **{f"m{index}": value for index, value in enumerate(values)})
    groups = {run: [run] for run in changes["run"]}
    ranked = ranking.losses(changes, groups, {run: RunConfig("m", "food", run) for run in groups})
    assert [loss.mean for loss in ranked] == sorted(values, reverse=True)
    gap, half = ranking.difference(ranked[0], ranked[-1])
    assert gap >= 0 and half >= 0
    assert ranking.difference(ranked[-1], ranked[0]) == (-gap, half)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_labels_stay_apart_when_names_do_not() -> None:
    configs = {"a": RunConfig("m", "food", "ft", 0), "b": RunConfig("m", "food", "ft", 1), "c": RunConfig("m", "food", "ft", 0, options={"lr": 1})}
    assert ranking.recipes("abc", configs, {"a": "ft s0", "b": "ft s1", "c": "ft s0 #c"}) == {"ft": ["a", "b"], "ft s0 #c": ["c"]}


def test_table_has_the_papers_measures(tmp_path: Path) -> None:
    runs = [finish_made_up(tmp_path, "ft", seed=seed) for seed in (0, 1, 2)]
    side = side_by_side.read_runs([*runs, finish_made_up(tmp_path, "zero_shot", change=0.0)], tmp_path)
    (ft, zero_shot) = side.table().to_dict("records")
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    assert ft["OOD"] == f"61.0 ± {half:.1f}" and ft["ECE"] == "4.0 ± 0.0" and ft["worst Delta_LP"] == "-10.0 ± 0.0" and ft["step (ms)"] == "100 ± 0"
    assert (ft["seeds"], ft["test images"], zero_shot["seeds"]) == (3, 384, 1)
    assert zero_shot["OOD"] == "60.0" and zero_shot["step (ms)"] == "–" and "OTDD" not in zero_shot
    assert side.badge().startswith("food · 4 runs · n = 384 test images · seeds 0, 1, 2 · robustft ")


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    food, animals = finish_made_up(tmp_path, "ft"), finish_made_up(tmp_path, "ft", task="animals")
    with pytest.raises(UserError, match="2 tasks .animals, food."):
        side_by_side.read_runs([food, animals], tmp_path)
    with pytest.raises(UserError, match="no run is chosen"):
        side_by_side.read([], {}, tmp_path)
    unfinished = store.begin_run(RunConfig("glyphclip", "food", "fda"), tmp_path)
    with pytest.raises(UserError, match="only finished runs"):
        side_by_side.read_runs([food, unfinished], tmp_path)


def test_words_keep_text_and_whole_numbers() -> None:
    table = pd.DataFrame({"name": ["a", None], "count": [3, 4], "share": [0.123456, float("nan")], "is": [True, False]})
    assert worded(table, {}).to_numpy().tolist() == [["a", "3", "0.1235", "True"], ["–", "4", "–", "False"]]
    assert csv_text(pd.DataFrame({"=name": ["@x"]})).splitlines()[1] == "'@x"


# --- curves -----------------------------------------------------------------------------------------------------------


def test_drift_runs_from_the_start_over_what_was_kept_to_the_end(tmp_path: Path) -> None:
    runs = [finish_made_up(tmp_path, "ft", moments=True), finish_made_up(tmp_path, "fda")]
    side = side_by_side.read_runs(runs, tmp_path)
    assert side.kept("step").to_numpy().tolist() == [["ft", 0.0, 100.0], ["ft", 1.0, 80.0], ["ft", 2.0, pytest.approx(70.0)]]
    assert side.kept("alpha")["neighbours kept (%)"].tolist() == pytest.approx([100.0, 90.0, 70.0])
    thick = compare.kept_curves(side.kept("alpha"), "alpha", "ft").data[0].line.width
    assert thick > compare.kept_curves(side.kept("alpha"), "alpha").data[0].line.width


def test_picked_point_gets_a_ring_and_names_are_no_markup() -> None:
    table = pd.DataFrame({"method": ["<a href='http://x'>", "fda"], "ID": [90.0, 80.0], "OOD": [50.0, 60.0], "run": ["a", "b"]})
    figure = compare.trade_off(table, "ID", "OOD", ("ID", "OOD"), "fda")
    ring = figure.data[-1]
    assert (ring.name, list(ring.x), list(ring.y)) == ("picked", [80.0], [60.0])
    assert figure.data[1].customdata.tolist() == [["b"], ["a"]]
    assert "<a" not in figure.to_json()
    assert len(compare.trade_off(table, "ID", "OOD", ("ID", "OOD")).data) == 2


def test_log_scale_and_smoothing_change_what_is_drawn(tmp_path: Path) -> None:
    side = side_by_side.read_runs([finish_made_up(tmp_path, "ft")], tmp_path)
    figure = compare.loss_curves(side.curves(), "loss", "ft", window=3, is_log=True)
    assert figure.layout.yaxis.type == "log" and list(figure.data[0].y) == [1.5, 1.5]


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(cache_dir: Path) -> Path:
    st.cache_data.clear()
    return cache_dir


def open_page(**url: str) -> AppTest:
    at = AppTest.from_file(str(PAGE), default_timeout=60)
    for name, value in url.items():
        at.query_params[name] = value
    return at.run()


def words(at: AppTest) -> str:
    return "\n".join(element.value for kind in (at.markdown, at.caption, at.info, at.warning, at.error) for element in kind).replace("\\", "")


def faults(at: AppTest) -> list[str]:
    return [element.value for element in (*at.exception, *at.error)]


def test_page_of_one_run_ranks_nothing(root: Path) -> None:
    finish_made_up(root, "ft")
    at = open_page()
    assert not faults(at)
    assert "Nothing can be ranked" in words(at) and "1 seed: no ranking" in words(at)
    assert not at.query_params, "defaults do not stand in the URL"


def test_url_restores_task_runs_part_and_marked_run(root: Path) -> None:
    runs = [finish_made_up(root, method, change=change) for method, change in (("ft", -0.1), ("fda", -0.02), ("ldifs", -0.01))]
    finish_made_up(root, "ft", task="animals")
    at = open_page(runs=f"{runs[1]},{runs[0]},gone", picked=runs[1], part="reg_loss")
    assert not faults(at)
    assert at.selectbox(key="compare.task").value == "food"
    assert set(at.multiselect[0].value) == set(runs[:2])
    assert at.selectbox(key="compare.picked").value == runs[1]
    assert at.segmented_control(key="compare.part").value == "reg_loss"
    assert "1 of the 3 runs that the link names are not here" in words(at)
    at.multiselect[0].set_value(runs[1:]).run()
    assert at.query_params["runs"] == ",".join(runs[1:]) and at.query_params["task"] == "food"
    at.multiselect[0].set_value([runs[2]]).run()
    assert not faults(at) and "picked" not in at.query_params, "a run that is no longer shown cannot be marked"


def test_another_task_takes_the_runs_of_the_first_out_of_the_url(root: Path) -> None:
    runs = [finish_made_up(root, method, task=task) for task in ("food", "animals") for method in ("ft", "fda")]
    at = open_page(runs=runs[0], picked=runs[0])
    assert at.selectbox(key="compare.task").value == "food" and at.multiselect[0].value == runs[:1]
    at.selectbox(key="compare.task").set_value("animals").run()
    assert not faults(at) and "the link names" not in words(at)
    assert set(at.multiselect[0].value) == set(runs[2:]) and at.query_params == {"task": "animals"}


def test_url_with_nonsense_is_passed_over(root: Path) -> None:
    runs = [finish_made_up(root, method) for method in ("ft", "fda")]
    at = open_page(task="<b>", runs="../../etc", picked="<img onerror=x>", part="all")
    assert not faults(at)
    assert set(at.multiselect[0].value) == set(runs) and at.selectbox(key="compare.picked").value is None


def test_table_shows_intervals_and_keeps_numbers(root: Path) -> None:
    for seed in (0, 1, 2):
        finish_made_up(root, "ft", seed=seed)
        finish_made_up(root, "fda", seed=seed, change=-0.02)
    at = open_page()
    assert not faults(at)
    table = at.dataframe[0].value
    assert table["OOD"].tolist() == pytest.approx([61.0, 61.0]) and "± OOD" not in table
    assert table["seeds"].tolist() == [3, 3]
    assert "no ranking" not in words(at) and "Student's t" in words(at)
    assert "fda forgot least" in words(at) and "and of the seeds" in words(at)


def test_hostile_names_stay_text(root: Path) -> None:
    rewrite_config(root, finish_made_up(root, "ft"), method="<img src=x onerror=alert(1)>", options={"note": "<b>x</b> $y$ :red[z]"})
    rewrite_config(root, finish_made_up(root, "fda", change=-0.02), method="=cmd|' /C calc'!A0")
    at = open_page()
    assert not faults(at)
    assert not any("<img" in element.value.replace("\\<", "") for element in at.markdown)


def test_presenting_leaves_settings_out(root: Path) -> None:
    runs = [finish_made_up(root, method) for method in ("ft", "fda")]
    assert runs and "What differs in their settings" in [title.value for title in open_page().subheader]
    at = open_page(present="true")
    assert not faults(at)
    assert "What differs in their settings" not in [title.value for title in at.subheader] and not at.code


def test_drift_curves_are_drawn_where_runs_kept_moments(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTFT_READ_ONLY", "1")
    finish_made_up(root, "ft", moments=True)
    at = open_page()
    assert not faults(at) and "no curve of drift" not in words(at)
    at.segmented_control(key="compare.along").set_value("alpha").run()
    assert not faults(at)
    assert pipeline.is_read_only()
