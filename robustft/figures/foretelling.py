"""Forgetting against distance: a mark a run and held-out task, the line through them, and their correlations in words."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..foretelling import CORRELATIONS, measures_of, title_of

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross", "hexagon")
"""Nine, beside ten colours: no two of ninety methods look alike."""
GREY = "#8A9694"
LINE_NAME = "least-squares line, 95 % band"


def drift_scatter(pairs: pd.DataFrame, measure: str, names: Mapping[str, str], line: pd.DataFrame | None = None) -> go.Figure:
    """Returns forgetting against a distance, a mark a run and held-out task, a symbol and colour a method; above zero is forgetting.

    Args:
        pairs: From `foretelling.drift_pairs`. Each mark carries its row's label as ``customdata``.
        measure: Column with the distance.
        names: Short name of each run.
        line: From `trend.trend`: drawn with its band behind the marks.
    """
    shown = pairs.dropna(subset=[measure])
    figure = go.Figure()
    for index, (method, own) in enumerate(shown.groupby("method", sort=False)):
        figure.add_scatter(
            x=own[measure],
            y=own["forgetting"],
            mode="markers",
            name=str(method),
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 9, "opacity": 0.8},
            customdata=own.index.to_numpy(),
            text=[f"{names.get(run, run)}, fine-tuned on {downstream}<br>on {task}" for run, downstream, task in own[["run", "downstream", "task"]].to_numpy()],
            hovertemplate="%{text}: distance %{x:.3g}, forgetting %{y:+.1f} points<extra></extra>",
        )
    if line is not None and len(line):
        _draw_line(figure, line)
    figure.add_hline(y=0, line_width=2, line_color=GREY)
    figure.update_layout(
        height=400 + 8 * shown["method"].nunique(),  # room for the names of the methods
        margin={"t": 10, "b": 10, "l": 10, "r": 10},
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    )
    figure.update_xaxes(title_text=f"distance: {title_of(measure)}", rangemode="tozero", zeroline=False)
    figure.update_yaxes(title_text="forgetting (points)", rangemode="tozero", zeroline=False)
    return figure


def _draw_line(figure: go.Figure, line: pd.DataFrame) -> None:
    """Draws a line and, where there is one, its band; neither answers to the pointer, which looks for marks.

    They come after the marks, which would else lose the first colours, but lie under them.
    """
    has_band = line["low"].notna().all()
    if has_band:
        edge = {"mode": "lines", "line": {"width": 0, "color": GREY}, "hoverinfo": "skip", "showlegend": False, "zorder": -1}
        figure.add_scatter(x=line["distance"], y=line["low"], **edge)
        figure.add_scatter(x=line["distance"], y=line["high"], fill="tonexty", fillcolor="rgba(138,150,148,0.25)", **edge)
    name = LINE_NAME if has_band else LINE_NAME.partition(",")[0]
    figure.add_scatter(x=line["distance"], y=line["forgetting"], mode="lines", name=name, line={"width": 2, "color": GREY}, hoverinfo="skip", zorder=-1)


def pair_table(pairs: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Returns the marks of `drift_scatter` for reading, with every distance."""
    titles = {"downstream": "fine-tuned on", "task": "held-out task", "forgetting": "forgetting (points)"}
    shown = pairs.drop(columns=["method", "seed"]).assign(run=pairs["run"].map(lambda run: names.get(run, run)))
    return shown.rename(columns=titles | {name: title_of(name) for name in measures_of(pairs)})


def correlation_words(table: pd.DataFrame) -> pd.DataFrame:
    """Returns correlations for reading: a row a distance, each cell a correlation with its interval, – where there is none.

    Args:
        table: From `foretelling.correlations`.

    Example:
        >>> row = {name + end: 0.5 for name in CORRELATIONS[:2] for end in ("", "_low", "_high")} | {"measure": "l2", "points": 9, "runs": 3, "tasks": 3}
        >>> correlation_words(pd.DataFrame([row])).iloc[0, :3].tolist()
        ['L2', '0.50 [0.50, 0.50]', '0.50 [0.50, 0.50]']
    """

    def cell(row: pd.Series, name: str) -> str:
        value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        return "–" if np.isnan(value) else f"{value:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]")

    known = [name for name in CORRELATIONS if name in table and table[name].notna().any() or "_within" not in name]
    words = {name.capitalize().replace("_", " "): [cell(row, name) for _, row in table.iterrows()] for name in known}
    counts = {"pairs": table["points"], "runs": table["runs"], "tasks": table["tasks"]}
    return pd.DataFrame({"distance": table["measure"].map(title_of), **words, **counts})
