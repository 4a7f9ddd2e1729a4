"""How far from zero-shot: accuracy and change of the models between the start and the fine-tuned one."""

import streamlit as st

from robustft import ui
from robustft.ui import wise

root = ui.frame("WiSE-FT", "How far from zero-shot shall I go?")
with ui.errors_as_boxes():
    view = ui.pick_run(root)
    if view is None:
        st.stop()
    shown = wise.read(view, root)
    if shown is None:
        st.stop()
    st.caption(wise.RULE)
    wise.explore(shown)
    wise.draw_tables(shown)
    wise.draw_about(shown)
    wise.draw_best(shown)
