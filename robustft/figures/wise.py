"""The WiSE-FT curve: accuracy and zero-shot change between the start and the fine-tuned model."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

NAMES = {"id_accuracy": "ID accuracy", "ood_accuracy": "OOD accuracy", "mean_delta_zs": "mean Δ zero-shot (held-out tasks)"}


def wise_curves(table: pd.DataFrame, alpha: float, measures: Sequence[str]) -> go.Figure:
    """Returns accuracies (above) and zero-shot change (below) against alpha, the chosen alpha marked in every curve.

    Args:
        table: From `alphas.wise_table`.
        alpha: The chosen alpha.
        measures: Which of ``id_accuracy``, ``ood_accuracy`` and ``mean_delta_zs`` the run has.
    """
    has_change = "mean_delta_zs" in measures
    figure = make_subplots(rows=2 if has_change else 1, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.6, 0.4] if has_change else None)
    looks = {"id_accuracy": ("circle", "solid"), "ood_accuracy": ("square", "dash"), "mean_delta_zs": ("diamond", "dot")}
    for name in measures:
        symbol, dash = looks[name]
        unit = "points" if name == "mean_delta_zs" else "%"
        size = [15 if row == alpha else 7 for row in table["alpha"]]
        marker = {"symbol": symbol, "size": size}
        shown = f"alpha %{{x:.1f}}: %{{y:.1f}} {unit}<extra>{NAMES[name]}</extra>"
        line = go.Scatter(x=table["alpha"], y=table[name], name=NAMES[name], mode="lines+markers", marker=marker, line_dash=dash, hovertemplate=shown)
        figure.add_trace(line, row=2 if name == "mean_delta_zs" else 1, col=1)
    figure.add_vline(x=alpha, line_dash="dot", line_width=1, line_color="#8A9694")
    figure.update_yaxes(title_text="accuracy (%)", row=1, col=1)
    if has_change:
        figure.add_hline(y=0, line_width=1, line_color="#8A9694", row=2, col=1)
        figure.update_yaxes(title_text="change (points)", row=2, col=1)
    figure.update_xaxes(title_text="alpha (0 = start, 1 = fine-tuned)", row=2 if has_change else 1, col=1)
    figure.update_layout(height=480, margin={"t": 10, "b": 10, "l": 10, "r": 10}, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return figure


def wise_plane(table: pd.DataFrame, alpha: float) -> go.Figure:
    """Returns the curve from start to fine-tuned model in the plane of ID and OOD accuracy, both ends and the chosen point named."""
    first, last = table["alpha"].iloc[0], table["alpha"].iloc[-1]
    words = {first: f"α = {first:g}", last: f"α = {last:g}", alpha: f"<b>α = {alpha:g}</b>"}
    chosen = table["alpha"] == alpha
    figure = go.Figure(
        go.Scatter(
            x=table["id_accuracy"],
            y=table["ood_accuracy"],
            mode="lines+markers+text",
            text=[words.get(row, "") for row in table["alpha"]],
            textposition=["bottom center" if here and row not in (first, last) else "top center" for row, here in zip(table["alpha"], chosen, strict=True)],
            customdata=table["alpha"],
            marker={"size": [16 if here else 7 for here in chosen], "symbol": ["star" if here else "circle" for here in chosen]},
            hovertemplate="alpha %{customdata:.1f}: ID %{x:.1f} %, OOD %{y:.1f} %<extra></extra>",
        )
    )
    figure.update_layout(height=480, margin={"t": 10, "b": 10, "l": 10, "r": 10}, showlegend=False)
    figure.update_xaxes(title_text="ID accuracy (%)", range=_wide(table["id_accuracy"]))
    figure.update_yaxes(title_text="OOD accuracy (%)", range=_wide(table["ood_accuracy"]))
    return figure


def _wide(values: pd.Series) -> list[float]:
    """Returns limits with room for the words at the ends; never so narrow that noise looks like a trend."""
    middle, half = (values.max() + values.min()) / 2, max(values.max() - values.min(), 4.0) * 0.62
    return [float(middle - half), float(middle + half)]
