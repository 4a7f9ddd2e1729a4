"""The WiSE-FT curve: accuracy and zero-shot change between the start and the fine-tuned model."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

NAMES = {"id_accuracy": "ID accuracy", "ood_accuracy": "OOD accuracy", "mean_delta_zs": "mean Δ zero-shot (held-out tasks)"}
SYMBOLS = {"id_accuracy": "circle", "ood_accuracy": "square", "mean_delta_zs": "diamond"}
DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
"""Of the runs that are overlaid; the chosen run's lines are solid."""
GREY = "#8A9694"
MARGIN = {"t": 10, "b": 10, "l": 10, "r": 10}
LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}

Tables = Mapping[str, pd.DataFrame]
"""Curves of other runs, from `alphas.wise_table`, by name."""


def wise_curves(table: pd.DataFrame, alpha: float, measures: Sequence[str], others: Tables | None = None, palette: Sequence[str] = ()) -> go.Figure:
    """Returns accuracies (above) and zero-shot change (below) against alpha, the chosen alpha marked in every curve.

    Args:
        table: From `alphas.wise_table`.
        alpha: The chosen alpha.
        measures: Which of ``id_accuracy``, ``ood_accuracy`` and ``mean_delta_zs`` the run has.
        others: Runs to lay over it, as thin broken lines.
        palette: Colours of the page, for what has to keep one over several lines.
    """
    has_change = "mean_delta_zs" in measures
    traces = [_line(table, name, alpha) | _colored(palette, index) for index, name in enumerate(measures)]
    for place, (run, other) in enumerate((others or {}).items()):
        traces += [_thin_line(other, name, run, place, palette, is_first=index == 0) for index, name in enumerate(measures)]
    below = {"domain": [0, 0.36], "title": {"text": "change (points)"}, "anchor": "x"}
    layout = {
        "height": 480,
        "margin": MARGIN,
        "legend": LEGEND,
        "meta": alpha,
        "xaxis": {"title": {"text": "alpha (0 = start, 1 = fine-tuned)"}, "anchor": "y2" if has_change else "y", "range": [-0.04, 1.04]},
        "yaxis": {"title": {"text": "accuracy (%)"}, "domain": [0.44, 1] if has_change else [0, 1]},
        "shapes": [{"type": "line", "x0": alpha, "x1": alpha, "y0": 0, "y1": 1, "yref": "paper", "line": {"dash": "dot", "width": 1, "color": GREY}}],
    }
    if has_change:
        zero = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 0, "y1": 0, "yref": "y2", "line": {"width": 1, "color": GREY}}
        layout |= {"yaxis2": below, "shapes": [*layout["shapes"], zero]}  # type: ignore[misc]
    return go.Figure(traces, layout)


def _line(table: pd.DataFrame, name: str, alpha: float) -> dict:
    """Returns one measure of the chosen run."""
    unit = "points" if name == "mean_delta_zs" else "%"
    return {
        "type": "scatter",
        "x": table["alpha"],
        "y": table[name],
        "yaxis": "y2" if name == "mean_delta_zs" else "y",
        "name": NAMES[name],
        "mode": "lines+markers",
        "line": {"width": 2.5},
        "marker": {"symbol": SYMBOLS[name], "size": [15 if row == alpha else 7 for row in table["alpha"]]},
        "hovertemplate": f"alpha %{{x:.1f}}: %{{y:.1f}} {unit}<extra>{NAMES[name]}</extra>",
    }


def _thin_line(table: pd.DataFrame, name: str, run: str, place: int, palette: Sequence[str], *, is_first: bool) -> dict:
    """Returns one measure of a run that is laid over: its dash says which run, its open mark which measure."""
    unit = "points" if name == "mean_delta_zs" else "%"
    return {
        "type": "scatter",
        "x": table["alpha"],
        "y": table[name],
        "yaxis": "y2" if name == "mean_delta_zs" else "y",
        "name": run,
        "legendgroup": run,
        "showlegend": is_first,
        "mode": "lines+markers",
        "line": {"width": 1.3, "dash": DASHES[place % len(DASHES)]},
        "marker": {"symbol": f"{SYMBOLS[name]}-open", "size": 5},
        "hovertemplate": f"alpha %{{x:.1f}}: %{{y:.1f}} {unit}<extra>{run}: {NAMES[name]}</extra>",
    } | _colored(palette, len(NAMES) + place)


def _colored(palette: Sequence[str], index: int) -> dict:
    return {"line_color": palette[index % len(palette)], "marker_color": palette[index % len(palette)]} if palette else {}


def wise_plane(table: pd.DataFrame, alpha: float, others: Tables | None = None, palette: Sequence[str] = (), name: str = "") -> go.Figure:
    """Returns the curve from start to fine-tuned model in the plane of ID and OOD accuracy, both ends and the chosen point named.

    Args:
        table: From `alphas.wise_table`.
        alpha: The chosen alpha.
        others: Runs to lay over it, as thin broken paths; their mark is the nearest alpha that they have.
        palette: Colours of the page.
        name: Of the chosen run, for the legend beside others.
    """
    first, last = table["alpha"].iloc[0], table["alpha"].iloc[-1]
    words = {first: f"α = {first:g}", last: f"α = {last:g}", alpha: f"<b>α = {alpha:g}</b>"}
    chosen = table["alpha"] == alpha
    places = ["top center" if row == first else "bottom center" for row in table["alpha"]]
    path = {
        "type": "scatter",
        "x": table["id_accuracy"],
        "y": table["ood_accuracy"],
        "name": name,
        "mode": "lines+markers+text",
        "text": [words.get(row, "") for row in table["alpha"]],
        "textposition": places,
        "customdata": table["alpha"],
        "line": {"width": 2.5},
        "marker": {"size": [16 if here else 7 for here in chosen], "symbol": ["star" if here else "circle" for here in chosen]},
        "hovertemplate": "alpha %{customdata:.1f}: ID %{x:.1f} %, OOD %{y:.1f} %<extra></extra>",
    } | _colored(palette, 0)
    paths = [_thin_path(other, run, alpha, place, palette) for place, (run, other) in enumerate((others or {}).items())]
    shown = pd.concat([table, *(others or {}).values()])
    layout = {
        "height": 480,
        "margin": MARGIN,
        "showlegend": bool(others),
        "legend": LEGEND,
        "meta": alpha,
        "xaxis": {"title": {"text": "ID accuracy (%)"}, "range": _wide(shown["id_accuracy"])},
        "yaxis": {"title": {"text": "OOD accuracy (%)"}, "range": _wide(shown["ood_accuracy"])},
    }
    return go.Figure([path, *paths], layout)


def _thin_path(table: pd.DataFrame, run: str, alpha: float, place: int, palette: Sequence[str]) -> dict:
    near = (table["alpha"] - alpha).abs().to_numpy().argmin()
    is_near = np.arange(len(table)) == near
    return {
        "type": "scatter",
        "x": table["id_accuracy"],
        "y": table["ood_accuracy"],
        "name": run,
        "mode": "lines+markers",
        "customdata": table["alpha"],
        "line": {"width": 1.3, "dash": DASHES[place % len(DASHES)]},
        "marker": {"size": [13 if here else 4 for here in is_near], "symbol": ["star-open" if here else "circle-open" for here in is_near]},
        "hovertemplate": "alpha %{customdata:.1f}: ID %{x:.1f} %, OOD %{y:.1f} %<extra>" + run + "</extra>",
    } | _colored(palette, len(NAMES) + place)


def change_bars(changes: pd.DataFrame, alpha: float) -> go.Figure:
    """Returns a bar a held-out task with its zero-shot change at an alpha, beside a tick where it ends at the last alpha.

    The axis spans what the run does at any alpha, so that bars move and not the axis.

    Args:
        changes: From `alphas.task_changes`.
        alpha: One of its rows.
    """
    here, last, tasks = changes.loc[alpha], changes.index[-1], list(changes.columns)
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": f"alpha {alpha:g}",
        "x": here.to_numpy(),
        "y": tasks,
        "width": 0.62,
        "hovertemplate": f"%{{y}} at alpha {alpha:g}: %{{x:+.1f}} points<extra></extra>",
    }
    ticks = {
        "type": "scatter",
        "mode": "markers",
        "name": f"fine-tuned (alpha {last:g})",
        "x": changes.loc[last].to_numpy(),
        "y": tasks,
        "marker": {"symbol": "line-ns-open", "size": 16, "color": GREY, "line": {"width": 3, "color": GREY}},
        "hovertemplate": f"%{{y}} at alpha {last:g}: %{{x:+.1f}} points<extra></extra>",
    }
    layout = {
        "height": 130 + 26 * len(tasks),
        "margin": MARGIN,
        "showlegend": True,
        "legend": LEGEND,
        "meta": alpha,
        "xaxis": {"title": {"text": "zero-shot change (points)"}, "range": change_limits(changes), "zeroline": False},
        "yaxis": {"title": {"text": "held-out task"}, "autorange": "reversed", "type": "category"},
        "shapes": [{"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "line": {"width": 2, "color": GREY}}],
    }
    return go.Figure([bars, ticks], layout)


def change_limits(changes: pd.DataFrame) -> list[float]:
    """Returns limits that hold every change at every alpha, and no change; never so narrow that noise looks like a fall.

    Example:
        >>> change_limits(pd.DataFrame({"digits": [0.0, -20.0]})), change_limits(pd.DataFrame({"digits": [0.0, 0.5]}))
        ([-22.0, 2.2], [-2.2, 2.2])
    """
    low, high = (float(end) for end in (min(changes.min(axis=None), -2.0), max(changes.max(axis=None), 2.0)))
    return [round(low * 1.1, 9), round(high * 1.1, 9)]


def _wide(values: pd.Series) -> list[float]:
    """Returns limits with room for the words at the ends; never so narrow that noise looks like a trend."""
    middle, half = (values.max() + values.min()) / 2, max(values.max() - values.min(), 4.0) * 0.62
    return [float(middle - half), float(middle + half)]
