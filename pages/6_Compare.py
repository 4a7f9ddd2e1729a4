"""Which regularizer wins: runs side by side."""

import pandas as pd
import streamlit as st

from robustft import pipeline, ui
from robustft.figures import compare, forgetting
from robustft.figures.tables import csv_text
from robustft.methods import METHODS
from robustft.study import COLUMNS, DRIFTS, comparison

PLANES = {"OOD": ("ID", "OOD", ("ID accuracy (%)", "OOD accuracy (%)")), "ZS": ("ID", "mean Delta_ZS", ("ID accuracy (%)", "mean Δ zero-shot (points)"))}
PARTS = {"loss": "objective", "task_loss": "task loss", "reg_loss": "regularizer"}


def formats(table: pd.DataFrame) -> dict:
    units = {title: f"%.{DRIFTS[title]}f" if title in DRIFTS else "%+.1f" if "Delta" in title else "%.1f" for title in COLUMNS.values()}
    units |= {f"sd of {title}": "%.1f" for title in compare.SPREADS}
    return {title: st.column_config.NumberColumn(title.replace("Delta_", "Δ "), format=units[title]) for title in table.columns if title in units}


root = ui.frame("Compare", "Which regularizer wins?")
with ui.errors_as_boxes():
    views = ui.finished(pipeline.get_runs(root))
    if not views:
        st.info("No finished runs yet. Start one on Launch, or press “Run the demo study” on Home (no GPU needed).", icon=":material/info:")
        st.stop()

    # --- ask
    tasks = list(dict.fromkeys(view.config.dataset for view in views))
    task = st.selectbox("Fine-tuned on", tasks, key="compare.task", help="Only runs on the same task can be compared.")
    same = [view for view in views if view.config.dataset == task]
    here = {view.run_id: view for view in sorted(same, key=lambda view: ([*METHODS, view.config.method].index(view.config.method), view.config.seed))}
    configs = {run_id: view.config for run_id, view in here.items()}
    names = forgetting.run_names(configs)
    chosen = st.multiselect("Runs", list(here), list(here), format_func=names.get, key=f"compare.runs.{task}")
    if not chosen:
        st.info("No run chosen. Choose two or more under “Runs”.", icon=":material/info:")
        st.stop()
    ticked = {run_id: configs[run_id] for run_id in chosen}

    # --- compute and draw
    runs = comparison([here[run_id] for run_id in chosen])
    means = compare.over_seeds(runs, ticked, names)
    st.subheader("Methods and measures")
    st.dataframe(means.drop(columns=["run", "task"]), hide_index=True, column_config=formats(means))
    st.caption(
        "Accuracies (ID, OOD, A_LP = linear probe on the fine-tuned task) and neighbours lost in percent, changes (Δ) in points; "
        "means over seeds. L2 drift and OTDD have no unit. "
        "Δ ZS and Δ LP: zero-shot and linear-probe accuracy on held-out tasks, after minus before; below zero is forgetting."
    )
    if means["seeds"].max() > 1:
        st.caption("sd: standard deviation over the seeds of a method. Methods whose means differ by less than about two of it are not told apart.")
    if means["seeds"].min() == 1:
        st.warning("1 seed: no ranking. Another seed can change the order; start more seeds on Launch before you call a winner.", icon=":material/casino:")
    tested = {score.n for run_id in chosen for score in here[run_id].record.scores if score.metric in ("id_accuracy", "ood_accuracy")}
    if tested:
        noise = forgetting.change_noise(0.5, 0.5, min(tested)) * 100
        st.caption(
            f"Sampling noise of the difference of two accuracies from {min(tested)} test images each: up to ± {noise:.1f} points. "
            "Runs that differ by less are not told apart by one seed."
        )
    with st.container(horizontal=True):
        st.download_button("Table as CSV", csv_text(means), f"compare-{task}.csv", "text/csv", key="compare.csv", icon=":material/download:")
        st.download_button("Single runs as CSV", csv_text(runs), f"runs-{task}.csv", "text/csv", key="compare.runs_csv", icon=":material/download:")

    for column, (key, (x, y, titles)) in zip(st.columns(2), PLANES.items(), strict=True):
        with column:
            st.subheader("ID against OOD" if key == "OOD" else "ID against zero-shot change")
            if means[[x, y]].dropna().empty:
                st.info("These runs did not measure both.", icon=":material/info:")
                continue
            st.plotly_chart(compare.trade_off(means, x, y, titles), key=f"compare.plane.{key}")
            st.caption(
                "How to read it: up and to the right is better. Full diamonds are on the Pareto front: "
                "as measured here, no other run shown is better in one measure and as good in the other."
            )
            with st.expander("Show as table"):
                front = set(compare.pareto_front(means[x].tolist(), means[y].tolist()))
                shown = (
                    means[["method", x, y]].assign(front=["yes" if i in front else "no" for i in range(len(means))]).rename(columns={"front": "Pareto front"})
                )
                st.dataframe(shown, hide_index=True, column_config=formats(shown))

    st.subheader("Loss curves")
    histories = {names[run_id]: history for run_id in chosen if (history := pipeline.get_history(run_id, root))}
    if histories:
        part = st.segmented_control("Part", list(PARTS), default="task_loss", format_func=PARTS.get, key="compare.part", required=True)
        st.plotly_chart(compare.loss_curves(histories, part), key="compare.loss")
        st.caption(
            "How to read it: loss of each training batch. The task loss can be compared between methods; "
            "objective and regularizer are on each method's own scale."
        )
        with st.expander("Show as table"):
            curves = {name: pd.Series({record.step: getattr(record, part) for record in history}) for name, history in histories.items()}
            st.dataframe(pd.DataFrame(curves).rename_axis("step"))
    else:
        st.info("None of these runs trained by steps, so there is no loss curve.", icon=":material/info:")

    st.subheader("What differs in their settings")
    differing = compare.differing_options(ticked, names)
    if differing.empty:
        st.info("No setting differs. Choose two or more runs.", icon=":material/info:")
    else:
        st.dataframe(differing, hide_index=True)
        st.caption("Only settings in which the chosen runs differ; – means that a run has no such setting.")
