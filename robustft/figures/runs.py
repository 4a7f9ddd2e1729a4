"""Charts of the Runs page: how a run trains, step by step."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..types import StepRecord

MOST_POINTS = 1000
"""Longer histories are drawn with evenly chosen steps, the first and the last always among them."""


def steps_table(history: Sequence[StepRecord]) -> pd.DataFrame:
    """Returns a run's steps as a table, one row each."""
    rows = [(r.step, r.loss, r.task_loss, r.reg_loss, r.lr, r.grad_norm, r.seconds) for r in history]
    return pd.DataFrame(rows, columns=["step", "total", "task", "regularizer", "learning rate", "gradient norm", "seconds"])


def last_good_step(history: Sequence[StepRecord]) -> int:
    """Returns the last step before a loss that is not finite, 0 if there is none.

    Example:
        >>> steps = [StepRecord(step, loss, loss, 0.0, 1e-3, 1.0, 0.1) for step, loss in enumerate((2.0, 1.5, float("nan")), start=1)]
        >>> last_good_step(steps), last_good_step([])
        (2, 0)
    """
    good = 0
    for record in history:
        if not np.isfinite(record.loss):
            break
        good = record.step
    return good


def thinned(table: pd.DataFrame) -> pd.DataFrame:
    """Returns at most `MOST_POINTS` evenly chosen rows."""
    if len(table) <= MOST_POINTS:
        return table
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, MOST_POINTS).astype(int))]


def loss_curves(table: pd.DataFrame) -> go.Figure:
    """Draws the total loss and its two terms over the steps; only the total where there is no regularizer.

    Each line has its own dash and marker beside its colour.
    """
    rows = thinned(table)
    has_regularizer = bool((rows["regularizer"] != 0).any())
    lines = [("total", "solid", "circle"), ("task", "dash", "square"), ("regularizer", "dot", "diamond")] if has_regularizer else [("task", "solid", "circle")]
    figure = go.Figure()
    for name, dash, symbol in lines:
        trace = go.Scatter(
            x=rows["step"],
            y=rows[name],
            name=name,
            mode="lines+markers" if len(rows) <= 40 else "lines",
            line={"dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 5},
            hovertemplate="step %{x}<br>" + name + " %{y:.4f}<extra></extra>",
        )
        figure.add_trace(trace)
    figure.update_xaxes(title="step (optimizer updates)", rangemode="tozero")
    figure.update_yaxes(title="loss (nats)", rangemode="tozero")
    figure.update_layout(
        height=320,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        showlegend=has_regularizer,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        uirevision="loss",
    )
    return figure


def step_health(table: pd.DataFrame) -> go.Figure:
    """Draws the norm of the gradient before clipping and the learning rate over the steps, one under the other."""
    rows = thinned(table)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.14)
    for row, (name, dash) in enumerate((("gradient norm", "solid"), ("learning rate", "dash")), start=1):
        hover = "step %{x}<br>" + name + " %{y:.3g}<extra></extra>"
        figure.add_trace(
            go.Scatter(x=rows["step"], y=rows[name], name=name, mode="lines", line={"dash": dash, "width": 2}, hovertemplate=hover), row=row, col=1
        )
    figure.update_xaxes(title="step (optimizer updates)", row=2, col=1)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(title="gradient norm", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="learning rate", rangemode="tozero", exponentformat="power", row=2, col=1)
    figure.update_layout(height=320, margin={"l": 10, "r": 10, "t": 30, "b": 10}, showlegend=False, uirevision="health")
    return figure
