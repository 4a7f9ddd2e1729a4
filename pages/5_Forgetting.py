"""What fine-tuning cost on the tasks that it did not train on."""

import streamlit as st

from robustft import foretelling, pipeline, ui
from robustft.figures import forgetting
from robustft.methods import METHODS
from robustft.registry import discover

SHOWN = 6
MEANINGS = {
    "delta_zs": "zero-shot: accuracy of the head made of class names, after minus before. Falls when images move away from the text they belong to.",
    "delta_lp": "linear probe: accuracy of a fresh probe on the features, after minus before. Falls when the features no longer hold the task.",
}

root = ui.frame("Forgetting", "What did it cost elsewhere?")
with ui.errors_as_boxes():
    views = [view for view in ui.finished(pipeline.get_runs(root)) if any(score.dataset != view.config.dataset for score in view.record.scores)]
    if not views:
        st.info("No finished runs with held-out tasks yet. Start one on Launch, or press “Run the demo study” on Home (no GPU needed).", icon=":material/info:")
        st.stop()

    # --- ask
    tasks = list(dict.fromkeys(view.config.dataset for view in views))
    left, right = st.columns(2)
    task = left.selectbox("Fine-tuned on", tasks, key="forgetting.task", help="Runs on different tasks have different held-out tasks.")
    metric = right.segmented_control(
        "Measure", list(forgetting.MEASURES), default="delta_zs", format_func=forgetting.MEASURES.get, key="forgetting.metric", required=True
    )
    st.caption(MEANINGS[metric])
    newest = [view for view in views if view.config.dataset == task]
    everyone = {view.run_id: view for view in sorted(views, key=lambda view: ([*METHODS, view.config.method].index(view.config.method), view.config.seed))}
    here = {run_id: view for run_id, view in everyone.items() if view.config.dataset == task}
    names = forgetting.run_names({run_id: view.config for run_id, view in here.items()})
    chosen = st.multiselect(
        "Runs",
        list(here),
        [run_id for run_id in here if run_id in {view.run_id for view in newest[:SHOWN]}],
        format_func=names.get,
        key=f"forgetting.runs.{task}",
        help="At first the newest. All runs stand in the heat map.",
    )
    by_domain = st.toggle("Keep domains apart", key="forgetting.by_domain", help="Off: a task's domains are averaged, so that every task counts once.")

    # --- compute and draw
    changes = forgetting.change_table([view.record for view in here.values()], metric, by_domain=by_domain)
    picked = changes[changes["run"].isin(chosen)]
    st.subheader("Change on each held-out task")
    if picked.empty:
        st.info("No run chosen. Choose one under “Runs”.", icon=":material/info:")
    else:
        st.plotly_chart(forgetting.change_bars(picked, names), key="forgetting.bars")
        st.caption(
            "How to read it: left of zero the run lost accuracy on a task that it did not train on; right of zero it gained. "
            "The thin bars are the **noise of the measurement, one seed**: 1.96 standard errors of the change over the test images, which are the same before "
            "and after; for the linear probe also how far three refits of it differ. Where a thin bar crosses zero, the change cannot be told from noise. "
            "Noise between seeds comes on top."
        )
        with st.expander("Show as table"):
            shown = picked.assign(run=picked["run"].map(names))[["run", "task", "change", "noise", "images"]]
            shown.columns = ["run", "held-out task", "change (points)", "± noise", "test images"]
            st.dataframe(
                shown, hide_index=True, column_config={title: st.column_config.NumberColumn(format="%.1f") for title in ("change (points)", "± noise")}
            )

    st.subheader("Mean and worst of each run")
    costs = forgetting.cost_table(changes, names).rename(columns={"parts": "tasks and domains" if by_domain else "held-out tasks"})
    points = [title for title in costs.columns if "points" in title or "noise" in title]
    st.dataframe(costs, hide_index=True, column_config={title: st.column_config.NumberColumn(format="%.1f") for title in points})
    seeds = {view.config.seed for view in here.values()}
    st.caption(
        "The worst of many tasks is low by chance alone: read it with its noise. "
        + ("All runs have 1 seed, so this is no ranking." if len(seeds) == 1 else f"{len(seeds)} seeds in all; each row is one run.")
    )

    st.subheader("All runs and held-out tasks")
    st.plotly_chart(forgetting.change_heat(changes, names), key="forgetting.heat")
    st.caption(
        "How to read it: each cell is a change in points; orange is loss, blue is gain, white is none, – is not measured. "
        f"The colours end at ± {forgetting.LIMIT:g} points whatever is shown, so two views can be compared."
    )
    with st.expander("Show as table"):
        wide = changes.pivot(index="run", columns="task", values="change").rename(index=names)
        st.dataframe(wide, column_config={title: st.column_config.NumberColumn(format="%+.1f") for title in wide.columns})

    # --- forgetting against distance, over all runs: one downstream task says little
    st.subheader("Does distance foretell forgetting?")
    records = [view.record for view in everyone.values()]
    pairs, still = foretelling.drift_pairs(records, metric), foretelling.unmoved_runs(records)
    measures, left_out = foretelling.measures_of(pairs), f" Runs that moved nothing are left out: {len(still)} of {len(records)}." if still else ""
    if not measures:
        st.info(f"No run measured both this change and a distance on a held-out task.{left_out}", icon=":material/info:")
        st.stop()
    default = "otdd" if "otdd" in measures else measures[0]
    measure = st.segmented_control("Distance", measures, default=default, format_func=foretelling.title_of, key="forgetting.measure", required=True)
    about, titles = discover("drift").get(measure), forgetting.run_names({run_id: view.config for run_id, view in everyone.items()})
    if about:
        st.caption(" ".join([about.summary, *(f"{param.name} = {ui.shown(param.default)}." for param in about.params)]))
    st.plotly_chart(forgetting.drift_scatter(pairs, measure, titles), key="forgetting.scatter")
    st.caption(
        "How to read it: each mark is one run on one held-out task. Further right, the task's images moved further from where they were; above zero, "
        f"the task was forgotten ({forgetting.MEASURES[metric]}, sign turned). Where distance foretells forgetting, marks rise to the right. "
        f"All finished runs stand here, whatever is chosen above.{left_out}"
    )
    st.markdown(ui.plain(foretelling.verdict(pairs)))
    st.dataframe(forgetting.correlation_words(foretelling.correlations(pairs)), hide_index=True)
    st.caption(
        "Correlation of forgetting with each distance, in brackets its 95 % interval: the same runs, held-out tasks drawn anew, all marks of a task together. "
        + ("“Within”: after differences between downstream tasks are taken out. " if pairs["downstream"].nunique() > 1 else "")
        + "A correlation is no cause, and with few tasks the intervals are too narrow."
        + (" Proxy-FDA's claim that OTDD foretells better than L2 is about the linear probe." if metric == "delta_zs" else "")
    )
    with st.expander("Show as table"):
        st.dataframe(forgetting.pair_table(pairs, titles), hide_index=True, column_config={"forgetting (points)": st.column_config.NumberColumn(format="%.1f")})
