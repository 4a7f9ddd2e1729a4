"""Home, Launch and Runs as a person meets them, on an empty and on a filled cache; nothing trains."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from robustft import configs, pipeline, store, study, ui
from robustft.feature_cache import cache_use, write_features
from robustft.figures import runs as charts
from robustft.methods import METHODS
from robustft.types import RunConfig, Score, StepRecord, UserError

APP = str(Path(__file__).parent.parent / "app.py")
LAUNCH, RUNS = "pages/1_Launch.py", "pages/2_Runs.py"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache whose queue nobody works off: what pages submit stays queued."""
    monkeypatch.setenv("ROBUSTFT_CACHE", str(tmp_path))
    monkeypatch.setattr(pipeline, "ensure_supervisor", lambda root: None)
    return tmp_path


def open_page(page: str = "", **query: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).run()
    if page:
        app.switch_page(page)
        for key, value in query.items():
            app.query_params[key] = value
        app.run()
    assert not app.exception
    return app


def text_of(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error, app.success, app.subheader, app.code)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def config_for(method: str = "ft", seed: int = 0, **options: Any) -> RunConfig:
    return configs.make_config("glyphclip", "food", method, seed=seed, options=options, held_out=["digits", "scripts"])


def scores() -> list[Score]:
    held = [Score(task, "x", metric, value, 100) for task in ("digits", "scripts") for metric, value in (("delta_zs", -0.1), ("delta_lp", -0.02))]
    return [Score("food", "color", "id_accuracy", 0.9, 100), Score("food", "line", "ood_accuracy", 0.4, 100), *held]


def steps(count: int, reg_loss: float = 0.0) -> list[StepRecord]:
    return [StepRecord(step, 2.0 / step + reg_loss, 2.0 / step, reg_loss, 1e-3, 1.0, 0.5) for step in range(1, count + 1)]


def add_run(root: Path, method: str = "ft", *, status: dict[str, Any] | None = None, log: str = "", history: int = 0, **options: Any) -> str:
    """Stores a finished run, or one that ended or goes on as its status says."""
    config = config_for(method, **options)
    if status is None:
        run_id = store.finish_run(config, scores(), root=root).run_id
    else:
        run_id = store.begin_run(config, root)
        folder = store.run_folder(run_id, root)
        (folder / "status.json").write_text(json.dumps(status))
        (folder / "log.txt").write_text(log)
    store.append_history(run_id, steps(history), root)
    return run_id


# --- Home -------------------------------------------------------------------------------------------------------------


def test_home_says_first_what_to_press(root: Path) -> None:
    app = open_page()
    assert [button.label for button in app.button if not button.disabled] == ["Run the demo study"]
    assert "No runs yet" in text_of(app) and "0 finished runs" in text_of(app)


def test_home_starts_shows_cancels_and_resumes_the_demo(root: Path) -> None:
    app = open_page()
    app.button(key="demo.start").click().run()
    demo = study.STUDIES["demo"]
    assert pipeline.queue_summary(root)["queued"] == len(demo.configs())
    assert "0 of 6 runs finished" in text_of(app) and "number 1 in the queue" in str([bar.proto.text for bar in app.get("progress")])
    app.button(key="demo.cancel").click().run()
    assert pipeline.queue_summary(root) == {"running": 0, "queued": 0}
    app.button(key="demo.resume").click().run()
    assert pipeline.queue_summary(root)["queued"] == 6
    assert not app.exception and not app.error


def test_home_shows_the_finished_demo_as_a_table(root: Path) -> None:
    for config in study.STUDIES["demo"].configs():
        store.finish_run(config, scores(), root=root)
    app = open_page()
    table = app.dataframe[0].value
    assert list(table["method"]) == ["zero_shot", "ft", "lp_ft", "l2_sp", "ldifs", "fda"]
    assert table["ID"].tolist() == pytest.approx([90.0] * 6) and table["mean Delta_ZS"].tolist() == pytest.approx([-10.0] * 6)
    assert [button.key for button in app.button] == ["home.cache.clear"] and "1 seed" in text_of(app)


def test_home_says_how_full_the_cache_is_and_clears_it(root: Path) -> None:
    write_features("key", np.ones((250, 1000), np.float32), root)
    app = open_page()
    assert "1 file, are kept" in text_of(app) and cache_use(root).bytes == 1_000_128
    app.button(key="home.cache.clear").click().run()
    assert cache_use(root).files == 0 and not app.exception and not app.error
    assert app.button(key="home.cache.clear").disabled


def test_home_shows_a_damaged_queue_as_a_sentence(root: Path) -> None:
    (root / "jobs.sqlite").write_bytes(b"no database at all, but some text" * 40)
    app = open_page()
    assert "is damaged" in app.error[0].value.replace("\\", "") and str(root) not in text_of(app)


# --- Launch -----------------------------------------------------------------------------------------------------------


def test_launch_opens_with_a_config_that_can_start(root: Path) -> None:
    app = open_page(LAUNCH)
    assert not app.error and not app.button(key="launch.start").disabled
    assert "--dataset food --method ft" in app.code[0].value
    assert "48 classes" in text_of(app) and len(app.get("image")) == 2


def test_launch_shows_only_the_fields_of_the_method(root: Path) -> None:
    app = open_page(LAUNCH)
    app.pills(key="launch.method").select("zero_shot").run()
    assert "nothing to set" in text_of(app) and not app.text_input
    app.pills(key="launch.method").select("fda").run()
    assert app.text_input(key="fda.temperature").value == "0.1" and app.text_input(key="fda.bias").value == "none"
    assert app.selectbox(key="fda.sampler").value == "hard_classes" and r"\mathcal{L}" in app.latex[0].value


@pytest.mark.parametrize(("typed", "told"), [("abc", "'abc'"), ("5", "'5'"), ("nan", "'nan'"), ("", "''")])
def test_launch_refuses_bad_numbers_in_one_box(root: Path, typed: str, told: str) -> None:
    app = open_page(LAUNCH)
    app.text_input(key="ft.lr").set_value(typed).run()
    words = [box.value.replace("\\", "") for box in app.error]
    assert len(words) == 1 and f"lr = {told} is not allowed" in words[0]
    assert app.button(key="launch.start").disabled
    app.text_input(key="ft.lr").set_value("1e-4").run()
    assert not app.error and not app.button(key="launch.start").disabled and "lr=0.0001" in app.code[0].value


def test_launch_tells_the_story_of_every_method(root: Path) -> None:
    app = open_page(LAUNCH)
    for name, method in METHODS.items():
        app.pills(key="launch.method").select(name).run()
        assert not app.exception and not app.error and app.latex[0].value.strip("$\n ") == method.equation.split(r", \quad")[0], name
        shown = text_of(app)
        assert all(words in shown for words in (method.title, method.summary, method.protects, method.cost, method.source)), name
        assert f"--method {name}" in app.code[0].value


def test_launch_applies_a_preset_and_calls_an_edited_one_custom(root: Path) -> None:
    app = open_page(LAUNCH)
    assert app.selectbox(key="launch.preset").value == "defaults"
    app.selectbox(key="launch.preset").select("ldifs_paper").run()
    assert app.pills(key="launch.method").value == "ldifs" and app.text_input(key="ldifs.lr").value == "1e-05"
    assert app.selectbox(key="launch.preset").value == "ldifs_paper" and "45,000 images" in text_of(app)
    assert "reg_weight=10.0" in app.code[0].value and "head_start=linear_probe" in app.code[0].value
    app.number_input(key="ldifs.steps").set_value(7).run()
    assert app.selectbox(key="launch.preset").value == "custom"
    app.selectbox(key="launch.preset").select("defaults").run()
    assert app.selectbox(key="launch.preset").value == "defaults" and app.code[0].value.endswith("--method ldifs --seed 0 --device auto")
    app.text_input(key="ldifs.lr").set_value("fast").run()
    assert app.selectbox(key="launch.preset").value == "custom" and len(app.error) == 1


def test_launch_goes_back_to_the_preset_and_the_edits_of_a_url(root: Path) -> None:
    app = open_page(LAUNCH, **{"launch.base": "fda_paper", "launch.method": "FDA", "fda.n_neighbors": "12"})
    assert app.text_input(key="fda.lr").value == "1e-05" and app.number_input(key="fda.n_neighbors").value == 12
    assert app.selectbox(key="launch.preset").value == "custom"


def test_launch_warns_of_and_refuses_settings_that_do_not_go_together(root: Path) -> None:
    app = open_page(LAUNCH)
    app.pills(key="launch.method").select("fda").run()
    assert not app.warning
    app.number_input(key="fda.n_neighbors").set_value(3).run()
    assert "neighbourhoods stay inside a class" in app.warning[0].value and not app.button(key="launch.start").disabled
    app.number_input(key="fda.n_neighbors").set_value(63).run()
    assert "give at most 62" in app.error[0].value.replace("\\", "") and app.button(key="launch.start").disabled


def test_launch_starts_a_run_once(root: Path) -> None:
    app = open_page(LAUNCH)
    app.number_input(key="ft.steps").set_value(20)
    app.multiselect(key="launch.held_out.food").set_value(["scripts", "digits"]).run()
    app.button(key="launch.start").click().run()
    (view,) = pipeline.get_runs(root)
    assert (view.state, view.config.options["steps"], view.config.held_out) == ("queued", 20, ("digits", "scripts"))
    assert "Started" in app.success[0].value and app.button(key="launch.start").disabled
    app.number_input(key="launch.seed").set_value(1).run()
    assert not app.button(key="launch.start").disabled and "number 2" in text_of(app)
    app.number_input(key="launch.seed").set_value(0).run()
    assert app.button(key="launch.start").disabled and len(pipeline.get_runs(root)) == 1


def test_launch_says_that_a_finished_run_is_there(root: Path) -> None:
    config = configs.make_config("glyphclip", "food", "zero_shot")
    store.finish_run(config, scores(), root=root)
    app = open_page(LAUNCH)
    app.pills(key="launch.method").select("zero_shot").run()
    assert "there already" in app.info[0].value and "finished" in app.info[0].value and app.button(key="launch.start").disabled


def test_launch_offers_to_go_on_with_a_stopped_run(root: Path) -> None:
    run_id = store.begin_run(configs.make_config("glyphclip", "food", "ft"), root)
    (store.run_folder(run_id, root) / "status.json").write_text(json.dumps({"stage": "stopped"}))
    app = open_page(LAUNCH)
    assert "is stopped" in app.warning[0].value
    app.button(key="launch.start").click().run()
    assert [view.state for view in pipeline.get_runs(root)] == ["queued"]


def test_launch_shows_an_estimate(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"seconds": 130.0, "train_seconds": 60.0, "measure_seconds": 62.0, "memory_mb": 900.0, "disk_mb": 17.0}
    monkeypatch.setattr(pipeline, "estimate", lambda config, root: measured)
    app = open_page(LAUNCH)
    app.button(key="launch.estimate").click().run()
    assert [metric.value for metric in app.metric] == ["3 min", "900 MB", "17 MB"]
    app.text_input(key="ft.lr").set_value("1e-4").run()
    assert not app.metric  # another config has another estimate


def test_launch_shows_why_an_estimate_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: RunConfig, root: Path) -> dict[str, float]:
        raise UserError("the estimate failed: no memory.")

    monkeypatch.setattr(pipeline, "estimate", fail)
    app = open_page(LAUNCH)
    app.button(key="launch.estimate").click().run()
    assert len(app.error) == 1 and not app.button(key="launch.start").disabled


def test_launch_loads_a_config(root: Path) -> None:
    config = configs.make_config("glyphclip", "digits", "fda", seed=7, options={"lr": 0.00012345678, "bias": 2.5, "steps": 30}, held_out=["food", "travel"])
    app = open_page(LAUNCH)
    app.file_uploader(key="launch.file").upload("run.json", configs.config_json(config).encode()).run()
    app.button(key="launch.start").click().run()
    assert [view.config for view in pipeline.get_runs(root)] == [config]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x00\xff", "not a run's config"),
        (b"[]", "not a run's config"),
        (b"[" * 90_000, "not a run's config"),
        (b"{" + b" " * 100_000 + b"}", "at most 100,000"),
        (json.dumps({**asdict(RunConfig("glyphclip", "food", "ft")), "<b>x</b>": 1}).encode(), "unknown key"),
        (json.dumps({"model": "glyphclip", "dataset": "food", "method": "ft", "options": {"lr": "fast"}}).encode(), "lr = 'fast' is not allowed"),
        (json.dumps({"model": "../../etc", "dataset": "food", "method": "ft"}).encode(), ""),
    ],
)
def test_launch_refuses_what_is_no_config(root: Path, content: bytes, told: str) -> None:
    app = open_page(LAUNCH)
    app.file_uploader(key="launch.file").upload("run.json", content).run()
    assert not app.exception and len(app.error) == 1 and told in app.error[0].value.replace("\\", "")
    assert app.pills(key="launch.method").value == "ft" and not app.button(key="launch.start").disabled


# --- Runs -------------------------------------------------------------------------------------------------------------


def test_runs_says_what_to_do_when_empty(root: Path) -> None:
    assert "No runs yet" in open_page(RUNS).info[0].value


def test_runs_shows_table_and_detail(root: Path) -> None:
    add_run(root, "ft", history=12)
    add_run(root, "l2_sp", seed=3)
    app = open_page(RUNS)
    table = app.dataframe[0].value
    assert set(table["method"]) == {"ft", "l2_sp"} and table["ID %"].tolist() == pytest.approx([90.0, 90.0])
    assert table["Delta_ZS"].tolist() == pytest.approx([-10.0, -10.0]) and set(table["state"]) == {"✔ finished"}
    app.multiselect(key="runs.methods").set_value(["ft"]).run()
    assert list(app.dataframe[0].value["method"]) == ["ft"]
    app.multiselect(key="runs.methods").set_value([]).run()
    assert not app.exception and "Delta_ZS" in str([metric.label for metric in app.metric])


def test_runs_opens_the_run_that_the_url_names(root: Path) -> None:
    first = add_run(root, "ft", history=12)
    add_run(root, "zero_shot")
    app = open_page(RUNS, run=first)
    assert app.selectbox(key="run").value == first and len(app.get("plotly_chart")) == 2
    app = open_page(RUNS, run="../../etc/passwd")
    assert app.selectbox(key="run").value != first and not app.error


def test_runs_hides_paths_and_explains_a_failure(root: Path) -> None:
    told = f"the file {root}/runs/x is no model"
    log = f'File "{root}/runs/x/theta", line 1\nFile "/usr/lib/python3/site.py"\n' + "line\n" * 150
    add_run(root, "ft", status={"stage": "failed", "message": told}, log=log + "last line")
    app = open_page(RUNS)
    assert "Failed" in app.error[0].value and str(root) not in text_of(app)
    assert "last line" in app.code[0].value and len(app.code[0].value.splitlines()) == 100
    assert not app.button(key="runs.resume").disabled and app.button(key="runs.cancel").disabled


def test_runs_explains_a_lost_run_resumes_cancels_and_deletes_it(root: Path) -> None:
    run_id = add_run(root, "ft", status={"stage": "training", "step": 4, "steps": 20, "pid": 2**22 + 1, "process_started": 1.0}, history=4)
    app = open_page(RUNS)
    assert "ended without a word" in app.warning[0].value
    app.button(key="runs.resume").click().run()
    assert pipeline.get_run(run_id, root).state == "queued" and not app.button(key="runs.cancel").disabled
    app.button(key="runs.cancel").click().run()
    assert pipeline.get_run(run_id, root).state in pipeline.RESUMABLE
    app.button(key="runs.delete.sure").click().run()
    assert not app.exception and not pipeline.get_runs(root) and list((root / "trash").iterdir())
    assert "No runs yet" in app.info[0].value


# --- words and charts beneath ---------------------------------------------------------------------------------------------


def test_progress_words_wait_for_a_speed(root: Path) -> None:
    record = store.read_run(add_run(root), root=root)
    view = pipeline.RunView(record, "running", "training", 5, 60)
    assert "measuring speed" in ui.progress_words(view, steps(5))
    view = pipeline.RunView(record, "running", "training", 20, 60)
    assert ui.progress_words(view, steps(20)) == "training · step 20 of 60 · about 20 s of training left"
    assert "number 2" in ui.progress_words(pipeline.RunView(record, "queued", place=2))


def test_paths_are_taken_out() -> None:
    root = Path("/home/jo/cache")
    assert ui.without_paths("at /home/jo/cache/runs/x, /usr/lib/a.py and https://a.org/b/c", root) == "at <runs>/runs/x, .../a.py and https://a.org/b/c"


@pytest.mark.parametrize("value", [1e-5, 0.00012345678, 1 / 3, None, 10.0])
def test_shown_values_lose_no_digit(value: float | None) -> None:
    text = ui.shown(value)
    assert (None if text == "none" else float(text)) == value


def test_loss_curves_show_a_regularizer_only_where_there_is_one() -> None:
    assert [trace.name for trace in charts.loss_curves(charts.steps_table(steps(5))).data] == ["task"]
    figure = charts.loss_curves(charts.steps_table(steps(5, reg_loss=0.3)))
    assert [trace.name for trace in figure.data] == ["total", "task", "regularizer"] and len({trace.line.dash for trace in figure.data}) == 3


def test_long_histories_are_thinned_with_both_ends_kept() -> None:
    table = charts.thinned(charts.steps_table(steps(5000)))
    assert len(table) <= charts.MOST_POINTS and (table["step"].iloc[0], table["step"].iloc[-1]) == (1, 5000)
