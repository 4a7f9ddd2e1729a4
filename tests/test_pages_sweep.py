"""Launch beyond one run typed in: a run made again, a sweep, and what onlookers see."""

from pathlib import Path
from typing import Any

import pytest
from test_pages_launch import LAUNCH, add_run, open_page, root, text_of

from robustft import configs, pipeline, store

__all__ = ["root"]


# --- the same again


def test_launch_shows_the_config_of_the_run_that_the_url_names(root: Path) -> None:
    given = {"lr": 0.00012345678, "bias": 2.5, "steps": 30, "batch_size": 48}
    config = configs.make_config("glyphclip", "digits", "fda", seed=7, options=given, held_out=["food", "travel"], curve=False)
    run_id = store.begin_run(config, root)
    app = open_page(LAUNCH, **{"from": run_id})
    assert run_id in app.success[0].value.replace("\\", "")
    assert "is unfinished" in app.warning[0].value  # it is the very same run
    app.number_input(key="fda.steps").set_value(31).run()
    app.button(key="launch.start").click().run()
    queued = next(view.config for view in pipeline.get_runs(root) if view.state == "queued")
    assert queued == configs.make_config("glyphclip", "digits", "fda", seed=7, options=given | {"steps": 31}, held_out=["food", "travel"], curve=False)


def test_launch_halves_the_batch_when_asked(root: Path) -> None:
    run_id = add_run(root, "ft", batch_size=64)
    app = open_page(LAUNCH, **{"from": run_id, "half": "1"})
    assert app.number_input(key="ft.batch_size").value == 32 and "batch of 64 is halved to 32" in app.success[0].value


def test_what_was_edited_since_wins_after_a_reload(root: Path) -> None:
    run_id = add_run(root, "ft", batch_size=32, steps=40)
    app = open_page(LAUNCH, **{"from": run_id, "ft.steps": "41"})
    assert (app.number_input(key="ft.steps").value, app.number_input(key="ft.batch_size").value) == (41, 32)
    app.selectbox(key="launch.preset").select("defaults").run()
    assert "from" not in app.query_params and app.number_input(key="ft.batch_size").value == 64


@pytest.mark.parametrize("run_id", ["nonsense", "../../etc/passwd", ""])
def test_launch_says_that_there_is_no_such_run(root: Path, run_id: str) -> None:
    app = open_page(LAUNCH, **{"from": run_id})
    assert len(app.error) == 1 and "there is no run" in app.error[0].value.replace("\\", "")
    assert not app.button(key="launch.start").disabled


# --- a sweep


def open_sweep(**query: str) -> Any:
    return open_page(LAUNCH, **{"launch.mode": "a sweep"}, **query)


def test_launch_plans_and_starts_a_sweep(root: Path) -> None:
    add_run(root, "ft")
    app = open_sweep(**{"sweep.seeds": "0-1"})
    assert app.segmented_control(key="launch.mode").value == "a sweep"
    app.pills(key="sweep.methods").set_value(["zero_shot", "l2_sp"]).run()
    app.text_input(key="sweep.strength.l2_sp").set_value("0.1, 1")
    app.number_input(key="sweep.steps").set_value(20)
    app.multiselect(key="launch.held_out.food").set_value(["digits"]).run()
    assert "**5 runs**, 5 of them new" in text_of(app) and not app.error
    table = app.dataframe[0].value
    assert table["state"].tolist() == ["new"] * 5 and set(table["strength"]) == {"", "reg_weight = 0.1", "reg_weight = 1"}
    app.button(key="launch.start").click().run()
    views = pipeline.get_runs(root)
    queued = [view.config for view in views if view.state == "queued"]
    assert len(queued) == 5 and {config.options.get("steps", 20) for config in queued} == {20} and {config.held_out for config in queued} == {("digits",)}
    assert "Started 5 runs" in app.success[0].value and app.button(key="launch.start").disabled and "5 queued" in text_of(app)


def test_launch_marks_runs_of_a_sweep_that_are_there(root: Path) -> None:
    store.begin_run(configs.make_config("glyphclip", "food", "zero_shot"), root)
    app = open_sweep()
    assert app.dataframe[0].value["state"].tolist() == ["○ unfinished", "new"] and "1 of them new" in text_of(app)


@pytest.mark.parametrize(
    ("key", "typed", "told"),
    [("sweep.seeds", "a", "seeds has 'a'"), ("sweep.seeds", "0-99, 100", "at most 100 are allowed"), ("sweep.lr", "fast", "lr = 'fast' is not allowed")],
)
def test_launch_refuses_what_is_no_sweep(root: Path, key: str, typed: str, told: str) -> None:
    app = open_sweep()
    app.text_input(key=key).set_value(typed).run()
    assert len(app.error) == 1 and told in app.error[0].value.replace("\\", "") and app.button(key="launch.start").disabled
    app.pills(key="sweep.methods").set_value([]).run()
    assert not app.exception and len(app.error) == 1


def test_launch_adds_up_the_time_of_a_sweep(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"seconds": 60.0, "train_seconds": 30.0, "measure_seconds": 30.0, "memory_mb": 900.0, "disk_mb": 17.0}
    timed: list[str] = []
    monkeypatch.setattr(pipeline, "estimate", lambda config, root: (timed.append(config.method), measured)[1])
    app = open_sweep(**{"sweep.seeds": "0-4"})
    app.button(key="sweep.estimate").click().run()
    assert sorted(timed) == ["ft", "zero_shot"] and [metric.value for metric in app.metric] == ["6 min"]


# --- onlookers


@pytest.mark.parametrize("mode", ["one run", "a sweep"])
def test_a_read_only_launch_says_so_and_has_no_control_that_writes(root: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("ROBUSTFT_READ_ONLY", "1")
    app = open_page(LAUNCH, **{"launch.mode": mode})
    assert "make app" in app.info[0].value and not app.main.button and app.dataframe


def test_an_audience_sees_no_settings_and_no_command_line(root: Path) -> None:
    app = open_page(LAUNCH)
    app.toggle(key="present").set_value(True).run()
    assert not app.code and not app.dataframe and not app.get("download_button") and not app.button(key="launch.start").disabled
