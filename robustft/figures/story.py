"""Charts that only the guided story shows."""

import pandas as pd
import plotly.graph_objects as go


def knowledge_bars(table: pd.DataFrame) -> go.Figure:
    """Returns what the foundation model knew of each task, best first.

    Args:
        table: Columns task, accuracy (%) and ±.
    """
    rows = table.sort_values("accuracy (%)", ascending=False, kind="stable")
    noise = {"type": "data", "array": rows["±"], "thickness": 1, "width": 2, "color": "#8A9694"}
    words = "%{y}: %{x:.0f} ± %{customdata:.1f} %<extra></extra>"
    bars = go.Bar(y=rows["task"], x=rows["accuracy (%)"], customdata=rows["±"], orientation="h", error_x=noise, hovertemplate=words)
    figure = go.Figure(bars)
    figure.update_layout(height=110 + 26 * len(rows), margin={"t": 10, "b": 10, "l": 10, "r": 10}, showlegend=False)
    figure.update_xaxes(title_text="zero-shot accuracy (%)", range=[0, 100])
    figure.update_yaxes(title_text="task", autorange="reversed", type="category")
    return figure
