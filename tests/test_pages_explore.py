"""The pages that explore runs: on an empty cache, on a filled one, on a damaged one, and under every control."""

import json
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from robustft import store, take_home
from robustft.feature_cache import write_features
from robustft.files import write_arrays, write_json
from robustft.map_requests import path_of
from robustft.maps import MapPair, arrays_of
from robustft.selected import pack
from robustft.sources import features_key, get_dataset
from robustft.types import RunConfig, Score, StepRecord

ROOT = Path(__file__).parent.parent
NAMES = ("3_Neighborhoods", "4_WiSE-FT", "5_Forgetting", "6_Compare")
HELD_OUT = ("animals", "digits")


def open_page(name: str) -> AppTest:
    return AppTest.from_file(str(ROOT / "pages" / f"{name}.py"), default_timeout=60)


def choose_run(at: AppTest, run_id: str) -> AppTest:
    """Opens a page and chooses a run, which the list names by the end of its id."""
    box = at.run().selectbox(key="run")
    return box.select_index(next(i for i, label in enumerate(box.options) if label.endswith(run_id[-8:]))).run()


def words(at: AppTest) -> str:
    """Returns all that a page says in prose."""
    return "\n".join(element.value for kind in (at.markdown, at.caption, at.info, at.warning, at.error) for element in kind)


def faults(at: AppTest) -> list[str]:
    """Returns what a page shows of things gone wrong."""
    return [element.value for element in (*at.exception, *at.error)] + [text for text in words(at).splitlines() if "Traceback" in text]


def finish(root: Path, method: str, *, seed: int = 0, change: float = -0.1, options: dict | None = None) -> str:
    """Stores a finished run with made-up scores, history and WiSE-FT curve."""
    config = RunConfig("glyphclip", "food", method, seed, options=options or {"lr": 1e-3, "steps": 2}, held_out=HELD_OUT)
    scores = [
        Score("food", "color", "id_accuracy", 0.9, 384),
        Score("food", "line", "ood_accuracy", 0.6 + seed / 100, 384),
        Score("food", "color", "lp_id_accuracy", 0.8, 384),
        Score("food", "color", "val_accuracy", 0.9, 240),
        Score("food", "color", "drift_l2", 0.1, 384),
    ]
    for task, domain, n in (("animals", "color", 384), ("animals", "line", 384), ("digits", "mnist", 200)):
        for kind in ("zs", "lp"):
            made = {f"{kind}_accuracy_0": 0.6, f"{kind}_accuracy": 0.6 + change, f"delta_{kind}": change}
            scores += [Score(task, domain, metric, value, n) for metric, value in made.items()]
        scores += [Score(task, domain, "drift_l2", 0.2, n), Score(task, domain, "drift_neighbors_lost", 0.4, n)]
    run_id = store.begin_run(config, root)
    store.append_history(run_id, [StepRecord(step, 2.0 / step, 1.5 / step, 0.5 / step, 1e-3, 1.0, 0.1) for step in (1, 2)], root)
    points = [(0.0, 0.3, 0.2, 0.3, 0.0), (0.5, 0.85, 0.65, 0.895, change / 10), (1.0, 0.9, 0.6, 0.9, change)]
    keys = ("alpha", "id_accuracy", "ood_accuracy", "val_accuracy", "mean_delta_zs")
    write_json(store.run_folder(run_id, root) / "wise.json", [dict(zip(keys, point, strict=True)) for point in points])
    return store.finish_run(config, scores, root=root).run_id


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROBUSTFT_CACHE", str(tmp_path))
    monkeypatch.setenv("ROBUSTFT_MAP_WORKER", "off")
    st.cache_resource.clear()
    st.cache_data.clear()  # made-up runs have the same names in every test
    return tmp_path


@pytest.fixture
def finished(root: Path) -> list[str]:
    return [finish(root, "ft"), finish(root, "fda", change=-0.02, options={"lr": 1e-3, "steps": 2, "bias": None}), finish(root, "zero_shot", change=0.0)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the pictures, drawn once."""
    base = tmp_path_factory.mktemp("drawn")
    get_dataset("food", "color", "test", base)
    return base


def add_features(root: Path, drawn: Path, run_id: str, shift: float = 0.5) -> int:
    """Stores small random features of food before and after; returns how many samples there are."""
    (root / "datasets").mkdir(exist_ok=True)
    for path in (drawn / "datasets").iterdir():
        (root / "datasets" / path.name).write_bytes(path.read_bytes())
    data = get_dataset("food", "color", "test", root)
    rng = np.random.default_rng(0)
    before = rng.normal(size=(len(data), 8)).astype(np.float32)
    after = before + shift * rng.normal(size=before.shape).astype(np.float32)
    for key, values in (("before", before), ("after", after)):
        write_features(features_key(f"{run_id}-{key}", data), values, root)
    write_json(store.run_folder(run_id, root) / "encoders.json", {key: f"{run_id}-{key}" for key in ("before", "after")})
    return len(data)


# --- every page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_empty_cache_says_what_to_do(name: str, root: Path) -> None:
    at = open_page(name).run()
    assert not faults(at)
    assert "Run the demo study" in words(at)


@pytest.mark.parametrize("name", NAMES[1:])
def test_filled_cache_opens(name: str, finished: list[str]) -> None:
    at = open_page(name).run()
    assert not faults(at)
    assert at.get("plotly_chart")
    assert any("How to read it" in caption.value for caption in at.caption)
    assert any(expander.label == "Show as table" for expander in at.expander)


@pytest.mark.parametrize("name", NAMES)
def test_unfinished_run_is_not_shown(name: str, root: Path) -> None:
    store.begin_run(RunConfig("glyphclip", "food", "ft"), root)
    at = open_page(name).run()
    assert not faults(at)
    assert "Run the demo study" in words(at)


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


def highlight(at: AppTest):
    return next(box for box in at.multiselect if box.label == "Highlight classes")


def test_neighborhoods_show_maps_sample_and_classes(root: Path, drawn: Path, finished: list[str]) -> None:
    add_features(root, drawn, finished[0])
    at = choose_run(open_page(NAMES[0]), finished[0])
    assert not faults(at)
    assert len(at.get("echarts_chart")) == 1
    assert "Distances between clusters mean nothing" in words(at)
    assert "No sample chosen" in words(at)
    assert len(highlight(at).value) == 8

    at.number_input(key="sample").set_value(5).run()
    assert not faults(at)
    said = words(at)
    assert "sample 5" in said
    assert "kept" in said and "lost" in said and "gained" in said
    assert len(at.get("image")) == 1 + 2 * 10 + 12, "the sample, its neighbours, the gallery"

    for colour in ("neighbours kept", "nothing", "class"):
        at.segmented_control(key="colour").set_value(colour).run()
        assert not faults(at)
    highlight(at).set_value([]).run()
    assert not faults(at)
    at.slider(key="k").set_value(25).run()
    assert not faults(at)
    assert "the nearest 10 of 25" in words(at)


def test_a_link_brings_back_sample_selection_and_lines(root: Path, drawn: Path, finished: list[str]) -> None:
    n = add_features(root, drawn, finished[0])
    at = open_page(NAMES[0])
    link = {"run": finished[0], "k": "20", "sample": "7", "lines": "movement", "colour": "neighbours kept", "selected": pack([3, 7, 200], n)}
    for key, value in link.items():
        at.query_params[key] = value
    at.run()
    assert not faults(at)
    assert at.slider(key="k").value == 20 and at.number_input(key="sample").value == 7
    assert "3 samples kept" in words(at) and "sample 7" in words(at)
    option = json.loads(at.get("echarts_chart")[0].proto.spec)
    assert sum(series.get("symbolSize") == 11 for series in option["series"]) == 2, "rings in both maps"
    assert any(series.get("lineStyle", {}).get("type") == "dotted" for series in option["series"]), "movement"
    at.segmented_control(key="lines").set_value("neighbours").run()
    assert not faults(at)
    at.button(key="selected.clear").click().run()
    assert not faults(at) and "3 samples kept" not in words(at) and "selected" not in at.query_params


def test_a_neighbour_is_followed_and_the_gallery_leads_to_its_sample(root: Path, drawn: Path, finished: list[str]) -> None:
    add_features(root, drawn, finished[0])
    at = choose_run(open_page(NAMES[0]), finished[0])
    at.number_input(key="sample").set_value(5).run()
    follow = next(button for button in at.button if (button.key or "").startswith("follow.After"))
    follow.click().run()
    assert not faults(at) and at.number_input(key="sample").value == int(follow.key.split(".")[-1])
    changed = next(button for button in at.button if (button.key or "").startswith("changed."))
    changed.click().run()
    assert at.number_input(key="sample").value == int(changed.key.split(".")[-1])


def test_classes_say_where_their_neighbours_went(root: Path, drawn: Path, finished: list[str]) -> None:
    add_features(root, drawn, finished[0])
    at = choose_run(open_page(NAMES[0]), finished[0])
    assert "moved most: it kept" in words(at)
    classes = next(frame.value for frame in at.dataframe if "nearer to" in frame.value)
    assert classes["samples"].sum() == 384 and (classes["nearer by (points)"] >= 0).all()


def test_answers_are_shown_and_coloured(root: Path, drawn: Path, finished: list[str]) -> None:
    n = add_features(root, drawn, finished[0])
    data = get_dataset("food", "color", "test", root)
    labels = np.asarray(data.labels).astype(np.int32)
    sure = np.full(n, 0.75, np.float32)
    arrays = {"before": labels, "after": np.where(np.arange(n) == 5, (labels + 1) % 48, labels).astype(np.int32)}
    write_arrays(store.run_folder(finished[0], root) / "answers" / "food-color.safetensors", arrays | {"confidence_before": sure, "confidence_after": sure})
    at = choose_run(open_page(NAMES[0]), finished[0])
    at.number_input(key="sample").set_value(5).run()
    assert not faults(at) and "75 % sure, :material/check: right" in words(at) and "75 % sure, :material/close: wrong" in words(at)
    at.segmented_control(key="colour").set_value("correctness").run()
    option = json.loads(at.get("echarts_chart")[0].proto.spec)
    assert option["visualMap"]["categories"] == ["right, still right", "became wrong"]
    at.segmented_control(key="gallery").set_value("became wrong").run()
    assert not faults(at) and "1 of 1 samples that were right before and are wrong now" in words(at)


def test_class_filter_keeps_ids_and_says_how_many_are_shown(root: Path, drawn: Path, finished: list[str]) -> None:
    add_features(root, drawn, finished[0])
    at = choose_run(open_page(NAMES[0]), finished[0])
    only = next(box for box in at.multiselect if box.label == "Show only classes")
    only.set_value([only.options[3]]).run()
    assert not faults(at) and "of 8 of 384 test samples" in words(at)


def test_neighborhoods_tell_of_a_run_that_moves_nothing(root: Path, drawn: Path, finished: list[str]) -> None:
    add_features(root, drawn, finished[2], shift=0.0)
    at = choose_run(open_page(NAMES[0]), finished[2])
    assert not faults(at)
    assert "every neighbour is kept" in words(at)


def test_neighborhoods_without_features_say_so(root: Path, finished: list[str]) -> None:
    at = open_page(NAMES[0]).run()
    assert not at.exception
    assert "no features yet" in at.error[0].value
    assert str(root) not in at.error[0].value


def test_neighborhoods_survive_a_url_with_nonsense(root: Path, drawn: Path, finished: list[str]) -> None:
    add_features(root, drawn, finished[0])
    at = open_page(NAMES[0])
    for key, value in {"run": "no run", "task": "nope", "domain": "<b>", "k": "7777", "sample": "999999"}.items():
        at.query_params[key] = value
    choose_run(at, finished[0])
    assert not faults(at)
    assert "No sample chosen" in words(at)


def test_umap_is_asked_for_once_and_appears_by_itself(root: Path, drawn: Path, finished: list[str]) -> None:
    n = add_features(root, drawn, finished[0])
    at = choose_run(open_page(NAMES[0]), finished[0]).run()
    assert not faults(at)
    (asked,) = (root / "maps" / "requests").iterdir()
    assert [json.loads(asked.read_text())[key] for key in ("run_id", "dataset", "domain")] == [finished[0], "food", "color"]
    assert "The UMAP is drawn in the background" in words(at) and "is not running yet" in words(at)
    assert "2-D picture (PCA)" in words(at) and not [button for button in at.button if button.label == "Draw again"]

    places = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    pair = MapPair("UMAP", places, places, (0.61, 0.52), (0.931, 0.897), {})
    write_arrays(store.run_folder(finished[0], root) / "maps" / "food-color-umap.safetensors", *arrays_of(pair))
    asked.unlink()
    at.run()
    assert not faults(at) and "drawn in the background" not in words(at)
    assert "2-D picture (UMAP)" in words(at)
    assert "keeps 61 % / 52 % of each sample's true 10 neighbours; trustworthiness 0.931 / 0.897 (1 is perfect)" in words(at)
    assert not list((root / "maps" / "requests").iterdir())


def test_umap_that_failed_says_why_and_can_be_drawn_again(root: Path, drawn: Path, finished: list[str]) -> None:
    add_features(root, drawn, finished[0])
    request = path_of(root, finished[0], "food", "color")
    write_json(request.with_suffix(".failed.json"), {"message": f"16 samples <b> in {root}/x are too few."})
    at = choose_run(open_page(NAMES[0]), finished[0])
    said = words(at).replace("\\", "")
    assert not at.exception and "16 samples <b> in" in said and str(root) not in said
    assert not request.exists(), "a failure is not tried again by itself"
    at.button(key="neighborhoods.umap").click().run()
    assert request.exists() and "drawn in the background" in words(at)


# --- WiSE-FT ----------------------------------------------------------------------------------------------------------


def test_wise_starts_at_the_rule_and_follows_the_slider(root: Path) -> None:
    finish(root, "ft")
    at = open_page(NAMES[1]).run()
    assert at.select_slider(key="alpha").value == 0.5
    assert [metric.value for metric in at.metric] == ["85.0 %", "65.0 %", "-1.0 points"]
    assert at.metric[0].delta == "-5.0 points against alpha 1"
    assert not at.code and "weights of this run are not here" in words(at)
    at.select_slider(key="alpha").set_value(1.0).run()
    assert at.metric[0].value == "90.0 %"
    at.button(key="wise.best").click().run()
    assert at.select_slider(key="alpha").value == 0.5
    assert at.query_params["alpha"] == "0.5"
    assert "with its zero-shot head" in words(at)


def test_wise_tells_what_the_start_of_lp_ft_is(root: Path) -> None:
    finish(root, "lp_ft", options={"head_start": "linear_probe"})
    assert "a linear probe as its head" in words(open_page(NAMES[1]).run())


def test_wise_without_a_curve_says_so(root: Path) -> None:
    (store.run_folder(finish(root, "ft"), root) / "wise.json").write_text("torn {")
    at = open_page(NAMES[1]).run()
    assert not faults(at)
    assert "no WiSE-FT curve" in words(at)


def add_changes(run_id: str, root: Path) -> None:
    """Adds to a made-up curve what each held-out task changed."""
    path = store.run_folder(run_id, root) / "wise.json"
    rows = json.loads(path.read_text())
    write_json(path, [row | {"changes": {"animals": row["mean_delta_zs"] / 2, "digits": row["mean_delta_zs"] * 1.5}} for row in rows])


def plots(at: AppTest) -> list[dict]:
    return [json.loads(element.proto.spec) for element in at.get("plotly_chart")]


def test_wise_bars_move_with_alpha_on_a_fixed_axis(root: Path) -> None:
    add_changes(finish(root, "ft"), root)
    at = open_page(NAMES[1]).run()
    seen = []
    for alpha in (0.0, 0.5, 1.0):
        at.select_slider(key="alpha").set_value(alpha).run()
        assert not faults(at)
        assert [plot["layout"]["meta"] for plot in plots(at)] == [alpha] * 3, "all three charts follow"
        seen.append(plots(at)[2])
    assert len({str(plot["data"][0]["x"]) for plot in seen}) == 3
    assert len({str(plot["layout"]["xaxis"]["range"]) for plot in seen}) == 1
    assert "Noise of one bar, one seed" in words(at)


def test_wise_of_an_older_run_has_no_bars_and_says_so(root: Path) -> None:
    finish(root, "ft")
    at = open_page(NAMES[1]).run()
    assert len(at.get("plotly_chart")) == 2
    assert "did not keep the change of single tasks" in words(at)


def test_wise_lays_other_runs_over_and_keeps_them_in_the_address(root: Path, finished: list[str]) -> None:
    at = open_page(NAMES[1])
    for key, value in {"run": finished[0], "with": f"{finished[1]},no-such-run", "alpha": "0.6"}.items():
        at.query_params[key] = value
    choose_run(at, finished[0])
    assert not faults(at)
    assert at.select_slider(key="alpha").value == 0.5, "the nearest that was measured"
    assert at.multiselect(key="wise.with").value == [finished[1]] and at.query_params["with"] == finished[1]
    assert [trace["name"] for trace in plots(at)[1]["data"]] == ["ft", "fda"]
    best = next(frame.value for frame in at.dataframe if "best alpha" in frame.value)
    assert best[["run", "best alpha"]].to_numpy().tolist() == [["ft", 0.5], ["fda", 0.5]]
    at.multiselect(key="wise.with").set_value([]).run()
    assert not faults(at) and "with" not in at.query_params
    assert not any("best alpha" in frame.value for frame in at.dataframe)


def test_wise_survives_an_address_with_nonsense(root: Path, finished: list[str]) -> None:
    for alpha in ("nan", "<b>", "7", "-1", ""):
        at = open_page(NAMES[1])
        at.query_params["alpha"], at.query_params["with"] = alpha, "../../etc,<b>"
        choose_run(at, finished[0])
        assert not faults(at)
        assert at.select_slider(key="alpha").value in (0.0, 0.5, 1.0)


def test_wise_makes_a_zip_and_hands_it_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = finish(root, "ft")
    (store.run_folder(run_id, root) / "theta_1.safetensors").write_bytes(b"weights")

    def write(run_id: str, alpha: float, out: Path, root: Path) -> None:
        out.mkdir()
        (out / "open_clip_model.safetensors").write_bytes(b"x" * 1000)

    monkeypatch.setattr(take_home, "_write_model", write)
    at = open_page(NAMES[1]).run()
    assert "--alpha 0.5" in at.code[0].value and run_id in at.code[0].value
    at.button(key="wise.prepare").click().run()
    assert not faults(at)
    assert (root / "exports" / f"{run_id}-alpha-0.5.zip").is_file()
    assert any("Download alpha 0.5" in button.proto.label for button in at.get("download_button"))
    at.select_slider(key="alpha").set_value(1.0).run()
    assert at.button(key="wise.prepare").label == "Prepare alpha 1", "another alpha is another model"
    at.session_state["present"] = True
    at.run()
    assert not at.code and not faults(at)


def test_wise_says_why_a_model_could_not_be_written(root: Path) -> None:
    run_id = finish(root, "ft")
    (store.run_folder(run_id, root) / "theta_1.safetensors").write_bytes(b"no weights")
    at = open_page(NAMES[1]).run()
    at.button(key="wise.prepare").click().run()
    assert not at.exception and "could not be written" in at.error[0].value and str(root) not in at.error[0].value


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_forgetting_follows_its_controls(finished: list[str]) -> None:
    at = open_page(NAMES[2]).run()
    assert "noise of the measurement, one seed" in words(at)
    assert "no ranking" in words(at)
    at.segmented_control(key="forgetting.metric").set_value("delta_lp").run()
    at.toggle(key="forgetting.by_domain").set_value(True).run()
    assert not faults(at)
    assert at.dataframe[1].value["tasks and domains"].tolist() == [3, 3, 3]
    at.multiselect[0].set_value([]).run()
    assert not faults(at)
    assert "No run chosen" in words(at)


def finish_moved(root: Path, method: str = "ft", *, seed: int = 0, downstream: str = "food", measures: tuple[str, ...] = ("l2", "neighbors_lost")) -> str:
    """Stores a finished run that moved each of four held-out tasks by another distance, and forgot them the more the further."""
    config = RunConfig("glyphclip", downstream, method, seed, options={"lr": 1e-3, "steps": 2}, held_out=("faces", "digits", "scripts", "travel"))
    rng, scores = np.random.default_rng([seed, len(method), len(downstream)]), []
    for task in config.held_out:
        moved = 0.0 if method == "zero_shot" else rng.uniform(0.1, 0.9)
        made = {f"delta_{kind}": -0.3 * moved for kind in ("zs", "lp")} | {f"drift_{name}": moved * rng.uniform(0.8, 1.2) for name in measures}
        scores += [Score(task, "color", metric, value, 200) for metric, value in made.items()]
    store.begin_run(config, root)
    return store.finish_run(config, scores, root=root).run_id


def test_forgetting_stands_against_every_distance_that_was_measured(root: Path) -> None:
    for method in ("ft", "fda", "ldifs", "zero_shot"):
        for downstream in ("food", "animals"):
            finish_moved(root, method, downstream=downstream, measures=("l2", "cka", "otdd"))
    at = open_page(NAMES[2]).run()
    assert not faults(at)
    said = words(at).replace("\\", "")
    assert "left out: 2 of 8" in said and "from 24 pairs of 6 runs and 4 held-out tasks" in said
    assert at.segmented_control(key="forgetting.measure").value == "otdd"
    table = next(frame.value for frame in at.dataframe if "distance" in frame.value)
    assert table["distance"].tolist() == ["L2", "1 - CKA", "OTDD"] and table["pairs"].tolist() == [24] * 3
    assert "Spearman within" in table and ", " in table["Spearman within"].iloc[0]
    for measure in ("cka", "l2"):
        at.segmented_control(key="forgetting.measure").set_value(measure).run()
        assert not faults(at)
    assert "Mean distance between an image's two unit features" in words(at)
    at.segmented_control(key="forgetting.metric").set_value("delta_lp").run()
    assert not faults(at) and "Proxy-FDA's claim" not in words(at)


def test_forgetting_without_otdd_says_so(root: Path) -> None:
    finish_moved(root)
    at = open_page(NAMES[2]).run()
    assert not faults(at)
    assert "These runs did not measure OTDD" in words(at)
    assert "Spearman within" not in next(frame.value for frame in at.dataframe if "distance" in frame.value), "one downstream task"
    at.segmented_control(key="forgetting.measure").set_value("neighbors_lost").run()
    finish_moved(root, seed=1, measures=("l2", "otdd"))
    assert not faults(at.run())
    assert "from 4 pairs of 1 run and 4 held-out tasks" in words(at).replace("\\", "")


def test_forgetting_has_no_scatter_where_nothing_moved(root: Path) -> None:
    finish_moved(root, "zero_shot")
    at = open_page(NAMES[2]).run()
    assert not faults(at)
    assert "Runs that moved nothing are left out: 1 of 1" in words(at)
    assert all("distance" not in frame.value for frame in at.dataframe)


def test_forgetting_is_brought_back_by_its_address(root: Path) -> None:
    runs = [finish_moved(root, method, downstream=task, measures=("l2", "otdd", "cka")) for task in ("food", "animals") for method in ("ft", "fda")]
    at = open_page(NAMES[2])
    asked = {"runs": runs[0], "metric": "delta_lp", "measure": "cka", "apart": "1", "method": "fda"}
    for key, value in asked.items():
        at.query_params[key] = value
    at.run()
    assert not faults(at)
    assert at.selectbox(key="forgetting.task").value == "food", "a link that names runs means their task"
    assert at.multiselect(key="forgetting.runs.food").value == [runs[0]]
    assert [at.segmented_control(key=f"forgetting.{name}").value for name in ("metric", "measure")] == ["delta_lp", "cka"]
    assert at.toggle(key="forgetting.by_domain").value and at.selectbox(key="forgetting.method").value == "fda"
    assert {key: at.query_params[key] for key in asked} == asked
    at.segmented_control(key="forgetting.measure").set_value("otdd").run()
    at.toggle(key="forgetting.by_domain").set_value(False).run()
    assert "measure" not in at.query_params and "apart" not in at.query_params, "what is usual needs no words"
    for key in asked:
        at.query_params[key] = "<b>,../.."
    assert not faults(at.run())


def test_forgetting_survives_an_address_with_nonsense(finished: list[str]) -> None:
    at = open_page(NAMES[2])
    for key in ("runs", "metric", "measure", "apart", "method", "task"):
        at.query_params[key] = "<b>,../.."
    at.run()
    assert not faults(at)
    assert at.segmented_control(key="forgetting.metric").value == "delta_zs" and len(at.multiselect[0].value) == 3


def test_forgetting_by_downstream_task_is_a_mean_over_runs(root: Path, finished: list[str]) -> None:
    titles = {head.value for head in open_page(NAMES[2]).run().subheader}
    assert "Fine-tuned on against held-out task" not in titles, "one downstream task is the heat map above"
    finish_moved(root, "ft", downstream="animals")
    at = open_page(NAMES[2]).run()
    assert not faults(at) and "Fine-tuned on against held-out task" in {head.value for head in at.subheader}
    at.selectbox(key="forgetting.method").set_value("ft").run()
    table = next(frame.value for frame in at.dataframe if "mean change (points)" in frame.value)
    assert table.loc[table["fine-tuned on"] == "food", "mean change (points)"].tolist() == pytest.approx([-10.0, -10.0])
    assert "means over 1 run each" in words(at)


def test_forgetting_mark_leads_to_its_neighbourhoods(root: Path) -> None:
    run_id = finish_moved(root)
    at = open_page(NAMES[2]).run()
    at.session_state["forgetting.goal"] = {"run": run_id, "task": "digits"}
    at.run()
    assert not faults(at) and f"Neighborhoods of {run_id} on digits" in words(at).replace("\\", "")
    assert "forgetting.goal" not in at.session_state, "once"
    marks = [trace for trace in plots(at)[-1]["data"] if trace.get("customdata")]
    assert len(marks) == 1 and plots(at)[-1]["data"][-1]["name"] == "least-squares line, 95 % band"


def test_forgetting_warns_of_otdd_from_two_solvers(root: Path) -> None:
    for seed, solver in enumerate(("exact", "sinkhorn")):
        run_id = finish_moved(root, seed=seed, measures=("l2", "otdd"))
        write_json(store.run_folder(run_id, root) / "analysis.json", {"otdd": {"digits mnist": {"solver": solver, "n_0": 384}}})
    at = open_page(NAMES[2]).run()
    assert not faults(at)
    assert "1 exact and 1 by Sinkhorn" in at.warning[0].value


# --- compare ----------------------------------------------------------------------------------------------------------


def test_compare_shows_methods_in_percent_and_differing_options(finished: list[str]) -> None:
    at = open_page(NAMES[3]).run()
    table = at.dataframe[0].value
    assert table["method"].tolist() == ["zero_shot", "ft", "fda"]
    assert table["ID"].tolist() == pytest.approx([90.0] * 3)
    assert table["mean Delta_ZS"].tolist() == pytest.approx([0.0, -10.0, -2.0])
    assert "1 seed: no ranking" in words(at)
    settings = at.dataframe[-1].value
    assert settings["setting"].tolist() == ["method", "bias"]
    at.multiselect[0].set_value([]).run()
    assert not faults(at)
    assert "No run chosen" in words(at)


def test_compare_averages_seeds(root: Path) -> None:
    for seed in (0, 1):
        finish(root, "ft", seed=seed)
    at = open_page(NAMES[3]).run()
    assert not faults(at)
    table = at.dataframe[0].value
    assert table[["method", "seeds"]].to_numpy().tolist() == [["ft", 2]]
    assert table["OOD"].iloc[0] == pytest.approx(60.5)
    assert "no ranking" not in words(at)
