"""Figures by hand: what they hold, whom they mark, what they leave out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from robustft import alphas, ranking
from robustft.figures import compare, forgetting, maps, neighborhoods, wise
from robustft.figures.tables import csv_text
from robustft.foretelling import correlations
from robustft.types import Dataset, KnnGraph, RunConfig, RunRecord, Score, StepRecord


@pytest.fixture
def data() -> Dataset:
    images = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    return Dataset("food", "color", "test", images, np.array([0, 0, 1, 2]), ("apple", "<b>pie", "tea"), ("a {}.",), "f")


@pytest.fixture
def rows(data: Dataset) -> pd.DataFrame:
    place = np.array([[0, 0], [1, 0], [0, 2], [3, 3]], dtype=np.float32)
    names = [data.class_names[label] for label in data.labels]
    return maps.map_rows(names, np.array([0.0, 0.5, 1.0, 1.0]), place, place * 2, maps.highlighted(names, ["apple"]))


def record(run_id: str, method: str = "ft", seed: int = 0, **changes: float) -> RunRecord:
    """Makes a finished run with a zero-shot change on each held-out task."""
    scores = [Score("food", "color", "id_accuracy", 0.9, 100), Score("food", "color", "delta_zs", 0.3, 100)]
    for task, change in changes.items():
        values = {"zs_accuracy_0": 0.5, "zs_accuracy": 0.5 + change, "delta_zs": change}
        scores += [Score(task, "color", metric, value, 96) for metric, value in values.items()]
    return RunRecord(run_id, RunConfig("m", "food", method, seed), True, tuple(scores))


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


def test_rows_keep_the_order_of_the_samples(rows: pd.DataFrame) -> None:
    assert rows["id"].tolist() == [0, 1, 2, 3]
    assert rows["group"].tolist() == ["apple", "apple", maps.OTHER, maps.OTHER]
    assert rows["percent"].tolist() == ["0 %", "50 %", "100 %", "100 %"]


def test_pair_of_maps_links_two_grids_and_drops_no_point(rows: pd.DataFrame) -> None:
    option = maps.pair_of_maps(rows, ["#000000"])
    assert [title["text"] for title in option["title"]] == ["Before", "After"]
    assert len(option["grid"]) == 2
    assert [(s["xAxisIndex"], s["encode"]["x"], s["progressive"]) for s in option["series"]] == [(0, "x0", 0), (1, "x1", 0)]
    assert option["brush"]["brushLink"] == [0, 1]
    assert option["visualMap"]["categories"] == ["apple", maps.OTHER]
    assert option["xAxis"][0]["min"] == option["xAxis"][1]["min"], "a move is only seen if both maps have one scale"


def test_tooltip_is_a_constant_template(rows: pd.DataFrame) -> None:
    assert "<b>pie" not in maps.pair_of_maps(rows, ["#000000"])["tooltip"]["formatter"]


def test_neighbours_kept_are_always_coloured_from_0_to_1(rows: pd.DataFrame) -> None:
    scale = maps.pair_of_maps(rows, ["#000000"], by_kept=True)["visualMap"]
    assert (scale["dimension"], scale["min"], scale["max"]) == ("kept", 0, 1)


def test_map_without_colours_has_no_key(rows: pd.DataFrame) -> None:
    option = maps.pair_of_maps(rows.assign(group=maps.ALL), ["#000000"])
    assert option["visualMap"]["categories"] == [maps.ALL]
    assert option["visualMap"]["show"] is False


def test_chosen_sample_is_ringed_with_lines_to_its_neighbours(rows: pd.DataFrame) -> None:
    graphs = KnnGraph(np.array([[1, 2]] * 4), np.ones((4, 2), np.float32)), KnnGraph(np.array([[3, 1]] * 4), np.ones((4, 2), np.float32))
    fates = neighborhoods.neighbor_fates(*graphs, 0)
    assert fates[0]["fate"].tolist() == ["kept", "lost"]
    assert fates[1]["fate"].tolist() == ["gained", "kept"]
    solid, dashed, ring = maps.pair_of_maps(rows, ["#000000"], marks=maps.sample_marks(rows, 0, fates))["series"][2:5]
    assert solid["data"] == [[0, 0], [1, 0], ["-", "-"]]
    assert dashed["data"] == [[0, 0], [0, 2], ["-", "-"]]
    assert ring["data"] == [[0, 0]]


def test_marks_leave_out_samples_that_are_not_shown(rows: pd.DataFrame) -> None:
    shown = rows[rows["id"] != 1]
    edges = np.array([[0, 1], [0, 2]]), np.array([[1, 3]])
    assert [line["data"] for line in maps.edge_lines(shown, edges)] == [[[0, 0], [0, 2], ["-", "-"]], []]
    assert [ring["data"] for ring in maps.selection_marks(shown, [1, 2])] == [[[0, 2]], [[0, 4]]]


def test_movement_leads_from_where_a_sample_was_to_where_it_is(rows: pd.DataFrame) -> None:
    line, ends = maps.movement_lines(rows, [3])
    assert line["data"] == [[3, 3], [6, 6], ["-", "-"]] and ends["data"] == [[6, 6]] and line["xAxisIndex"] == 1
    many = pd.concat([rows] * 100).assign(id=np.arange(400))
    assert len(maps.movement_lines(many, range(400))[1]["data"]) == maps.MOST_LINES


def test_groups_keep_a_given_order(rows: pd.DataFrame) -> None:
    option = maps.pair_of_maps(rows.assign(group=["b", "a", "c", "a"]), ["#000000"], order=["c", "b", "x", "a"])
    assert option["visualMap"]["categories"] == ["c", "b", "a"]


def test_newest_click_is_told_from_what_was_selected_before() -> None:
    groups = [{"series_index": 0, "data_indices": [3]}, {"series_index": 1, "data_indices": [1]}]
    assert maps.newly_picked(groups, [3]) == (1, [3, 1])
    assert maps.newly_picked(groups, [3, 1]) == (None, [3, 1])
    assert maps.newly_picked([{"series_index": 4, "data_indices": [0]}], []) == (None, [])


def test_classes_that_kept_fewest_come_first(data: Dataset) -> None:
    table = neighborhoods.class_table(data, np.array([1.0, 0.5, 0.25, 1.0]))
    assert table["class"].tolist() == ["<b>pie", "apple", "tea"]
    assert table["neighbours kept (%)"].tolist() == [25.0, 75.0, 100.0]
    assert neighborhoods.default_highlight(data, np.ones(4)) == ["<b>pie", "apple", "tea"]


def test_picture_has_colours_last(data: Dataset) -> None:
    assert neighborhoods.picture(data, 1).shape == (2, 2, 3)
    assert neighborhoods.picture(data, 0)[0, 0].tolist() == [0, 4, 8]


def test_histogram_counts_every_sample_once() -> None:
    figure = neighborhoods.kept_histogram(np.array([0.0, 0.5, 0.5, 1.0]), 2)
    assert figure.data[0].y.tolist() == [1, 2, 1] and [shape.type for shape in figure.layout.shapes] == ["line"]


def test_histogram_shows_the_noise_floor_as_a_band() -> None:
    (_, band) = neighborhoods.kept_histogram(np.array([0.0, 0.5]), 2, (0.6, 0.8)).layout.shapes
    assert (band.type, band.x0, band.x1) == ("rect", 1.2, 1.6)


def test_classes_say_how_pure_they_are(data: Dataset) -> None:
    kept, purity = np.linspace(0, 1, len(data)), np.ones(len(data))
    table = neighborhoods.class_table(data, kept, {"own class before (%)": 0 * purity, "own class after (%)": purity})
    assert table["own class before (%)"].eq(0).all() and table["own class after (%)"].eq(100).all() and table["samples"].sum() == len(data)


# --- WiSE-FT ----------------------------------------------------------------------------------------------------------

CURVE = [(0.0, 0.3, 0.2, 0.30, 0.0), (0.5, 0.6, 0.4, 0.595, -0.01), (1.0, 0.7, 0.3, 0.60, -0.05)]


@pytest.fixture
def curve() -> pd.DataFrame:
    return alphas.wise_table([dict(zip(alphas.TITLES, row, strict=True)) for row in CURVE])


def test_rule_reads_validation_and_held_out_only(curve: pd.DataFrame) -> None:
    assert alphas.best_alpha(curve) == 0.5
    assert alphas.best_alpha(curve.assign(id_accuracy=0.0, ood_accuracy=0.0)) == 0.5
    assert alphas.best_alpha(curve.assign(mean_delta_zs=0.0)) == 1.0, "of equals, the most accurate"
    assert alphas.best_alpha(curve.assign(val_accuracy=[30.0, 58.9, 60.0])) == 1.0, "more than a point is too much"


def test_curves_mark_the_chosen_alpha(curve: pd.DataFrame) -> None:
    figure = wise.wise_curves(curve, 0.5, ["id_accuracy", "ood_accuracy", "mean_delta_zs"])
    assert [trace.marker.size.index(15) for trace in figure.data] == [1, 1, 1]
    assert figure.data[2].yaxis == "y2"
    assert len(wise.wise_curves(curve, 0.5, ["id_accuracy"]).data) == 1


def test_plane_names_both_ends_and_the_chosen_point(curve: pd.DataFrame) -> None:
    trace = wise.wise_plane(curve, 0.5).data[0]
    assert list(trace.text) == ["α = 0", "<b>α = 0.5</b>", "α = 1"]
    assert trace.marker.symbol[1] == "star"


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_downstream_task_is_not_held_out() -> None:
    changes = forgetting.change_table([record("a", animals=-0.1)], "delta_zs")
    assert changes["task"].tolist() == ["animals"]
    assert changes["change"].iloc[0] == pytest.approx(-10)
    assert forgetting.change_table([record("a", animals=-0.1)], "delta_zs", by_domain=True)["task"].tolist() == ["animals · color"]


def test_noise_of_a_change_by_hand() -> None:
    """Both accuracies near one half of 96 images: 1.96 * sqrt(2 * 0.25 / 100)."""
    noise = forgetting.change_table([record("a", animals=0.0)], "delta_zs")["noise"].iloc[0]
    assert noise == pytest.approx(100 * 1.96 * np.sqrt(2 * 0.25 / 100))


def test_noise_that_was_measured_is_shown() -> None:
    own = record("a", animals=-0.1)
    errors = [
        Score("animals", s.domain, metric, value, s.n) for s in own.scores[:1] for metric, value in (("error_zs", 0.01), ("error_lp", 0.03), ("noise_lp", 0.04))
    ]
    table = forgetting.change_table([replace(own, scores=(*own.scores, *errors))], "delta_zs")
    assert table["noise"].iloc[0] == pytest.approx(1.96)
    assert forgetting.measured_noise({"error_lp": 0.03, "noise_lp": 0.04}, "lp", 9) == pytest.approx(np.hypot(1.96 * 0.03, 0.04))


def test_domains_are_averaged_and_their_noise_shrinks() -> None:
    one = record("a", animals=0.0)
    two = RunRecord("a", one.config, True, (*one.scores, *(Score(s.dataset, "line", s.metric, s.value, s.n) for s in one.scores if s.dataset == "animals")))
    noises = [forgetting.change_table([run], "delta_zs")["noise"].iloc[0] for run in (one, two)]
    assert noises[1] == pytest.approx(noises[0] / np.sqrt(2))


def test_noise_never_vanishes() -> None:
    assert forgetting.noise(1.0, 50) > 0.02


def test_costs_name_the_worst_task() -> None:
    changes = forgetting.change_table([record("a", animals=-0.1, digits=-0.3), record("b", "fda", animals=0.1)], "delta_zs")
    costs = forgetting.cost_table(changes, {"a": "ft", "b": "fda"})
    assert costs["run"].tolist() == ["fda", "ft"]
    assert costs.loc[1, "worst on"] == "digits"
    assert costs.loc[1, "mean (points)"] == pytest.approx(-20)


def test_charts_of_change_say_what_was_not_measured() -> None:
    changes = forgetting.change_table([record("a", animals=-0.1, digits=-0.3), record("b", "fda", animals=0.1)], "delta_zs")
    heat = forgetting.change_heat(changes, {"a": "ft", "b": "fda"}).data[0]
    assert heat.text[1] == ["-30.0", "–"]
    assert (heat.zmin, heat.zmax) == (-forgetting.LIMIT, forgetting.LIMIT)
    bars = forgetting.change_bars(changes, {"a": "ft", "b": "fda"}).data
    assert [bar.name for bar in bars] == ["ft", "fda"]
    assert len({bar.marker.pattern.shape for bar in bars}) == 2, "not by colour alone"


def test_runs_are_named_by_what_tells_them_apart() -> None:
    configs = {"x-1111": RunConfig("m", "food", "ft"), "x-2222": RunConfig("m", "food", "ft", options={"lr": 1}), "y-3333": RunConfig("m", "food", "fda", 1)}
    assert forgetting.run_names(configs) == {"x-1111": "ft #1111", "x-2222": "ft #2222", "y-3333": "fda"}


@pytest.fixture
def pairs() -> pd.DataFrame:
    rows = [("a", "ft", "digits", 15.0, 0.6, np.nan), ("a", "ft", "faces", -2.0, 0.1, 0.3), ("b", "fda", "digits", 1.0, 0.2, 0.2)]
    table = pd.DataFrame(rows, columns=["run", "method", "task", "forgetting", "l2", "otdd"])
    return table.assign(downstream="food", seed=0)


def test_scatter_holds_every_pair_once_in_a_look_of_its_method(pairs: pd.DataFrame) -> None:
    figure = forgetting.drift_scatter(pairs, "l2", {"a": "ft s0"})
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in figure.data] == [("ft", [0.6, 0.1], [15.0, -2.0]), ("fda", [0.2], [1.0])]
    assert len({trace.marker.symbol for trace in figure.data}) == 2, "not by colour alone"
    assert [trace.customdata.tolist() for trace in figure.data] == [[0, 1], [2]], "a click is told by the row of its pair"
    assert figure.data[0].text[0] == "ft s0, fine-tuned on food<br>on digits"
    assert figure.data[1].text[0].startswith("b,"), "a run without a name goes by its id"
    assert figure.layout.xaxis.title.text == "distance: L2"
    assert figure.layout.shapes[0].y0 == 0 and figure.layout.yaxis.rangemode == "tozero", "the line of no forgetting is always in sight"
    assert [list(trace.x) for trace in forgetting.drift_scatter(pairs, "otdd", {}).data] == [[0.3], [0.2]], "what was not measured is no mark"


def test_correlations_are_written_with_their_intervals(pairs: pd.DataFrame) -> None:
    table = forgetting.correlation_words(correlations(pairs))
    assert table.columns.tolist() == ["distance", "Pearson", "Spearman", "pairs", "runs", "tasks"], "one downstream task has no within"
    assert table["Spearman"].tolist() == ["1.00", "-1.00"], "two held-out tasks have no interval"
    assert table[["distance", "pairs", "tasks"]].to_numpy().tolist() == [["L2", 3, 2], ["OTDD", 2, 2]]
    assert forgetting.correlation_words(correlations(pairs.assign(l2=0.5)))["Pearson"].iloc[0] == "–"
    wide = pd.concat([pairs.assign(downstream=name, task=pairs["task"] + name) for name in ("food", "people")])
    written = forgetting.correlation_words(correlations(wide))
    assert "Pearson within" in written and written["Pearson"].str.match(r"^-?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]$").iloc[0]


def test_pairs_are_shown_with_the_names_of_their_runs(pairs: pd.DataFrame) -> None:
    table = forgetting.pair_table(pairs, {"a": "ft s0", "b": "fda"})
    assert table.columns.tolist() == ["run", "held-out task", "forgetting (points)", "L2", "OTDD", "fine-tuned on"]
    assert table["run"].tolist() == ["ft s0", "ft s0", "fda"]


# --- compare ----------------------------------------------------------------------------------------------------------


def test_only_seeds_are_averaged() -> None:
    configs = {"a": RunConfig("m", "food", "ft", 0), "b": RunConfig("m", "food", "ft", 1), "c": RunConfig("m", "food", "ft", 0, options={"lr": 1})}
    table = pd.DataFrame({"method": "ft", "task": "food", "seed": [0, 1, 0], "ID": [80.0, 90.0, 50.0], "run": ["a", "b", "c"]})
    means = ranking.over_seeds(table, configs, {"a": "ft s0", "b": "ft s1", "c": "ft s0 #c"})
    assert means[["method", "seeds", "ID"]].to_numpy().tolist() == [["ft", 2, 85.0], ["ft s0 #c", 1, 50.0]]
    assert means["± ID"].iloc[0] == pytest.approx(12.706 * 5, rel=1e-3)  # Student's t of 1 degree of freedom times the error of the mean
    assert "± ID" not in ranking.over_seeds(table[:1], configs, {"a": "ft s0"})


def test_a_run_that_trains_nothing_makes_no_setting_differ() -> None:
    runs = {
        "a": RunConfig("m", "food", "zero_shot"),
        **{key: RunConfig("m", "food", "ft", options={"lr": lr, "steps": 9}) for key, lr in (("b", 0.1), ("c", 0.2))},
    }
    table = compare.differing_options(runs, {key: key for key in runs})
    assert table["setting"].tolist() == ["method", "lr"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_cell_is_never_a_formula(start: str) -> None:
    text = csv_text(pd.DataFrame({"method": [f"{start}cmd"], "Delta": [-1.0]}))
    assert f"'{start}cmd" in text
    assert text.rstrip("\n").endswith(",-1.0")


def test_pareto_front_ignores_what_is_missing_and_keeps_equals() -> None:
    assert compare.pareto_front([1, 2, float("nan")], [2, 1, 9]) == [0, 1]
    assert compare.pareto_front([1, 1], [1, 1]) == [0, 1]
    assert compare.pareto_front([], []) == []


def test_trade_off_names_points_and_marks_the_front() -> None:
    table = pd.DataFrame({"method": ["ft", "fda", "bad"], "ID": [90.0, 80.0, 70.0], "OOD": [50.0, 60.0, 40.0]})
    points = compare.trade_off(table, "ID", "OOD", ("ID (%)", "OOD (%)")).data[1]
    assert dict(zip(points.text, points.marker.symbol, strict=True)) == {"bad": "circle-open", "fda": "diamond", "ft": "diamond"}


def test_loss_curves_differ_in_more_than_colour() -> None:
    steps = [StepRecord(1, 2.0, 1.5, 0.5, 1e-3, 1.0, 0.1)]
    figure = compare.loss_curves({"ft": steps, "fda": steps}, "reg_loss")
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash"]
    assert list(figure.data[0].y) == [0.5]
