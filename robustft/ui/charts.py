"""Charts and tables on pages: every chart says how to read it, has a table twin, and can be taken along."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

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


def table(rows: pd.DataFrame, key: str, *, formats: Mapping[str, str] | None = None) -> None:
    """Draws a table with a button that saves it as CSV.

    Args:
        rows: One row a line.
        key: Names the file and the button.
        formats: Number format by column, as ``"%+.1f"``.
    """
    shown = {title: st.column_config.NumberColumn(format=form) for title, form in (formats or {}).items() if title in rows.columns}
    st.dataframe(rows, hide_index=True, column_config=shown, placeholder="–")
    name = key.replace(".", "-")
    st.download_button("CSV", lambda: csv_text(rows), f"{name}.csv", "text/csv", key=f"{key}.csv", icon=":material/download:", on_click="ignore")
