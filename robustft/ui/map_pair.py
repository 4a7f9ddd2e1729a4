"""The linked pair of maps on a page: colours, lasso, lines, and the wait for a UMAP."""

from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
import pandas as pd
import streamlit as st

from .. import pipeline
from ..figures import maps
from ..figures.neighborhoods import default_highlight, neighbor_fates
from ..graph import edges
from ..neighborhoods import maps_stamp
from ..samples import OUTCOMES
from . import looking
from .looking import Look
from .words import errors_as_boxes, plain, without_paths

COLOURS = ("class", "neighbours kept", "correctness", "domain", "nothing")
LINES = ("none", "neighbours", "movement")


def draw(look: Look) -> None:
    """Draws controls and maps; what is clicked or lassoed goes to the session and the URL."""
    colour, groups, shown = _ask(look)
    rows = maps.map_rows(look.names, look.kept, look.hood.maps.before, look.hood.maps.after, groups)
    rows = rows[rows["class"].isin(shown)].reset_index(drop=True) if shown else rows
    if rows.empty:
        st.info("No sample is of the chosen classes. Take the class filter away.", icon=":material/filter_alt:")
        return
    key = f"maps.{look.key}.{'|'.join(shown)}.{st.session_state.get('maps.round', 0)}"
    order = OUTCOMES if colour == "correctness" else ()
    option = maps.pair_of_maps(
        rows, _palette(), by_kept=colour == "neighbours kept", order=order, marks=_marks(look, rows, key), pictures=_pictures(look), titles=_titles(look)
    )
    words = f"Two maps of {len(rows)} samples, before and after fine-tuning. The table below holds the same."
    st.echarts_chart(option, key=key, on_select=lambda: _take_up(look, rows, key), height=480, alt=words)
    st.caption(_caption(look, len(rows)))
    if look.hood.maps.kind != "UMAP" and not pipeline.is_read_only():
        _wait(look)


def _ask(look: Look) -> tuple[str, Sequence[str], list[str]]:
    """Draws the controls; returns what colours the points, the group of each sample, and the classes shown (none: all)."""
    groupings = look.groupings()
    colours = [name for name in COLOURS if name not in ("correctness", "domain") or name in groupings]
    left, right = st.columns([1.6, 1])
    colour = left.segmented_control("Colour by", colours, default="class", key="colour", bind="query-params") or "nothing"
    about = "Of the selection: which of them are neighbours, or where each was before."
    right.segmented_control("Lines", LINES, default="none", key="lines", bind="query-params", required=True, help=about)
    left, right = st.columns([2, 1])
    names = sorted(set(look.names))
    shown = right.multiselect("Show only classes", names, key=f"maps.shown.{look.task}", placeholder="all classes", help="Type to search.")
    groups: Sequence[str] = groupings.get(colour, [maps.ALL] * len(look.names))
    if colour == "class":
        about = "These are coloured, all others grey. At first: the classes that kept fewest neighbours. Type to search."
        first = default_highlight(look.data, look.kept)
        chosen = left.multiselect("Highlight classes", names, first, max_selections=12, key=f"maps.classes.{look.key}", help=about)
        groups = maps.highlighted(look.names, chosen or [""])  # none chosen: all are other classes
    return colour, groups, shown


def _palette() -> Sequence[str]:
    return st.get_option(f"theme.{st.context.theme.type or 'light'}.chartCategoricalColors")


def _titles(look: Look) -> tuple[str, str]:
    return "Before", f"After ({look.moment})" if look.moment else "After"


def _pictures(look: Look) -> str:
    """Returns the address of the thumbnails, relative to the page: the server may stand behind a prefix."""
    return f"thumb/{quote(look.task)}/{quote(look.domain)}"


def _marks(look: Look, rows: pd.DataFrame, key: str) -> list[dict]:
    """Returns what is drawn over the points: the selection where no lasso shows it, the sample, and the lines that were asked for."""
    chosen, sample, lines = looking.selection(look), st.session_state.get("sample"), st.session_state.get("lines")
    has_lasso = bool((st.session_state.get(key) or {}).get("selection", {}).get("areas"))
    marks = [] if has_lasso or not chosen else maps.selection_marks(rows, chosen)
    if lines == "movement" and chosen:
        marks += maps.movement_lines(rows, chosen)
    if lines == "neighbours" and chosen:
        marks += maps.edge_lines(rows, [_edges_among(graph, chosen) for graph in (look.hood.graph_0, look.hood.graph_1)])
    if sample is not None and 0 <= sample < len(look.data):
        marks += maps.sample_marks(rows, sample, neighbor_fates(look.hood.graph_0, look.hood.graph_1, sample))
    return marks


def _edges_among(graph, chosen: Sequence[int]) -> np.ndarray:
    pairs = edges(graph)
    return pairs[np.isin(pairs, list(chosen)).all(1)]


def _take_up(look: Look, rows: pd.DataFrame, key: str) -> None:
    """Makes a clicked point the sample, and what a lasso holds the selection."""
    found = st.session_state[key]["selection"]
    picked, seen = maps.newly_picked(found["selected"], st.session_state.get("maps.seen", []))
    st.session_state["maps.seen"] = seen
    if found["areas"]:
        points = {int(row) for group in found["selected"] for row in group["data_indices"] if row < len(rows)}
        looking.select([int(rows["id"].iloc[row]) for row in points], look)
        st.session_state["maps.lassoed"] = True
    elif picked is not None and picked < len(rows):
        st.session_state["sample"] = int(rows["id"].iloc[picked])
    elif st.session_state.pop("maps.lassoed", False):
        looking.select([], look)


def clear(look: Look) -> None:
    """Takes the selection away, and with it the lasso on the screen: only a new chart forgets one."""
    looking.select([], look)
    st.session_state["maps.round"] = st.session_state.get("maps.round", 0) + 1


def _caption(look: Look, shown: int) -> str:
    """Says what a map is, of how many, how far it errs, and what must not be read out of it."""
    pair = look.hood.maps
    return (
        f"2-D picture ({pair.kind}) of {shown} of {len(look.data)} test samples of {plain(look.task)} ({plain(look.domain)}); "
        "the second map is turned onto the first. "
        f"Before / after, it keeps {pair.shown[0] * 100:.0f} % / {pair.shown[1] * 100:.0f} % of each sample's true 10 neighbours; "
        f"trustworthiness {pair.trustworthiness[0]:.3f} / {pair.trustworthiness[1]:.3f} (1 is perfect). "
        "Distances between clusters mean nothing. All numbers on this page come from the full features, not from this picture. "
        "How to read it: samples that lie together look alike to the model. Click a point for its neighbours: solid lines lead to kept ones, dashed "
        "lines to lost (left) or gained (right) ones. With the lasso, what you mark on one side lights up on the other; a double-click clears it."
    )


@st.fragment(run_every=3)
def _wait(look: Look) -> None:
    """Asks for the UMAPs, once, says how it stands, and draws the page again when they are there."""
    run_id, task, domain, root, moment = look.place
    if maps_stamp(run_id, task, domain, root, moment) > look.stamp:
        st.rerun()
    with errors_as_boxes():
        state, words = pipeline.maps_state(*look.place)
        if state == "failed":
            why = plain(without_paths(words, root))
            st.warning(f"There is no UMAP of these samples, so this is the PCA picture. {why}", icon=":material/error:")
            if st.button("Draw again", key="neighborhoods.umap", icon=":material/refresh:", help="Asks for the UMAP once more."):
                pipeline.request_maps(*look.place)
                st.rerun()
            return
        pipeline.request_maps(*look.place)  # at every look: it changes nothing but to start the process anew where it was killed
        words = pipeline.maps_state(*look.place)[1]
        st.info(f"This is the PCA picture. The UMAP is drawn in the background and appears here by itself. {words}", icon=":material/schedule:")
