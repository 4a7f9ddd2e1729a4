"""The pair of neighbourhood maps, what a click on them means, and how many neighbours were kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..types import Dataset, KnnGraph

OTHER = "other classes"
ALL = "all samples"
GREY = "#8A9694"
MARK = "#D6336C"
VIRIDIS = ("#440154", "#3B528B", "#21918C", "#5EC962", "#FDE725")
SYMBOLS = (
    "circle",
    "rect",
    "triangle",
    "diamond",
    "path://M4,0H8V4H12V8H8V12H4V8H0V4H4Z",  # plus
    "path://M0,0H12L6,11Z",  # triangle, tip down
    "path://M6,0L7.8,4.2L12,4.6L8.8,7.4L9.7,12L6,9.6L2.3,12L3.2,7.4L0,4.6L4.2,4.2Z",  # star
)
COLOURED = 10
"""Classes that a map tells apart at once; with more of them no eye can."""


# --- rows -------------------------------------------------------------------------------------------------------------


def class_table(data: Dataset, kept: np.ndarray, purity_0: np.ndarray | None = None, purity_1: np.ndarray | None = None) -> pd.DataFrame:
    """Returns classes with the percentage of neighbours that their samples kept, fewest first, and how many are of their own class.

    ``±`` is 1.96 standard errors over the samples of the class: rough where they are few.
    """
    rows = pd.DataFrame({"class": np.asarray(data.class_names, dtype=object)[np.asarray(data.labels)], "kept": kept * 100})
    table = rows.groupby("class", sort=True)["kept"].agg(["mean", lambda values: 1.96 * values.sem(), "count"])
    table.columns = pd.Index(["neighbours kept (%)", "±", "samples"])
    for title, purity in (("own class before (%)", purity_0), ("own class after (%)", purity_1)):
        if purity is not None:
            table[title] = rows.assign(purity=purity * 100).groupby("class")["purity"].mean()
    return table.reset_index().sort_values("neighbours kept (%)", kind="stable").reset_index(drop=True)


def default_highlight(data: Dataset, kept: np.ndarray) -> list[str]:
    """Returns the classes to colour first: all of them if an eye can tell them apart, else the 8 that kept fewest."""
    names = class_table(data, kept)["class"].tolist()
    return names if len(names) <= COLOURED else names[:8]


def map_rows(data: Dataset, kept: np.ndarray, map_0: np.ndarray, map_1: np.ndarray, highlight: Sequence[str]) -> pd.DataFrame:
    """Returns one row a sample, in the order of the samples, with both places and the group that colours it."""
    names = np.asarray(data.class_names, dtype=object)[np.asarray(data.labels)]
    group = np.where(np.isin(names, list(highlight)), names, OTHER) if len(highlight) else np.full(len(names), ALL, dtype=object)
    places = {f"{axis}{side}": place[:, column] for side, place in enumerate((map_0, map_1)) for column, axis in enumerate("xy")}
    percent = [f"{share * 100:.0f} %" for share in kept]
    return pd.DataFrame({"id": np.arange(len(names)), "class": names, "group": group, "kept": kept, "percent": percent, **places})


def newly_picked(selected: Sequence[Mapping[str, Any]], seen: Sequence[int]) -> tuple[int | None, list[int]]:
    """Returns the row that a click added to what was selected before, if any, and all that is selected now.

    Each map keeps its own selected point, so the newest is told only by what was there before.
    """
    rows = list(dict.fromkeys(int(row) for group in selected if group.get("series_index", 0) in (0, 1) for row in group["data_indices"]))
    added = [row for row in rows if row not in seen]
    return (added[0] if added else None), rows


def neighbor_fates(graph_0: KnnGraph, graph_1: KnnGraph, sample: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns a sample's neighbours before (kept or lost) and after (kept or gained), nearest first, with cosine."""
    tables = []
    for graph, other, gone in ((graph_0, graph_1, "lost"), (graph_1, graph_0, "gained")):
        ids = graph.indices[sample]
        fate = np.where(np.isin(ids, other.indices[sample]), "kept", gone)
        tables.append(pd.DataFrame({"id": ids, "fate": fate, "cosine": graph.similarities[sample]}))
    return tables[0], tables[1]


def picture(data: Dataset, sample: int) -> np.ndarray:
    """Returns a sample's image as rows of RGB pixels."""
    return np.asarray(data.images[sample]).transpose(1, 2, 0)


# --- charts -----------------------------------------------------------------------------------------------------------


def pair_of_maps(
    rows: pd.DataFrame, colours: Sequence[str], *, by_kept: bool = False, sample: int | None = None, fates: Sequence[pd.DataFrame] = ()
) -> dict[str, Any]:
    """Returns the ECharts option of both maps in one chart, so that a lasso on one side marks the other.

    Args:
        rows: From `map_rows`.
        colours: The theme's categorical colours.
        by_kept: Colour by the share of neighbours kept, on a scale that is always 0 to 1, instead of by group.
        sample: Sample to ring, with lines to its neighbours.
        fates: From `neighbor_fates`, for those lines.
    """
    scale = _kept_scale() if by_kept else _group_scale(rows, colours)
    marks = [] if sample is None else [mark for side in (0, 1) for mark in _marks(rows, sample, side, fates)]
    return {
        "animation": False,
        "dataset": {"source": rows},
        "title": [{"text": text, "left": left, "top": 48} for text, left in (("Before", "2%"), ("After", "44%"))],
        "grid": [{"left": "2%", "width": "39%", "top": 78, "bottom": 12}, {"left": "44%", "width": "39%", "top": 78, "bottom": 12}],
        "xAxis": [_axis(rows, "x", side) for side in (0, 1)],
        "yAxis": [_axis(rows, "y", side) for side in (0, 1)],
        # Streamlit escapes what is inserted; the template itself is constant.
        "tooltip": {"trigger": "item", "formatter": "<b>{@class}</b><br/>sample {@id}<br/>neighbours kept {@percent}"},
        "toolbox": {"left": 8, "top": 2, "feature": {"brush": {"type": ["polygon", "rect", "clear"]}}},
        "brush": {
            "toolbox": ["polygon", "rect", "clear"],
            "seriesIndex": [0, 1],
            "xAxisIndex": "all",
            "brushLink": [0, 1],
            "throttleType": "debounce",
            "outOfBrush": {"colorAlpha": 0.12},
        },
        "visualMap": scale,
        "series": [_points(side) for side in (0, 1)] + marks,
        "media": [_narrow(by_kept, has_key=scale.get("show", True))],
    }


def kept_histogram(kept: np.ndarray, n_neighbors: int, floor: tuple[float, float] | None = None) -> go.Figure:
    """Returns how many samples kept how many of their neighbours, with a band where noise alone would put the mean.

    Args:
        kept: Each sample's share.
        n_neighbors: Neighbours a sample.
        floor: Interval of the mean share that two views of the same images have in common.
    """
    counts = np.bincount(np.rint(kept * n_neighbors).astype(int), minlength=n_neighbors + 1)
    figure = go.Figure(go.Bar(x=np.arange(n_neighbors + 1), y=counts, hovertemplate="%{x} kept: %{y} samples<extra></extra>"))
    mean = float(kept.mean()) * n_neighbors
    side = "left" if mean > n_neighbors / 2 else "right"
    figure.add_vline(x=mean, line_dash="dash", line_color=GREY, annotation_text=f"mean {mean:.1f}", annotation_position=f"top {side}")
    if floor is not None:
        low, high = (share * n_neighbors for share in floor)
        words = {"annotation_text": "noise alone", "annotation_position": "top left" if low > n_neighbors / 2 else "top right", "annotation_yshift": 16}
        figure.add_vrect(x0=low, x1=high, fillcolor=MARK, opacity=0.3, line_width=0, layer="above", **words)
    figure.update_layout(height=300, margin={"t": 46, "b": 10, "l": 10, "r": 10}, bargap=0.15, showlegend=False)
    figure.update_xaxes(title_text=f"neighbours kept, of {n_neighbors}", range=[-0.6, n_neighbors + 0.6])
    figure.update_yaxes(title_text="samples", range=[0, 1.2 * counts.max()])
    return figure


def _axis(rows: pd.DataFrame, axis: str, side: int) -> dict[str, Any]:
    """Returns an axis without numbers, which mean nothing here, and with the same limits before and after."""
    values = rows[[f"{axis}0", f"{axis}1"]].to_numpy()
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low or 1.0)
    hidden = {name: {"show": False} for name in ("axisLabel", "axisTick", "splitLine")}
    return {"type": "value", "gridIndex": side, "min": low - margin, "max": high + margin, "axisLine": {"show": True, "onZero": False}, **hidden}


def _points(side: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": ("before", "after")[side],
        "progressive": 0,  # otherwise a lasso silently drops points of large sets
        "symbolSize": 8,
        "xAxisIndex": side,
        "yAxisIndex": side,
        "encode": {"x": f"x{side}", "y": f"y{side}"},
        "itemStyle": {"borderColor": "rgba(128,128,128,0.6)", "borderWidth": 0.5},
        "selectedMode": "single",
        "select": {"itemStyle": {"borderColor": MARK, "borderWidth": 2}},
    }


def _group_scale(rows: pd.DataFrame, colours: Sequence[str]) -> dict[str, Any]:
    """Returns what gives each group a colour and a shape of its own; the rest is small and grey."""
    present = list(dict.fromkeys(rows["group"]))
    rest = [name for name in present if name in (OTHER, ALL)]
    groups = sorted(name for name in present if name not in rest)
    colour = {name: colours[i % len(colours)] for i, name in enumerate(groups)} | dict.fromkeys(rest, GREY)
    symbol = {name: SYMBOLS[i % len(SYMBOLS)] for i, name in enumerate(groups)} | dict.fromkeys(rest, "circle")
    size = dict.fromkeys(groups, 11) | dict.fromkeys(rest, 6)
    return {
        "type": "piecewise",
        "dimension": "group",
        "categories": [*groups, *rest],
        "seriesIndex": [0, 1],
        "inRange": {"color": colour, "symbol": symbol, "symbolSize": size},
        "outOfRange": {"opacity": 0.08},
        "orient": "vertical",
        "right": 0,
        "top": 78,
        "itemGap": 8,
        "itemWidth": 12,
        "itemHeight": 12,
        "textStyle": {"width": 110, "overflow": "truncate"},
        "show": present != [ALL],
    }


def _kept_scale() -> dict[str, Any]:
    return {
        "type": "continuous",
        "dimension": "kept",
        "seriesIndex": [0, 1],
        "min": 0,
        "max": 1,
        "inRange": {"color": list(VIRIDIS)},
        "text": ["all kept", "none kept"],
        "calculable": False,
        "orient": "vertical",
        "right": 20,
        "top": 78,
        "itemHeight": 180,
    }


def _marks(rows: pd.DataFrame, sample: int, side: int, fates: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Returns the ring around the chosen sample and the lines to its neighbours: solid if kept, dashed if not."""
    place = [[float(x), float(y)] for x, y in rows[[f"x{side}", f"y{side}"]].to_numpy()]
    own = {"xAxisIndex": side, "yAxisIndex": side, "silent": True, "tooltip": {"show": False}}
    marks: list[dict[str, Any]] = []
    for kind, is_kept in (("solid", True), ("dashed", False)):
        ends = [int(to) for to, what in zip(fates[side]["id"], fates[side]["fate"], strict=True) if (what == "kept") == is_kept]
        # A dash is no place: it ends one line, so that the next begins at the sample again.
        path = [point for to in ends for point in (place[sample], place[to], ["-", "-"])]
        marks.append({"type": "line", "symbol": "none", "data": path, "lineStyle": {"color": MARK, "width": 1.5, "opacity": 0.7, "type": kind}, **own})
    ring = {"color": "transparent", "borderColor": MARK, "borderWidth": 3}
    return [*marks, {"type": "scatter", "symbolSize": 18, "data": [place[sample]], "z": 5, "itemStyle": ring, **own}]


def _narrow(by_kept: bool, *, has_key: bool) -> dict[str, Any]:
    """Returns the layout for phones: both maps in full width, the key below them."""
    low = 90 if by_kept else 230 if has_key else 12
    key: dict[str, Any] = {"left": "center", "right": "auto", "top": "auto", "bottom": 0}
    if by_kept:
        key |= {"orient": "horizontal", "itemHeight": 120}
    return {
        "query": {"maxWidth": 560},
        "option": {
            "title": [{"left": "1%"}, {"left": "52%"}],
            "grid": [{"left": "1%", "width": "47%", "bottom": low}, {"left": "52%", "width": "47%", "bottom": low}],
            "visualMap": key,
        },
    }
