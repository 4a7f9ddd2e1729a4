"""The pair of neighbourhood maps as one ECharts chart, so that a lasso on one side marks the other at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

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
MOST_LINES = 200
"""Lines that a map draws at once; more of them hide the points."""
_PLACES = ("x0", "y0", "x1", "y1")


# --- rows -------------------------------------------------------------------------------------------------------------


def map_rows(names: Sequence[str], kept: np.ndarray, map_0: np.ndarray, map_1: np.ndarray, groups: Sequence[str]) -> pd.DataFrame:
    """Returns one row a sample, in the order of the samples, with both places and the group that colours it.

    Args:
        names: Class of each sample.
        kept: Its share of neighbours kept.
        map_0: Its place before.
        map_1: Its place after.
        groups: What colours it; see `highlighted`.
    """
    places = dict(zip(_PLACES, np.hstack([map_0, map_1]).astype(np.float32).T, strict=True))
    percent = [f"{share * 100:.0f} %" for share in kept]
    columns = {"id": np.arange(len(kept), dtype=np.int32), "class": list(names), "group": list(groups), "kept": kept.astype(np.float32), "percent": percent}
    return pd.DataFrame({**columns, **places})


def highlighted(names: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Returns each sample's class if it is chosen, else one word for all others; one word for all where nothing is chosen.

    Example:
        >>> highlighted(["tea", "pie"], ["tea"]), highlighted(["tea", "pie"], [])
        (['tea', 'other classes'], ['all samples', 'all samples'])
    """
    return [name if name in chosen else OTHER for name in names] if chosen else [ALL] * len(names)


def newly_picked(selected: Sequence[Mapping[str, Any]], seen: Sequence[int]) -> tuple[int | None, list[int]]:
    """Returns the row that a click added to what was selected before, if any, and all that is selected now.

    Each map keeps its own selected point, so the newest is told only by what was there before.
    """
    rows = list(dict.fromkeys(int(row) for group in selected if group.get("series_index", 0) in (0, 1) for row in group["data_indices"]))
    added = [row for row in rows if row not in seen]
    return (added[0] if added else None), rows


# --- what is drawn over the points ------------------------------------------------------------------------------------


def sample_marks(rows: pd.DataFrame, sample: int, fates: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Returns a ring around a sample in both maps and lines to its neighbours: solid if kept, dashed if lost or gained.

    Args:
        rows: From `map_rows`, all of them or some.
        sample: The sample's id.
        fates: From `figures.neighborhoods.neighbor_fates`.
    """
    marks = []
    for side in (0, 1):
        for kind, is_kept in (("solid", True), ("dashed", False)):
            ends = [int(to) for to, what in zip(fates[side]["id"], fates[side]["fate"], strict=True) if (what == "kept") == is_kept]
            marks.append(_lines(_pairs(rows, side, [(sample, to) for to in ends]), side, kind, 1.5))
        ring = {"color": "transparent", "borderColor": MARK, "borderWidth": 3}
        marks.append({"type": "scatter", "symbolSize": 18, "data": _at(rows, side, [sample]), "z": 5, "itemStyle": ring, **_own(side)})
    return marks


def selection_marks(rows: pd.DataFrame, chosen: Iterable[int]) -> list[dict[str, Any]]:
    """Returns thin rings around the chosen samples, for a selection that came with a link and has no lasso on the screen."""
    ids, ring = list(chosen), {"color": "transparent", "borderColor": MARK, "borderWidth": 1.5}
    return [{"type": "scatter", "symbolSize": 11, "progressive": 0, "data": _at(rows, side, ids), "z": 4, "itemStyle": ring, **_own(side)} for side in (0, 1)]


def edge_lines(rows: pd.DataFrame, edges: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Returns the connections of a graph before and of one after, each in its map; at most `MOST_LINES` a side."""
    return [_lines(_pairs(rows, side, edges[side][:MOST_LINES].tolist()), side, "solid", 1) for side in (0, 1)]


def movement_lines(rows: pd.DataFrame, chosen: Iterable[int]) -> list[dict[str, Any]]:
    """Returns a line in the second map from where each chosen sample was to where it is; those that kept fewest neighbours first."""
    own = rows[rows["id"].isin(list(chosen))].nsmallest(MOST_LINES, "kept")
    ends = [[[x0, y0], [x1, y1]] for x0, y0, x1, y1 in own[list(_PLACES)].astype(float).to_numpy().tolist()]
    return [_lines(ends, 1, "dotted", 1.5), {"type": "scatter", "symbolSize": 7, "data": [end for _, end in ends], "itemStyle": {"color": MARK}, **_own(1)}]


def _own(side: int) -> dict[str, Any]:
    return {"xAxisIndex": side, "yAxisIndex": side, "silent": True, "tooltip": {"show": False}}


def _at(rows: pd.DataFrame, side: int, ids: Sequence[int]) -> list[list[float]]:
    return rows.loc[rows["id"].isin(ids), [f"x{side}", f"y{side}"]].astype(float).to_numpy().tolist()


def _pairs(rows: pd.DataFrame, side: int, pairs: Sequence[Sequence[int]]) -> list[list[list[float]]]:
    """Returns the two ends of each pair whose samples are both shown."""
    place = dict(zip(rows["id"].tolist(), rows[[f"x{side}", f"y{side}"]].astype(float).to_numpy().tolist(), strict=True))
    return [[place[a], place[b]] for a, b in pairs if a in place and b in place]


def _lines(ends: Sequence[Sequence[Sequence[float]]], side: int, kind: str, width: float) -> dict[str, Any]:
    # A dash is no place: it ends one line, so that the next begins anew.
    path = [point for pair in ends for point in (*pair, ["-", "-"])]
    return {"type": "line", "symbol": "none", "data": path, "lineStyle": {"color": MARK, "width": width, "opacity": 0.7, "type": kind}, **_own(side)}


# --- the chart --------------------------------------------------------------------------------------------------------


def pair_of_maps(
    rows: pd.DataFrame,
    colours: Sequence[str],
    *,
    by_kept: bool = False,
    order: Sequence[str] = (),
    marks: Sequence[Mapping[str, Any]] = (),
    pictures: str = "",
    titles: Sequence[str] = ("Before", "After"),
) -> dict[str, Any]:
    """Returns the ECharts option of both maps in one chart.

    Args:
        rows: From `map_rows`.
        colours: The theme's categorical colours.
        by_kept: Colour by the share of neighbours kept, on a scale that is always 0 to 1, instead of by group.
        order: Groups in the order of the key, where it has one; else by name.
        marks: Series over the points, from `sample_marks` and its kin.
        pictures: Address of the folder with the samples' thumbnails, ``<id>.webp`` each, shown on hover; empty for none.
        titles: Of the two maps.
    """
    scale = _kept_scale() if by_kept else _group_scale(rows, colours, order)
    # Streamlit escapes what is inserted; the template itself is made of our own words and names that the registry knows.
    picture = f"<img src='{pictures}/{{@id}}.webp' width='64' height='64' alt=''/><br/>" if pictures else ""
    return {
        "animation": False,
        "dataset": {"source": rows},
        "title": [{"text": text, "left": left, "top": 48} for text, left in zip(titles, ("2%", "44%"), strict=True)],
        "grid": [{"left": "2%", "width": "39%", "top": 78, "bottom": 12}, {"left": "44%", "width": "39%", "top": 78, "bottom": 12}],
        "xAxis": [_axis(rows, "x", side) for side in (0, 1)],
        "yAxis": [_axis(rows, "y", side) for side in (0, 1)],
        "tooltip": {"trigger": "item", "formatter": picture + "<b>{@class}</b><br/>sample {@id}<br/>neighbours kept {@percent}"},
        "toolbox": {"left": 8, "top": 2, "feature": {"brush": {"type": ["polygon", "rect", "clear"]}, "saveAsImage": {"name": "maps", "pixelRatio": 2}}},
        "brush": {
            "toolbox": ["polygon", "rect", "clear"],
            "seriesIndex": [0, 1],
            "xAxisIndex": "all",
            "brushLink": [0, 1],
            "throttleType": "debounce",
            "outOfBrush": {"colorAlpha": 0.12},
        },
        "visualMap": scale,
        "series": [*(_points(side, len(rows)) for side in (0, 1)), *marks],
        "media": [_narrow(by_kept, has_key=scale.get("show", True))],
    }


def _axis(rows: pd.DataFrame, axis: str, side: int) -> dict[str, Any]:
    """Returns an axis without numbers, which mean nothing here, and with the same limits before and after."""
    values = rows[[f"{axis}0", f"{axis}1"]].to_numpy()
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low or 1.0)
    hidden = {name: {"show": False} for name in ("axisLabel", "axisTick", "splitLine")}
    return {"type": "value", "gridIndex": side, "min": low - margin, "max": high + margin, "axisLine": {"show": True, "onZero": False}, **hidden}


def _points(side: int, count: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": ("before", "after")[side],
        "progressive": 0,  # otherwise a lasso silently drops points of large sets
        "symbolSize": 8 if count <= 500 else 5,
        "xAxisIndex": side,
        "yAxisIndex": side,
        "encode": {"x": f"x{side}", "y": f"y{side}"},
        # Outlines tell points apart where they are few; thousands of them would make a lasso wait.
        "itemStyle": {"borderColor": "rgba(128,128,128,0.6)", "borderWidth": 0.5 if count <= 500 else 0},
        "selectedMode": "single",
        "select": {"itemStyle": {"borderColor": MARK, "borderWidth": 2}},
    }


def _group_scale(rows: pd.DataFrame, colours: Sequence[str], order: Sequence[str]) -> dict[str, Any]:
    """Returns what gives each group a colour and a shape of its own; the rest is small and grey."""
    present = list(dict.fromkeys(rows["group"]))
    rest = [name for name in present if name in (OTHER, ALL)]
    groups = [name for name in order if name in present] or sorted(name for name in present if name not in rest)
    colour = {name: colours[i % len(colours)] for i, name in enumerate(groups)} | dict.fromkeys(rest, GREY)
    symbol = {name: SYMBOLS[i % len(SYMBOLS)] for i, name in enumerate(groups)} | dict.fromkeys(rest, "circle")
    large, small = (11, 6) if len(rows) <= 500 else (8, 5)
    size = dict.fromkeys(groups, large) | dict.fromkeys(rest, small)
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
