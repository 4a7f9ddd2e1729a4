"""All samples and their classes on a page: how many neighbours were kept, which class moved most, and where its neighbours went."""

import numpy as np
import pandas as pd
import streamlit as st

from ..crossings import class_mixing, class_moves
from ..figures.neighborhoods import KEPT, class_table, kept_histogram
from ..intervals import bootstrap_mean
from .charts import chart, table
from .looking import Look
from .words import plain

NOISE = "noise alone keeps (%)"
OWN = ("own class before (%)", "own class after (%)")


def draw(look: Look) -> None:
    """The histogram with its noise band, the sentence on the class that moved most, and the table of classes."""
    _draw_histogram(look)
    st.subheader("By class")
    classes = classes_of(look)
    st.markdown(said_of_classes(classes))
    numbers = {title: "%.0f" for title in (KEPT, "±", NOISE, *OWN)} | {"nearer by (points)": "%+.0f", "away by (points)": "%+.0f"}
    table(classes, "classes", formats=numbers)
    st.caption(
        "How to read it: classes that kept fewest neighbours first; ± is 1.96 standard errors over a class's samples "
        f"({classes['samples'].min()} or more), one seed. Own class: the share of the {look.k} neighbours that are of the sample's class. "
        "Nearer to, away from: the other class whose share among its neighbours rose or fell most. "
        f"All samples: own class {look.hood.purity_0.mean() * 100:.0f} % before, {look.hood.purity_1.mean() * 100:.0f} % after."
    )


def classes_of(look: Look) -> pd.DataFrame:
    """Returns a row a class: neighbours kept, what noise alone keeps, own class before and after, and where its neighbours went."""
    hood, labels, names = look.hood, np.asarray(look.data.labels), look.data.class_names
    shares = ({NOISE: hood.floor} if hood.floor is not None else {}) | dict(zip(OWN, (hood.purity_0, hood.purity_1), strict=True))
    before, after = (class_mixing(graph, labels, len(names)) for graph in (hood.graph_0, hood.graph_1))
    return class_table(look.data, look.kept, shares).merge(class_moves(before, after, names), on="class", how="left")


def said_of_classes(classes: pd.DataFrame) -> str:
    """Says which class moved most, whether that is beyond noise, and where its neighbours went.

    Example:
        >>> row = {"class": "tea", KEPT: 20.0, "±": 5.0, NOISE: 70.0, "nearer to": "pie", "nearer by (points)": 9.0}
        >>> for sentence in said_of_classes(pd.DataFrame([row | {"away from": "–", "away by (points)": 0.0}])).split(". "):
        ...     print(sentence)
        **tea** moved most: it kept 20 % (± 5) of its neighbours; noise alone keeps 70 %, so it moved beyond noise
        More of its neighbours are now **pie** (+9 points).
    """
    first = classes.iloc[0]
    words = f"**{plain(first['class'])}** moved most: it kept {first[KEPT]:.0f} % (± {np.nan_to_num(first['±']):.0f}) of its neighbours"
    if NOISE in classes:
        is_beyond = first[KEPT] + np.nan_to_num(first["±"]) < first[NOISE]
        words += f"; noise alone keeps {first[NOISE]:.0f} %, so {'it moved beyond noise' if is_beyond else 'that is not told apart from noise'}"
    words += "."
    went = [
        f"{lead} **{plain(first[name])}** ({first[size]:+.0f} points)"
        for lead, name, size in (("more of its neighbours are now", "nearer to", "nearer by (points)"), ("fewer are", "away from", "away by (points)"))
        if abs(first[size]) >= 0.5
    ]
    said = ", ".join(went)
    return words + (f" {said[0].upper()}{said[1:]}." if said else "")


def _draw_histogram(look: Look) -> None:
    st.subheader("Neighbours kept")
    kept, floor = look.kept, None if look.hood.floor is None else bootstrap_mean(look.hood.floor)
    low, high = bootstrap_mean(kept)
    noise = ""
    if floor is not None:
        noise = (
            f"**Noise alone** keeps {floor[0] * 100:.0f} to {floor[1] * 100:.0f} % (the band): what two slightly different crops of the same images "
            "have in common under the foundation model. A mean inside the band has moved no more than that. "
        )
    counts = pd.Series(kept * 100).round(1).value_counts().sort_index().rename_axis(KEPT).reset_index(name="samples")
    words = (
        f"each sample counts once: how many of its {look.k} nearest neighbours before are still among the {look.k} nearest after; on average "
        f"{kept.mean() * 100:.0f} % (95 % interval {low * 100:.0f} to {high * 100:.0f} %). {noise}"
        f"To the right: little moved. By chance alone it would be {look.k / max(1, len(look.data) - 1) * 100:.0f} %."
    )
    chart(kept_histogram(kept, look.k, floor), "kept", read=words, twin=counts)
