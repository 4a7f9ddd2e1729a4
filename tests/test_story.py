"""The guided story on recorded runs: its numbers are those of the runs, its addresses lead somewhere, and nothing can be changed."""

from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from robustft import pipeline, recorded, side_by_side, story
from robustft.store import list_runs
from robustft.types import UserError

APP = Path(__file__).parent.parent / "app.py"
PAGES = sorted((APP.parent / "pages").glob("*.py"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded.unpack(recorded.DEMO, tmp_path_factory.mktemp("story") / "demo")


@pytest.fixture(autouse=True)
def _read_only(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTFT_CACHE", str(demo))
    monkeypatch.setenv("ROBUSTFT_READ_ONLY", "1")
    st.cache_resource.clear()
    st.cache_data.clear()


def words(at: AppTest) -> str:
    return "\n".join(str(element.value) for kind in (at.markdown, at.caption, at.info, at.warning, at.error, at.subheader) for element in kind)


def told(demo: Path) -> list[story.Step]:
    return story.tell(side_by_side.read_runs([record.run_id for record in list_runs(root=demo)], demo))


def test_numbers_are_those_of_the_runs(demo: Path) -> None:
    steps = told(demo)
    by_method = {record.config.method: record for record in list_runs(root=demo)}

    def mean_change(method: str) -> float:
        changes: dict[str, list[float]] = {}
        for score in by_method[method].scores:
            if score.metric == "delta_zs" and score.dataset != "food":
                changes.setdefault(score.dataset, []).append(100 * score.value)
        return sum(sum(values) / len(values) for values in changes.values()) / len(changes)

    assert steps[1].number == f"{mean_change('ft'):+.1f} points"
    assert steps[2].number == f"{max(mean_change(method) for method in ('l2_sp', 'ldifs', 'fda')):+.1f} points"
    known: dict[str, list[float]] = {}
    for score in by_method["ft"].scores:
        if score.metric == "zs_accuracy_0":
            known.setdefault(score.dataset, []).append(100 * score.value)
    assert len(known) == 10 and steps[0].number == f"{sum(sum(v) / len(v) for v in known.values()) / 10:.0f} %"
    assert "OTDD" in steps[4].sentence and "95 % interval" in steps[4].sentence
    assert all("test images" in step.caution for step in steps) and all("±" in step.caution for step in steps)


def test_no_more_is_claimed_than_was_measured(demo: Path) -> None:
    before, plain, protected, mix, cost = told(demo)
    assert "pre-trained on these same classes" in before.caution, "zero-shot is no test of classes that the model never saw"
    assert all("One seed" in step.caution for step in (plain, protected, mix, cost)) and "no ranking of methods" in protected.caution
    assert "best of 3 on these same test images" in protected.caution and "not told apart from l2_sp" in protected.caution
    assert "read on the same test images" in mix.caution, "the rule looks at held-out tasks, whose changes are read on test images"
    assert "with labels" in cost.caution and "did not forecast it" in cost.caution
    assert "Among the 9 tasks of plain fine-tuning alone it may be chance" in cost.sentence, "its interval holds 0, whatever all runs together say"


def test_words_follow_the_numbers(demo: Path) -> None:
    side = side_by_side.read_runs([record.run_id for record in list_runs(root=demo)], demo)

    def with_changes(factor: float) -> list[story.Step]:
        views = []
        for view in side.views:
            scores = tuple(replace(s, value=factor * s.value) if s.metric == "delta_zs" else s for s in view.record.scores)
            views.append(replace(view, record=replace(view.record, scores=scores)))
        return story.tell(replace(side, views=tuple(views)))

    assert "it gets worse" in with_changes(1.0)[1].sentence and "loses far less" in with_changes(1.0)[2].sentence
    assert "it gets better" in with_changes(-1.0)[1].sentence and "loses" not in with_changes(-1.0)[2].sentence.replace("what it loses cannot", "")
    assert "no change can be told from noise" in with_changes(0.01)[1].sentence
    assert "more was forgotten" not in with_changes(-1.0)[4].sentence


@pytest.mark.parametrize(("place", "form"), [(1, "{:+.1f} points"), (2, "{:+.1f} points"), (3, "{:g}"), (4, "{:+.1f} points")])
def test_a_link_to_a_number_leads_to_it(place: int, form: str, demo: Path) -> None:
    step = told(demo)[place]
    link = next(link for link in step.links if link.label.startswith("See this number"))
    at = AppTest.from_file(str(APP.parent / link.page), default_timeout=60)
    for key, value in link.query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception and not at.error
    shown = {form.format(value) for frame in at.dataframe for value in frame.value.select_dtypes("number").to_numpy().ravel()}
    assert step.number in shown | {form.format(float(slider.value)) for slider in at.select_slider}


def test_without_a_plain_run_there_is_no_story(demo: Path) -> None:
    others = [record.run_id for record in list_runs(root=demo) if record.config.method in ("ldifs", "fda")]
    assert story.tell(side_by_side.read_runs(others, demo)) == []


@pytest.mark.parametrize("step", "12345")
def test_every_step_has_an_address(step: str, demo: Path) -> None:
    at = AppTest.from_file(str(APP), default_timeout=60)
    at.query_params["step"] = step
    at.run()
    assert not at.exception and not at.error
    wanted = told(demo)[int(step) - 1]
    assert f"{step} · {wanted.title}" in words(at) and at.metric[0].value == wanted.number
    assert at.get("plotly_chart") and "How to read it" in words(at) and "seed 0" in words(at).replace("\\", "")
    assert {button.label for button in at.button} == {"Back", "Next"}, "nothing on this page writes"
    assert any("./?step=1" in str(part.proto) for part in at.get("html")), "a way to begin anew"


def test_next_and_back() -> None:
    at = AppTest.from_file(str(APP), default_timeout=60).run()
    at.button(key="story.next").click().run()
    at.button(key="story.next").click().run()
    assert "3 · " in words(at)
    at.button(key="story.back").click().run()
    assert "2 · " in words(at)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_page_stands_on_recorded_runs(page: Path) -> None:
    at = AppTest.from_file(str(page), default_timeout=60).run()
    assert not at.exception and not at.error


def test_nothing_can_be_changed(demo: Path) -> None:
    record = list_runs(root=demo)[0]
    for change in (lambda: pipeline.submit([record.config], demo), lambda: pipeline.delete(record.run_id, demo), lambda: pipeline.resume(record.run_id, demo)):
        with pytest.raises(UserError, match="read-only"):
            change()
