"""Whose neighbours were kept: a sample's neighbours before and after, classes, and how many samples kept how many."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..types import Dataset, KnnGraph
from .maps import GREY, MARK

COLOURED = 10
"""Classes that a map tells apart at once; with more of them no eye can."""
KEPT = "neighbours kept (%)"


def class_table(data: Dataset, kept: np.ndarray, shares: Mapping[str, np.ndarray] | None = None) -> pd.DataFrame:
    """Returns classes with the percentage of neighbours that their samples kept, fewest first.

    ``±`` is 1.96 standard errors over the samples of the class: rough where they are few.

    Args:
        data: The samples.
        kept: Each sample's share of neighbours kept.
        shares: More shares of each sample, by the title under which their class means stand, in percent.
    """
    rows = pd.DataFrame({"class": np.asarray(data.class_names, dtype=object)[np.asarray(data.labels)], "kept": kept * 100})
    table = rows.groupby("class", sort=True)["kept"].agg(["mean", lambda values: 1.96 * values.sem(), "count"])
    table.columns = pd.Index([KEPT, "±", "samples"])
    for title, share in (shares or {}).items():
        table[title] = rows.assign(share=share * 100).groupby("class")["share"].mean()
    return table.reset_index().sort_values(KEPT, kind="stable").reset_index(drop=True)


def default_highlight(data: Dataset, kept: np.ndarray) -> list[str]:
    """Returns the classes to colour first: all of them if an eye can tell them apart, else the 8 that kept fewest."""
    names = class_table(data, kept)["class"].tolist()
    return names if len(names) <= COLOURED else names[:8]


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
