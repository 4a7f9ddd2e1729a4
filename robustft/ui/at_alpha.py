"""Where a chosen alpha leads: its pair of maps, and its model to take home."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAPIException

from .. import take_home
from ..moments import get_moments
from ..pipeline import RunView
from .frame import is_presenting
from .words import size


def draw_map(view: RunView, alpha: float, root: Path) -> None:
    """Leads to the pair of maps at the stored moment nearest to an alpha; alpha 1 is the end of training itself."""
    st.subheader("Map at this alpha")
    moment = nearest_moment(alpha, [row["moment"] for row in get_moments(view.run_id, root)])
    words = f"before and at {moment}" if moment else "before and after fine-tuning"
    query = {"run": view.run_id, **({"moment": moment} if moment else {})}
    try:
        st.page_link("pages/3_Neighborhoods.py", label=f"Maps {words}", icon=":material/hub:", query_params=query)
    except StreamlitAPIException:  # a test runs this page alone
        st.markdown(f"Maps {words}")
    if alpha < 1 and not moment:
        st.caption("This run kept no features nearer to this alpha than the end of its training.")
    elif alpha == 0:
        st.caption("At alpha 0 nothing has moved yet, so this is the nearest alpha with a map of its own.")


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
