"""What fine-tuning cost on the tasks that it did not train on."""

import streamlit as st

from robustft import pipeline, ui
from robustft.ui import forgetting

root = ui.frame("Forgetting", "What did it cost elsewhere?")
with ui.errors_as_boxes():
    views = [view for view in ui.finished(pipeline.get_runs(root)) if any(score.dataset != view.config.dataset for score in view.record.scores)]
    if not views:
        st.info("No finished runs with held-out tasks yet. Start one on Launch, or press “Run the demo study” on Home (no GPU needed).", icon=":material/info:")
        st.stop()
    choice = forgetting.ask(views)
    changes = choice.changes()
    forgetting.draw_changes(choice, changes)
    forgetting.draw_costs(choice, changes)
    forgetting.draw_heat(choice, changes)
    forgetting.draw_downstream(choice)
    forgetting.draw_foretelling(choice, root)
