"""What moved in feature space: maps before and after, and the neighbours of a sample kept, lost and gained."""

import streamlit as st

from robustft import ui
from robustft.ui import class_moves, inspector, looking, map_pair


@st.fragment
def explore(look: looking.Look) -> None:
    """Maps, selection and sample: what a lasso or a click draws again; the rest of the page stays."""
    with ui.errors_as_boxes():
        maps = st.container()
        with st.container():
            inspector.draw(look)
        with maps:
            map_pair.draw(look)
        inspector.draw_most_changed(look)


root = ui.frame("Neighborhoods", "What moved in feature space?")
with ui.errors_as_boxes():
    look = looking.choose(root)
    if look is None:
        st.stop()
    if looking.is_unmoved(look.view.config):
        st.info("This run does not train the image tower: before and after are the same features, so every neighbour is kept.", icon=":material/info:")
    explore(look)
    class_moves.draw(look)
