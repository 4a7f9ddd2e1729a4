"""What a run cost on the held-out tasks: bars, heat maps, and the noise that a change must exceed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..types import RunConfig, RunRecord
from .foretelling import correlation_words as correlation_words  # forgetting against distance is part of what a run cost
from .foretelling import drift_scatter as drift_scatter
from .foretelling import pair_table as pair_table

MEASURES = {"delta_zs": "zero-shot", "delta_lp": "linear probe"}
LIMIT = 20.0
"""Points at which the colours of the heat map end; fixed, so that two pages of runs can be compared."""
ORANGE_BLUE = ((0.0, "#B35806"), (0.25, "#F1A340"), (0.5, "#F7F7F7"), (0.75, "#92C5DE"), (1.0, "#2166AC"))
PATTERNS = ("", "/", "x", "-", "\\", ".", "+", "|")


# --- noise ------------------------------------------------------------------------------------------------------------


def noise(accuracy: float, n: int) -> float:
    """Returns 1.96 standard errors of an accuracy from n test images, with 2 hits and 2 misses added so that 0 and 1 have noise too.

    Example:
        Half of 96 images right: 1.96 * sqrt(0.5 * 0.5 / 100).

        >>> round(noise(0.5, 96), 3)
        0.098
    """
    share = (accuracy * n + 2) / (n + 4)
    return float(1.96 * np.sqrt(share * (1 - share) / (n + 4)))


def change_noise(before: float, after: float, n: int) -> float:
    """Returns 1.96 standard errors of a difference of two accuracies, as if from two sets of n images.

    Both are read on the same images, so the true noise is smaller: this one errs on the side of caution.
    """
    return float(np.hypot(noise(before, n), noise(after, n)))


def measured_noise(scores: Mapping[str, float], kind: str, n: int) -> float:
    """Returns how far a change may be off: 1.96 paired standard errors over test images, for a linear probe with its refits' noise.

    Runs of older versions measured neither; theirs is `change_noise`.

    Args:
        scores: Of one task in one domain, by metric.
        kind: ``zs`` or ``lp``.
        n: Test images.

    Example:
        Paired error 0.01, refits differ by 0.02: sqrt(0.0196^2 + 0.02^2).

        >>> round(measured_noise({"error_lp": 0.01, "noise_lp": 0.02}, "lp", 100), 4)
        0.028
    """
    if f"error_{kind}" not in scores:
        return change_noise(scores.get(f"{kind}_accuracy_0", 0.5), scores.get(f"{kind}_accuracy", 0.5), n)
    return float(np.hypot(1.96 * scores[f"error_{kind}"], scores.get(f"noise_{kind}", 0.0)))


# --- tables -----------------------------------------------------------------------------------------------------------


def run_names(configs: Mapping[str, RunConfig]) -> dict[str, str]:
    """Returns a short name for each run: its method, and what else it takes to tell it from the others.

    Example:
        >>> run_names({"a": RunConfig("m", "food", "ft"), "b": RunConfig("m", "food", "ft", 1), "c": RunConfig("m", "food", "fda")})
        {'a': 'ft s0', 'b': 'ft s1', 'c': 'fda'}
    """
    several = {config.dataset for config in configs.values()}
    names = {run_id: config.method + (f" {config.dataset}" if len(several) > 1 else "") for run_id, config in configs.items()}
    for marks in ({run_id: f" s{config.seed}" for run_id, config in configs.items()}, {run_id: f" #{run_id[-4:]}" for run_id in configs}):
        # Names that are shared get a mark, unless it is the same for all that share them.
        marked = {name: {marks[run_id] for run_id in names if names[run_id] == name} for name in names.values()}
        names = {run_id: name + marks[run_id] if len(marked[name]) > 1 else name for run_id, name in names.items()}
    return names


def change_table(records: Sequence[RunRecord], metric: str, *, by_domain: bool = False) -> pd.DataFrame:
    """Returns run, task, change and noise in points, one row a run and held-out task (or its domain).

    Args:
        records: Finished runs.
        metric: ``delta_zs`` or ``delta_lp``.
        by_domain: Keep domains apart instead of averaging them.
    """
    kind = metric.removeprefix("delta_")
    rows = []
    for record in records:
        values = {(s.dataset, s.domain, s.metric): s.value for s in record.scores}
        for score in record.scores:
            if score.metric == metric and score.dataset != record.config.dataset:
                place = (score.dataset, score.domain)
                task = " · ".join(place) if by_domain else score.dataset
                here = {name: value for (*where, name), value in values.items() if tuple(where) == place}
                rows.append((record.run_id, task, score.value * 100, (measured_noise(here, kind, score.n) * 100) ** 2, score.n))
    table = pd.DataFrame(rows, columns=["run", "task", "change", "variance", "images"])
    grouped = table.groupby(["run", "task"], sort=False).agg(
        change=("change", "mean"), variance=("variance", "sum"), parts=("change", "size"), images=("images", "sum")
    )
    # The mean of m independent parts has the root of the summed variances, divided by m, as its noise.
    grouped["noise"] = np.sqrt(grouped["variance"]) / grouped["parts"]
    return grouped.drop(columns=["variance", "parts"]).reset_index()


def cost_table(changes: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Returns mean and worst change of each run, the least forgetful first."""
    rows = []
    for run, own in changes.groupby("run", sort=False):
        worst = own.loc[own["change"].idxmin()]
        mean_noise = float(np.sqrt((own["noise"] ** 2).sum()) / len(own))
        rows.append((names.get(str(run), str(run)), own["change"].mean(), mean_noise, worst["change"], worst["task"], worst["noise"], len(own)))
    columns = ["run", "mean (points)", "± noise of mean", "worst (points)", "worst on", "± noise of worst", "parts"]
    return pd.DataFrame(rows, columns=columns).sort_values("mean (points)", ascending=False, kind="stable").reset_index(drop=True)


def downstream_table(changes: pd.DataFrame, configs: Mapping[str, RunConfig], method: str | None = None) -> pd.DataFrame:
    """Returns the mean change of each held-out task after fine-tuning on each downstream task, over the runs of a method or of all.

    Args:
        changes: From `change_table`.
        configs: Of the runs in it.
        method: Name of a method; None takes the runs of all.

    Returns:
        Columns downstream, task, change (points), runs: a row a pair that some run measured.

    Example:
        >>> changes = pd.DataFrame({"run": ["a", "b"], "task": ["digits", "digits"], "change": [-10.0, -20.0]})
        >>> downstream_table(changes, {"a": RunConfig("m", "food", "ft"), "b": RunConfig("m", "food", "ft", 1)}).to_numpy().tolist()
        [['food', 'digits', -15.0, 2]]
    """
    own = changes[[method in (None, configs[run].method) for run in changes["run"]]]
    own = own.assign(downstream=[configs[run].dataset for run in own["run"]])
    return own.groupby(["downstream", "task"]).agg(change=("change", "mean"), runs=("run", "nunique")).reset_index()


# --- charts -----------------------------------------------------------------------------------------------------------


def change_bars(changes: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """Returns bars of change by held-out task, one a run, with sampling noise as error bars; left of zero is forgetting."""
    runs = list(dict.fromkeys(changes["run"]))
    tasks = sorted(set(changes["task"]))
    figure = go.Figure()
    for index, run in enumerate(runs):
        own = changes[changes["run"] == run]
        figure.add_bar(
            y=own["task"],
            x=own["change"],
            name=names.get(run, run),
            orientation="h",
            marker_pattern={"shape": PATTERNS[index % len(PATTERNS)], "fillmode": "overlay", "size": 7, "solidity": 0.25},
            error_x={"type": "data", "array": own["noise"], "thickness": 1, "width": 2, "color": "#8A9694"},
            customdata=own["noise"],
            hovertemplate="%{y}: %{x:+.1f} ± %{customdata:.1f} points<extra>" + names.get(run, run) + "</extra>",
        )
    figure.add_vline(x=0, line_width=2, line_color="#8A9694")
    figure.update_layout(
        barmode="group",
        height=130 + len(tasks) * (24 + 13 * len(runs)),
        margin={"t": 10, "b": 10, "l": 10, "r": 10},
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
    )
    figure.update_xaxes(title_text="change (points)", zeroline=False)
    figure.update_yaxes(title_text="held-out task", autorange="reversed", categoryorder="array", categoryarray=tasks)
    return figure


def change_heat(changes: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """Returns held-out tasks by runs with the change written in each cell; the colours end at `LIMIT` points for every selection."""
    runs = list(dict.fromkeys(changes["run"]))
    wide = changes.pivot(index="task", columns="run", values="change").sort_index().reindex(columns=runs)
    wide.columns = pd.Index([names.get(run, run) for run in runs])
    return _heat(wide, "run", "held-out task")


def downstream_heat(means: pd.DataFrame) -> go.Figure:
    """Returns downstream by held-out tasks with the mean change written in each cell, in the colours of `change_heat`.

    Args:
        means: From `downstream_table`.
    """
    wide = means.pivot(index="downstream", columns="task", values="change")
    return _heat(wide.sort_index().sort_index(axis=1), "held-out task", "fine-tuned on")


def _heat(wide: pd.DataFrame, across: str, down: str) -> go.Figure:
    values = wide.to_numpy(dtype=float)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(wide.columns),
            y=list(wide.index),
            text=[["–" if np.isnan(value) else f"{value:+.1f}" for value in row] for row in values],
            texttemplate="%{text}",
            zmin=-LIMIT,
            zmax=LIMIT,
            colorscale=[list(stop) for stop in ORANGE_BLUE],
            colorbar={"title": {"text": "points", "side": "top"}, "orientation": "h", "thickness": 10, "y": 1.0, "yanchor": "bottom"},
            xgap=2,
            ygap=2,
            hovertemplate="%{x}, %{y}: %{text} points<extra></extra>",
        )
    )
    figure.update_layout(height=210 + 28 * len(wide), margin={"t": 10, "b": 10, "l": 10, "r": 10})
    figure.update_xaxes(title_text=f"<br>{across}", showgrid=False, type="category")
    figure.update_yaxes(title_text=down, autorange="reversed", showgrid=False, type="category")
    return figure
