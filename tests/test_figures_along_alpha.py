"""Charts that move with alpha, and the line through forgetting against distance: what stays, what moves, what is no mark."""

import numpy as np
import pandas as pd
import pytest

from robustft import alphas
from robustft.figures import forgetting, wise
from robustft.figures.foretelling import LINE_NAME, drift_scatter
from robustft.trend import trend
from robustft.types import RunConfig

ROWS = [(0.0, 0.3, 0.2, 0.30, 0.0, 0.0, 0.0), (0.5, 0.6, 0.4, 0.595, -0.01, 0.01, -0.03), (1.0, 0.7, 0.3, 0.60, -0.05, -0.02, -0.2)]
MEASURES = ["id_accuracy", "ood_accuracy", "mean_delta_zs"]
PALETTE = [f"#00000{digit}" for digit in range(6)]


@pytest.fixture
def points() -> list[dict]:
    return [dict(zip(alphas.TITLES, row[:5], strict=True)) | {"changes": {"animals": row[5], "digits": row[6]}} for row in ROWS]


def test_bars_move_and_their_axis_does_not(points: list[dict]) -> None:
    changes = alphas.task_changes(points)
    figures = [wise.change_bars(changes, alpha) for alpha in changes.index]
    assert [list(figure.data[0].x) for figure in figures] == [[0.0, 0.0], [-3.0, 1.0], [-20.0, -2.0]]
    assert {tuple(figure.data[0].y) for figure in figures} == {("digits", "animals")}, "the order stays, the most forgotten first"
    assert len({tuple(figure.layout.xaxis.range) for figure in figures}) == 1
    low, high = figures[0].layout.xaxis.range
    assert low < -20 and high > 1
    assert {tuple(figure.data[1].x) for figure in figures} == {(-20.0, -2.0)}, "where the fine-tuned model ends"
    assert [figure.layout.meta for figure in figures] == [0.0, 0.5, 1.0]


def test_changes_of_older_runs_are_no_tasks(points: list[dict]) -> None:
    for older in ([{**point, "changes": {}} for point in points], [{key: point[key] for key in alphas.TITLES} for point in points], []):
        assert alphas.task_changes(older).empty


def test_other_runs_are_thin_broken_and_named_once(points: list[dict]) -> None:
    table = alphas.wise_table(points)
    others = {"fda s1": table.assign(id_accuracy=table["id_accuracy"] + 1), "ldifs": table}
    figure = wise.wise_curves(table, 0.5, MEASURES, others, PALETTE)
    own, thin = figure.data[:3], figure.data[3:]
    assert [trace.line.dash for trace in own] == [None] * 3 and len({trace.marker.symbol for trace in own}) == 3
    assert [trace.name for trace in thin if trace.showlegend] == ["fda s1", "ldifs"] and len(thin) == 6
    assert {trace.name: {t.line.dash for t in thin if t.name == trace.name} for trace in thin} == {"fda s1": {"dash"}, "ldifs": {"dot"}}
    assert all(trace.line.width < own[0].line.width and trace.marker.symbol.endswith("-open") for trace in thin)
    assert {trace.line.color for trace in thin}.isdisjoint(trace.line.color for trace in own)
    assert [trace.yaxis for trace in thin] == ["y", "y", "y2"] * 2


def test_paths_of_other_runs_are_marked_at_their_nearest_alpha(points: list[dict]) -> None:
    table = alphas.wise_table(points)
    sparse = table.drop(index=1).assign(ood_accuracy=[10.0, 95.0])
    figure = wise.wise_plane(table, 0.5, {"fda": sparse}, PALETTE, "ft")
    assert [trace.name for trace in figure.data] == ["ft", "fda"] and figure.layout.showlegend
    assert list(figure.data[1].marker.symbol) == ["star-open", "circle-open"]
    low, high = figure.layout.yaxis.range
    assert low < 10 and high > 95, "all runs are in sight"
    assert not wise.wise_plane(table, 0.5).layout.showlegend


def test_best_alphas_stand_beside_each_other(points: list[dict]) -> None:
    table = alphas.wise_table(points)
    rows = alphas.best_rows({"ft": table, "flat": table.assign(mean_delta_zs=0.0)})
    assert rows[["run", "alpha", "id_accuracy"]].to_numpy().tolist() == [["ft", 0.5, 60.0], ["flat", 1.0, 70.0]]


# --- forgetting against distance, and downstream by held-out tasks ----------------------------------------------------


@pytest.fixture
def pairs() -> pd.DataFrame:
    rng, tasks = np.random.default_rng(0), [f"t{i}" for i in range(5)]
    rows = [(run, method, task, l2 * 9 + rng.normal(), l2) for run, method in (("a", "ft"), ("b", "fda")) for task in tasks for l2 in [rng.uniform()]]
    return pd.DataFrame(rows, columns=["run", "method", "task", "forgetting", "l2"]).assign(downstream="food", seed=0)


def test_line_and_band_lie_under_the_marks_and_take_no_clicks(pairs: pd.DataFrame) -> None:
    line = trend(pairs, "l2")
    figure = drift_scatter(pairs, "l2", {}, line)
    marks, drawn = figure.data[:2], figure.data[2:]
    assert [list(trace.customdata) for trace in marks] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert [trace.name for trace in drawn if trace.showlegend is not False] == [LINE_NAME]
    assert all(trace.zorder < 0 and trace.hoverinfo == "skip" and trace.customdata is None for trace in drawn)
    assert drawn[1].fill == "tonexty" and (drawn[1].y >= drawn[0].y).all()


def test_few_tasks_have_a_line_without_band_and_one_distance_has_none(pairs: pd.DataFrame) -> None:
    two = pairs[pairs["task"].isin(["t0", "t1"])]
    assert [trace.name for trace in drift_scatter(two, "l2", {}, trend(two, "l2")).data] == ["ft", "fda", "least-squares line"]
    same = pairs.assign(l2=0.5)
    assert len(drift_scatter(same, "l2", {}, trend(same, "l2")).data) == 2


def test_cells_are_means_of_the_runs_of_a_method() -> None:
    rows = [("a", "digits", -10.0), ("b", "digits", -20.0), ("c", "digits", 2.0), ("d", "food", -6.0)]
    changes = pd.DataFrame(rows, columns=["run", "task", "change"])
    configs = {
        name: RunConfig("m", task, method) for name, task, method in (("a", "food", "ft"), ("b", "food", "ft"), ("c", "food", "fda"), ("d", "digits", "ft"))
    }
    ours = forgetting.downstream_table(changes, configs, "ft")
    assert ours.to_numpy().tolist() == [["digits", "food", -6.0, 1], ["food", "digits", -15.0, 2]]
    assert forgetting.downstream_table(changes, configs)["runs"].tolist() == [1, 3]
    heat = forgetting.downstream_heat(ours).data[0]
    assert list(heat.y) == ["digits", "food"] and heat.text[0] == ["–", "-6.0"], "a task is not held out from itself"
    assert (heat.zmin, heat.zmax) == (-forgetting.LIMIT, forgetting.LIMIT)
