"""Which regularizer wins: runs side by side."""

import streamlit as st

from robustft import pipeline, side_by_side, ui
from robustft.figures import forgetting
from robustft.report_panels import ABOUT_SEEDS, ABOUT_TABLE
from robustft.ui import comparing

root = ui.frame("Compare", "Which regularizer wins?")
with ui.errors_as_boxes():
    views = ui.finished(pipeline.get_runs(root))
    if not views:
        st.info("No finished runs yet. Start one on Launch, or press “Run the demo study” on Home (no GPU needed).", icon=":material/info:")
        st.stop()

    # --- ask
    task = comparing.ask_task(views)
    here = comparing.in_order(views, task)
    names = forgetting.run_names({run_id: view.config for run_id, view in here.items()})
    chosen = comparing.ask_runs(here, names, task)
    if not chosen:
        st.info("No run chosen. Choose two or more under “Runs”.", icon=":material/info:")
        st.stop()
    picked = comparing.ask_picked(chosen)

    # --- compute and draw
    side = side_by_side.read([here[run_id] for run_id in here if run_id in chosen], names, root)
    seeds = side.means["seeds"]
    st.subheader("Which method forgot least?")
    for metric, kind in forgetting.MEASURES.items():
        st.markdown(f"**{kind.capitalize()}.** {ui.plain(side.verdict(metric))}")
    if seeds.min() == 1:
        st.warning("1 seed: no ranking. Another seed can change the order; start more seeds on Launch before you call a winner.", icon=":material/casino:")

    st.subheader("Methods and measures")
    comparing.draw_table(side, picked)
    st.caption(f"{ABOUT_TABLE} {ABOUT_SEEDS if seeds.max() > 1 else ''}")
    tested = {score.n for view in side.views for score in view.record.scores if score.metric in ("id_accuracy", "ood_accuracy")}
    if tested:
        noise = forgetting.change_noise(0.5, 0.5, min(tested)) * 100
        st.caption(
            f"Sampling noise of the difference of two accuracies from {min(tested)} test images each: up to ± {noise:.1f} points. "
            "Runs that differ by less are not told apart by one seed."
        )
    comparing.draw_picked(side)
    comparing.draw_planes(side, picked)

    loss, drift = st.columns(2)
    with loss:
        st.subheader("Loss curves")
        comparing.draw_loss(side, picked)
    with drift:
        st.subheader("Drift curves")
        comparing.draw_kept(side, picked)

    if not ui.is_presenting():
        st.subheader("What differs in their settings")
        comparing.draw_differences(side)
    st.subheader("Report")
    comparing.draw_report(side, picked)
