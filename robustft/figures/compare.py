"""Runs side by side: trade-off planes with the Pareto front, curves of loss, neighbours and alpha, differing options."""

from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..types import RunConfig, StepRecord

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross", "hexagon")
PARTS = {"loss": "objective", "task_loss": "task loss", "reg_loss": "regularizer"}
THIN, THICK = 2, 5
"""Width of a curve, and of the picked run's."""
GREY = "#8A9694"
PLACES = ("top center", "bottom center")


# --- tables -----------------------------------------------------------------------------------------------------------


BASE = ("model", "task", "method", "seed", "held out")


def differing_options(configs: Mapping[str, RunConfig], names: Mapping[str, str]) -> pd.DataFrame:
    """Returns the settings in which runs differ, one row a setting and one column a run; ``–`` where a run has no such setting.

    A run that trains nothing has none of the training settings: that alone is no difference between the others.

    Example:
        >>> runs = {"a": RunConfig("m", "food", "ft", options={"lr": 0.1, "steps": 9}), "b": RunConfig("m", "food", "ft", options={"lr": 0.2, "steps": 9})}
        >>> differing_options(runs, {"a": "one", "b": "two"}).to_dict("list")
        {'setting': ['lr'], 'one': ['0.1'], 'two': ['0.2']}
    """
    settings = {
        run: dict(zip(BASE, (c.model, c.dataset, c.method, c.seed, ", ".join(c.held_out)), strict=True)) | dict(c.options) for run, c in configs.items()
    }
    known = list(dict.fromkeys(key for own in settings.values() for key in own))
    words = {key: ["–" if key not in own else "none" if own[key] is None else str(own[key]) for own in settings.values()] for key in known}
    trained = [bool(config.options) for config in configs.values()]
    settled = {key for key, values in words.items() if key not in BASE and len(set(compress(values, trained))) == 1}
    rows = [[key, *values] for key, values in words.items() if len(set(values)) > 1 and key not in settled]
    return pd.DataFrame(rows, columns=["setting", *(names[run] for run in configs)])


def pareto_front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Returns the positions of the points that no other point beats in one measure without losing in the other, by rising x.

    Example:
        The third point is beaten by the second in both.

        >>> pareto_front([1.0, 2.0, 1.5], [3.0, 2.0, 1.0])
        [0, 1]
    """
    points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    whole = [i for i, point in enumerate(points) if np.isfinite(point).all()]
    beaten = {i for i in whole if any((points[j] >= points[i]).all() and (points[j] > points[i]).any() for j in whole)}
    return sorted(set(whole) - beaten, key=lambda i: (points[i][0], points[i][1]))


# --- planes -----------------------------------------------------------------------------------------------------------


def trade_off(table: pd.DataFrame, x: str, y: str, titles: tuple[str, str], picked: str | None = None) -> go.Figure:
    """Returns one measure against another, each point named, the Pareto front joined and marked with diamonds.

    Args:
        table: One row a point, with its name in ``method``, and in ``run`` what a click on it means; ``± x`` and ``± y`` are
            drawn as error bars where they are there.
        x: Column along the horizontal axis; more is better.
        y: Column along the vertical axis; more is better.
        titles: Of the axes, with units.
        picked: Name of the point that gets a ring.
    """
    order = table.dropna(subset=[x, y]).sort_values(x, kind="stable").reset_index(drop=True)
    front = pareto_front(order[x].tolist(), order[y].tolist())
    on_front = [i in front for i in range(len(order))]
    figure = go.Figure()
    figure.add_scatter(x=order[x][front], y=order[y][front], mode="lines", line={"dash": "dot", "color": GREY}, name="Pareto front", hoverinfo="skip")
    figure.add_scatter(
        x=order[x],
        y=order[y],
        mode="markers+text",
        text=[_label(name, i, picked) for i, name in enumerate(order["method"])],
        hovertext=[without_markup(name) for name in order["method"]],
        textposition=[PLACES[i % len(PLACES)] for i in range(len(order))],
        marker={"symbol": ["diamond" if here else "circle-open" for here in on_front], "size": [13 if here else 10 for here in on_front]},
        unselected={"marker": {"opacity": 1}},  # the ring tells what is picked, not a dimming of all others
        customdata=order[["run"]].to_numpy() if "run" in order else None,
        name="runs",
        hovertemplate="%{hovertext}: %{x:.1f}, %{y:.1f}<extra></extra>",
        **{f"error_{axis}": _bars(order[f"± {name}"]) for axis, name in (("x", x), ("y", y)) if f"± {name}" in order},
    )
    ringed = order[order["method"] == picked]
    if not ringed.empty:
        marker = {"symbol": "circle-open", "size": 26, "line": {"width": 3}, "color": "#D55E00"}
        figure.add_scatter(x=ringed[x], y=ringed[y], mode="markers", marker=marker, name="picked", hoverinfo="skip")
    figure.update_layout(height=420, margin={"t": 10, "b": 10, "l": 10, "r": 10}, showlegend=False)
    figure.update_xaxes(title_text=titles[0], range=_wide(*_ends(order, x), 0.75))
    figure.update_yaxes(title_text=titles[1], range=_wide(*_ends(order, y), 0.65))
    return figure


def plane_table(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Returns the points of `trade_off` for reading, with those on the Pareto front marked."""
    front = set(pareto_front(table[x].tolist(), table[y].tolist()))
    halves = [title for title in (f"± {x}", f"± {y}") if title in table]
    return table[["method", x, y, *halves]].assign(**{"Pareto front": ["yes" if i in front else "no" for i in range(len(table))]})


def _bars(halves: pd.Series) -> dict:
    return {"type": "data", "array": halves, "thickness": 1, "width": 3, "color": GREY}


def _label(name: str, place: int, picked: str | None) -> str:
    """Returns a point's name; the picked one's is bold, with an empty line between it and the ring."""
    if name != picked:
        return without_markup(name)
    return f"<b>{without_markup(name)}</b><br> " if PLACES[place % len(PLACES)].startswith("top") else f" <br><b>{without_markup(name)}</b>"


def without_markup(name: str) -> str:
    """Returns a name in which the chart library finds no markup, such as a link.

    Example:
        >>> without_markup("<a href=x>ft")
        '‹a href=x›ft'
    """
    return str(name).replace("<", "‹").replace(">", "›")


def _ends(table: pd.DataFrame, title: str) -> tuple[float, float]:
    """Returns the lowest and the highest end of a measure's error bars."""
    halves = table[f"± {title}"].fillna(0) if f"± {title}" in table else 0.0
    return float((table[title] - halves).min()), float((table[title] + halves).max())


def _wide(low: float, high: float, share: float) -> list[float] | None:
    """Returns limits with room for the names; at least 4 points, so that noise does not fill the picture."""
    if np.isnan(low):
        return None
    middle, half = (high + low) / 2, max(high - low, 4.0) * share
    return [middle - half, middle + half]


def alpha_paths(points: pd.DataFrame, picked: str | None = None) -> go.Figure:
    """Returns each run's way from the start to its fine-tuned model, in the plane of ID accuracy and zero-shot change.

    Args:
        points: Columns run (its short name), alpha, ID and mean Delta_ZS, by rising alpha within a run.
        picked: Name of the run that is drawn thick.
    """
    figure = go.Figure()
    for index, (name, own) in enumerate(points.groupby("run", sort=False)):
        figure.add_scatter(
            x=own["ID"],
            y=own["mean Delta_ZS"],
            mode="lines+markers",
            name=without_markup(name),
            line={"dash": DASHES[index % len(DASHES)], "width": THICK if name == picked else THIN},
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": [11 if alpha == 1 else 6 for alpha in own["alpha"]]},
            customdata=own["alpha"],
            hovertemplate="alpha %{customdata:g}: ID %{x:.1f} %, %{y:+.1f} points<extra>" + without_markup(name) + "</extra>",
        )
    figure.add_hline(y=0, line_width=1, line_color=GREY)
    return _framed(figure, "ID accuracy (%)", "mean Δ zero-shot (points)")


# --- curves -----------------------------------------------------------------------------------------------------------


def loss_table(histories: Mapping[str, Sequence[StepRecord]], part: str = "loss", window: int = 1) -> pd.DataFrame:
    """Returns one part of the loss of each run: a row a step, a column a run.

    Args:
        histories: Steps by short name of the run.
        part: ``loss``, ``task_loss`` or ``reg_loss``.
        window: Steps that are averaged around each one; 1 leaves them as they are.

    Example:
        >>> steps = [StepRecord(step, loss, loss, 0.0, 0.1, 1.0, 0.1) for step, loss in ((1, 1.0), (2, 2.0), (3, 6.0))]
        >>> loss_table({"ft": steps}, window=3)["ft"].tolist()
        [1.5, 3.0, 4.0]
    """
    curves = {name: pd.Series({record.step: getattr(record, part) for record in history}, dtype=float) for name, history in histories.items()}
    return pd.DataFrame(curves).rolling(window, center=True, min_periods=1).mean().rename_axis("step")


def loss_curves(
    histories: Mapping[str, Sequence[StepRecord]], part: str = "loss", picked: str | None = None, *, window: int = 1, is_log: bool = False
) -> go.Figure:
    """Returns the loss of each run by step, told apart by dashes as well as by colour.

    Args:
        histories: Steps by short name of the run.
        part: ``loss``, ``task_loss`` or ``reg_loss``.
        picked: Name of the run that is drawn thick.
        window: As for `loss_table`.
        is_log: Whether the loss axis is logarithmic; what is not above 0 has no place there.
    """
    figure = go.Figure()
    for index, (name, values) in enumerate(loss_table(histories, part, window).items()):
        known = values.dropna()
        figure.add_scatter(
            x=known.index,
            y=known,
            mode="lines",
            line={"dash": DASHES[index % len(DASHES)], "width": THICK if name == picked else THIN},
            name=without_markup(name),
            hovertemplate="step %{x}: %{y:.3g}<extra>" + without_markup(name) + "</extra>",
        )
    _framed(figure, "step", f"{PARTS[part]} (no unit)")
    return figure.update_yaxes(type="log") if is_log else figure


def kept_curves(moments: pd.DataFrame, along: str, picked: str | None = None) -> go.Figure:
    """Returns the share of neighbours that each run kept, along its training or along alpha; 100 % is before any change.

    Args:
        moments: Columns run (its short name), along, and ``neighbours kept (%)``, in order within a run.
        along: ``step`` or ``alpha``.
        picked: Name of the run that is drawn thick.
    """
    figure = go.Figure()
    for index, (name, own) in enumerate(moments.groupby("run", sort=False)):
        figure.add_scatter(
            x=own[along],
            y=own["neighbours kept (%)"],
            mode="lines+markers",
            name=without_markup(name),
            line={"dash": DASHES[index % len(DASHES)], "width": THICK if name == picked else THIN},
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
            hovertemplate=along + " %{x:g}: %{y:.1f} %<extra>" + without_markup(name) + "</extra>",
        )
    return _framed(figure, along, "neighbours kept (%)")


def _framed(figure: go.Figure, x: str, y: str) -> go.Figure:
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    figure.update_layout(height=380, margin={"t": 10, "b": 10, "l": 10, "r": 10}, showlegend=True, legend=legend)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    return figure
