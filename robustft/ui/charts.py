"""Charts and tables on pages: every chart says how to read it, has a table twin, and can be taken along."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from pandas.io.formats.style import Styler

from ..figures.tables import csv_text


def chart(
    figure: go.Figure,
    key: str,
    *,
    read: str,
    twin: pd.DataFrame | None = None,
    formats: Mapping[str, str] | None = None,
    on_select: Callable[[], None] | None = None,
) -> None:
    """Draws a Plotly chart, one line on how to read it, and the same numbers as a table.

    Args:
        figure: What to draw. Its camera saves it as the kind of picture that is chosen in the sidebar.
        key: Names the chart, its files and its selection in the session state.
        read: How to read it, for somebody who sees such a chart for the first time.
        twin: Its numbers; None if they stand in a table beside it.
        formats: Number format by column of the twin, as ``"%+.1f"``.
        on_select: Called when a mark is clicked; the selection is ``st.session_state[key]``, read item by item.
    """
    camera = {"format": st.session_state.get("picture") or "png", "filename": key.replace(".", "-"), "scale": 2}
    options: dict[str, Any] = {"on_select": on_select, "selection_mode": "points"} if on_select else {}
    st.plotly_chart(figure, key=key, config={"displaylogo": False, "toImageButtonOptions": camera}, **options)
    st.caption(f"How to read it: {read}")
    if twin is not None:
        with st.expander("Show as table"):
            table(twin, key, formats=formats)


def table(
    rows: pd.DataFrame,
    key: str,
    *,
    formats: Mapping[str, str] | None = None,
    words: pd.DataFrame | None = None,
    hidden: Sequence[str] = (),
    selected: int | None = None,
    on_select: Callable[[int | None], None] | None = None,
) -> None:
    """Draws a table with a button that saves it as CSV.

    Args:
        rows: One row a line.
        key: Names the file and the button.
        formats: Number format by column, as ``"%+.1f"``.
        words: What cells say instead of their numbers, by the same rows and any of the columns; the numbers still sort, and
            are what the CSV holds.
        hidden: Columns that are in the CSV only.
        selected: Row that is chosen now, counted from 0.
        on_select: Called with the row that a click chose, or None if it took the choice back.
    """
    visible = rows.drop(columns=list(hidden))
    shown = {title: st.column_config.NumberColumn(format=form) for title, form in (formats or {}).items() if title in visible.columns}
    options: dict[str, Any] = {}
    if on_select:
        own = f"{key}.rows.{selected}"  # another choice from elsewhere makes another table, or the old one would still show its own
        default = {"selection": {"rows": [] if selected is None else [selected], "columns": [], "cells": []}}
        options = {"key": own, "on_select": lambda: on_select(_first_row(own)), "selection_mode": "single-row", "selection_default": default}
    data = visible if words is None else _saying(visible, words)
    st.dataframe(data, hide_index=True, column_config=shown, placeholder="–", **options)
    name = key.replace(".", "-")
    st.download_button("CSV", lambda: csv_text(rows), f"{name}.csv", "text/csv", key=f"{key}.csv", icon=":material/download:", on_click="ignore")


def _first_row(key: str) -> int | None:
    return next(iter(st.session_state[key]["selection"]["rows"]), None)


def _saying(rows: pd.DataFrame, words: pd.DataFrame) -> Styler:
    """Returns a table whose cells show words in place of their numbers."""
    style = rows.style
    for title in words.columns:
        if title in rows.columns:
            for index, word in zip(rows.index, words[title], strict=True):
                style = style.format(lambda _, word=word: str(word), subset=(index, title))
    return style
