"""Where a chosen alpha leads: its pair of maps, and its model to take home."""

import math
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitAPIException

from .. import pipeline, take_home
from ..figures import maps
from ..moments import get_moments
from ..neighborhoods import Neighborhood, maps_stamp, measured_tasks
from ..pipeline import RunView
from ..types import UserError
from .cached import read_neighborhood
from .frame import is_presenting
from .words import plain, size, words_of

NEIGHBORS = 10
MOST_POINTS = 1000
"""Samples that the map beside the slider draws."""


def draw_map(view: RunView, alpha: float, root: Path) -> None:
    """Draws the pair of maps at the stored moment nearest to an alpha; alpha 1 is the end of training itself."""
    st.subheader("Map at this alpha")
    task, moment = view.config.dataset, nearest_moment(alpha, [row["moment"] for row in get_moments(view.run_id, root)])
    domain = measured_tasks(view.config)[task][0]
    place = (view.run_id, task, domain)
    _ask_for_maps(view, root)
    try:
        hood = read_neighborhood(*place, NEIGHBORS, moment, maps_stamp(*place, root, moment), root)
    except UserError as error:
        st.caption(plain(words_of(error)))
        return
    rows = _thinned(hood)
    option = maps.pair_of_maps(rows, (), by_kept=True, pictures=f"thumb/{quote(task)}/{quote(domain)}", titles=("Before", f"At {moment or 'alpha 1'}"))
    option = {name: part for name, part in option.items() if name not in ("brush", "toolbox")}
    st.echarts_chart(option, key="wise.map", height=360, alt=f"Two maps of {len(rows)} samples, at the start and at this alpha.")
    st.caption(
        f"How to read it: each mark is one of {len(rows)} of {len(hood.data)} test images of {plain(task)} ({plain(domain)}); bright ones kept their ten "
        f"neighbours. All kept {hood.kept.mean() * 100:.0f} %. 2-D picture ({hood.maps.kind}); distances between clusters mean nothing."
        + (" At alpha 0 nothing has moved yet, so this is the nearest alpha with a map of its own." if alpha == 0 else "")
    )
    _link(view, moment)


def _thinned(hood: Neighborhood) -> pd.DataFrame:
    """Returns the rows of the map, evenly thinned where there are many: a slider should not wait for them."""
    names = [hood.data.class_names[int(label)] for label in hood.data.labels]
    rows = maps.map_rows(names, hood.kept, hood.maps.before, hood.maps.after, [maps.ALL] * len(names))
    return rows.iloc[:: math.ceil(len(rows) / MOST_POINTS)].reset_index(drop=True)


def _ask_for_maps(view: RunView, root: Path) -> None:
    """Asks for the UMAPs of all alphas, once in a session: they appear as they are drawn, and PCA stands in until then."""
    asked = st.session_state.setdefault("wise.asked", set())
    if view.run_id in asked or pipeline.is_read_only():
        return
    asked.add(view.run_id)
    task = view.config.dataset
    place = (view.run_id, task, measured_tasks(view.config)[task][0], root)
    for row in get_moments(view.run_id, root):
        if row["moment"].startswith("alpha ") and not maps_stamp(*place, row["moment"]):
            pipeline.request_maps(*place, row["moment"])


def _link(view: RunView, moment: str) -> None:
    query = {"run": view.run_id, **({"moment": moment} if moment else {})}
    try:
        st.page_link("pages/3_Neighborhoods.py", label="Look closer on Neighborhoods", icon=":material/hub:", query_params=query)
    except StreamlitAPIException:  # a test runs this page alone
        st.markdown("Look closer on Neighborhoods")


def nearest_moment(alpha: float, moments: Sequence[str]) -> str:
    """Returns the moment of a run nearest to an alpha, empty for the end of training.

    Example:
        >>> nearest_moment(0.3, ["step 30", "alpha 0.1", "alpha 0.4"]), nearest_moment(1, ["alpha 0.9"])
        ('alpha 0.4', '')
    """
    stored = {float(moment.split()[1]): moment for moment in moments if moment.startswith("alpha ")} | {1.0: ""}
    return stored[min(stored, key=lambda value: abs(value - alpha))]


def draw_download(view: RunView, alpha: float, root: Path) -> None:
    """Makes the model at an alpha into a zip, then hands it out: it takes some seconds, and most who look want none."""
    st.subheader("Download the model at alpha")
    if not take_home.has_weights(view.run_id, root):
        st.caption("The weights of this run are not here, so the model cannot be downloaded; start the same run on Launch to have them.")
        return
    spot, path = st.empty(), take_home.stored_zip(view.run_id, alpha, root)
    if path is None and spot.button(f"Prepare alpha {alpha:g}", key="wise.prepare", icon=":material/inventory_2:"):
        with spot, st.spinner("Writing the model, about 10 seconds for a small one ...", show_time=True):
            path = take_home.model_zip(view.run_id, alpha, root)
    if path is not None:
        words = f"Download alpha {alpha:g} ({size(path.stat().st_size)})"
        spot.download_button(
            words, path.read_bytes, path.name, "application/zip", key="wise.download", icon=":material/download:", type="primary", on_click="ignore"
        )
    st.caption('One zip. Unpacked, `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads it; its head stands beside it as safetensors.')
    if not is_presenting():
        st.code(f"python -m robustft interpolate {view.run_id} --alpha {alpha:g} --out wise-{view.run_id}-{alpha:g}", language=None, wrap_lines=True)
