"""Runs with many runs: filters, several at once, names, failures, and what is left out for onlookers."""

import json
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from test_pages_launch import RUNS, add_run, open_page, root, text_of

from robustft import bench_run, pipeline, store
from robustft.ui import run_card, run_table

__all__ = ["root"]
LOST = {"stage": "training", "step": 4, "steps": 20, "pid": 2**22 + 1, "process_started": 1.0}


def ticked(app: AppTest, *run_ids: str) -> AppTest:
    app.session_state["runs.ticked"] = list(run_ids)
    return app.run()


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def labels(app: AppTest) -> set[str]:
    return {button.label for button in app.main.button}


# --- filters


def test_runs_are_filtered_by_state_method_task_and_text_from_the_url(root: Path) -> None:
    first = add_run(root, "ft")
    add_run(root, "ft", seed=1, status=LOST)
    add_run(root, "l2_sp")
    pipeline.set_note(first, "The Best", "kept for the talk", root)
    assert len(open_page(RUNS, **{"runs.methods": "ft"}).dataframe[0].value) == 2
    assert open_page(RUNS, **{"runs.states": "lost"}).dataframe[0].value["seed"].tolist() == [1]
    assert open_page(RUNS, **{"runs.search": "TALK best"}).dataframe[0].value["name"].tolist() == ["The Best"]
    app = open_page(RUNS, **{"runs.search": "l2_sp-food"})
    assert app.dataframe[0].value["method"].tolist() == ["l2_sp"] and "name" not in app.dataframe[0].value
    assert app.query_params["runs.search"] == ["l2_sp-food"] or app.query_params["runs.search"] == "l2_sp-food"


def test_runs_say_how_to_undo_filters_that_leave_nothing(root: Path) -> None:
    add_run(root, "ft")
    app = open_page(RUNS, **{"runs.tasks": "digits", "runs.search": "x"})
    assert "filters by task, text" in app.info[0].value and not app.dataframe
    press(app, "Show all runs")
    assert len(app.dataframe[0].value) == 1 and app.text_input(key="runs.search").value == ""


# --- several at once


def test_several_runs_are_resumed_cancelled_and_deleted(root: Path) -> None:
    lost = [add_run(root, "ft", seed=seed, status=LOST) for seed in range(3)]
    done = add_run(root, "l2_sp")
    app = ticked(open_page(RUNS), *lost[:2], done)
    assert "3 runs ticked" in text_of(app) and "Cancel 0 of them" in labels(app)
    press(app, "Resume 2 of them")
    assert [pipeline.get_run(name, root).state for name in lost] == ["queued", "queued", "lost"]
    assert "done for 2 of 2" in app.success[0].value
    press(app, "Cancel 2 of them")
    assert pipeline.queue_summary(root)["queued"] == 0
    press(app, "Move all to trash")
    assert [view.run_id for view in pipeline.get_runs(root)] == [lost[2]] and app.session_state["runs.ticked"] == []


def test_what_is_refused_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [add_run(root, "ft", seed=seed, status=LOST) for seed in range(2)]
    app = ticked(open_page(RUNS), *lost)
    pipeline.resume(lost[0], root)
    press(app, "Resume 2 of them")
    assert "done for 1 of 2" in app.error[0].value and "queued" in app.error[0].value


def test_ticks_follow_their_runs_and_hidden_runs_lose_them(root: Path) -> None:
    first, second = add_run(root, "ft"), add_run(root, "l2_sp")
    app = ticked(open_page(RUNS), first, second)
    add_run(root, "kd")
    app.run()
    assert app.session_state["runs.ticked"] == [first, second]
    before = app.session_state["runs.first"]
    assert [app.dataframe[0].value["method"].tolist()[row] for row in before[1]] == ["ft", "l2_sp"]
    app.multiselect(key="runs.methods").set_value(["ft"]).run()
    assert app.session_state["runs.ticked"] == [first] and "runs ticked" not in text_of(app)


def test_one_ticked_row_is_shown_below(root: Path) -> None:
    first = add_run(root, "ft")
    add_run(root, "l2_sp")
    app = open_page(RUNS)
    key = app.session_state["runs.first"][0]
    ids = [view.run_id for view in pipeline.get_runs(root)]
    row = ids.index(first)

    def tick() -> None:
        import streamlit as st

        from robustft.ui import run_table

        st.session_state["t"] = {"selection": {"rows": st.session_state["rows"]}}
        run_table._tick("t", st.session_state["ids"])

    alone = AppTest.from_function(tick)
    alone.session_state["rows"], alone.session_state["ids"] = [row, 99], ids
    alone.run()
    assert key and alone.session_state["run"] == first and alone.session_state["runs.ticked"] == [first]


# --- one run


def test_a_failure_has_a_cause_a_last_good_step_and_diagnostics(root: Path) -> None:
    told = f"CUDA out of memory in {root}/runs/x"
    run_id = add_run(root, "ft", status={"stage": "failed", "message": told}, log=f'File "{root}/a/b"\nlast line', history=7)
    app = open_page(RUNS)
    words = app.error[0].value.replace("\\", "")
    assert "Failed: out of memory" in words and "last good step was 7" in words and "half the batch" in words and str(root) not in text_of(app)
    copied = app.code[-1].value
    assert all(part in copied for part in (run_id, '"torch"', '"batch_size"', "last line", "out of memory"))
    assert not app.button(key="runs.resume").disabled and len(app.get("page_link")) >= 2


def test_a_run_gets_a_name_and_a_note(root: Path) -> None:
    run_id = add_run(root, "ft")
    app = open_page(RUNS)
    app.text_input(key=f"runs.name.{run_id}").set_value("**Best** <b>")
    app.text_area(key=f"runs.note.{run_id}").set_value("line 1\nline 2")
    press(app, "Save")
    assert app.subheader[0].value == r"\*\*Best\*\* \<b\>" and "line 2" in text_of(app)
    assert app.dataframe[0].value["name"].tolist() == ["**Best** <b>"]
    app.text_input(key=f"runs.name.{run_id}").set_value("a\x07b")
    press(app, "Save")
    assert "only characters that can be seen" in app.error[0].value and pipeline.get_run(run_id, root).name == "**Best** <b>"


def test_a_waiting_run_is_moved_to_the_front(root: Path) -> None:
    names = [add_run(root, "ft", seed=seed, status=LOST) for seed in range(2)]
    for name in names:
        pipeline.resume(name, root)
    app = open_page(RUNS, run=names[1])
    press(app, "Run next")
    assert pipeline.get_run(names[1], root).place == 1 and "Run next" not in labels(app)
    assert app.toggle(key="runs.follow").value
    app.toggle(key="runs.follow").set_value(False).run()
    assert not app.exception and "number 1 in the queue" in str([bar.proto.text for bar in app.get("progress")])


# --- onlookers


def test_a_read_only_dashboard_has_no_control_that_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [add_run(root, "ft", seed=seed, status=LOST) for seed in range(2)]
    monkeypatch.setenv("ROBUSTFT_READ_ONLY", "1")
    app = ticked(open_page(RUNS), *lost)
    assert labels(app) == {"Untick all"} and "Resume goes on" not in app.warning[0].value


def test_an_audience_sees_no_log_config_or_command_line(root: Path) -> None:
    add_run(root, "ft", status={"stage": "failed", "message": "no"}, log="secret line")
    app = open_page(RUNS)
    app.toggle(key="present").set_value(True).run()
    assert not app.code and "secret line" not in text_of(app) and not app.get("download_button")


# --- many


def test_a_look_at_five_hundred_runs_is_short(tmp_path: Path) -> None:
    bench_run.write_many_runs(tmp_path, 500)
    pipeline.get_runs(tmp_path)
    begun = time.process_time()
    views = pipeline.get_runs(tmp_path)
    assert time.process_time() - begun < 0.1, "a look every two seconds may cost 5 % of a core"
    assert len(run_table.table_of(views)) == 500


def test_diagnostics_hold_no_path(root: Path) -> None:
    view = pipeline.get_run(add_run(root, "ft", status={"stage": "failed", "message": f"{root}/x/y is gone"}), root)
    text = run_card.diagnostics(view, ["a"], root)
    assert str(root) not in text and json.dumps(store.run_id_of(view.config)) in text
