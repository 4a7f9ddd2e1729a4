"""Runs: what is running, and what happened?"""

import pandas as pd
import streamlit as st

from robustft import configs, pipeline, ui
from robustft.figures import runs as charts
from robustft.pipeline import RunView
from robustft.types import StepRecord

LOG_LINES = 100
NEXT_PAGES = (
    ("pages/3_Neighborhoods.py", "Neighborhoods", ":material/hub:"),
    ("pages/4_WiSE-FT.py", "WiSE-FT", ":material/tune:"),
    ("pages/5_Forgetting.py", "Forgetting", ":material/trending_down:"),
    ("pages/6_Compare.py", "Compare", ":material/leaderboard:"),
)
HEADLINE = {"id_accuracy": "ID %", "ood_accuracy": "OOD %", "mean_delta_zs": "Delta_ZS", "mean_delta_lp": "Delta_LP"}
FORMATS = {
    "state": st.column_config.TextColumn(width=88),
    "method": st.column_config.TextColumn(width=90),
    "task": st.column_config.TextColumn(width=72),
    "seed": st.column_config.NumberColumn(width=48),
    "ID %": st.column_config.NumberColumn(format="%.1f", width=54, help="Accuracy on the trained task, in the domain trained on."),
    "OOD %": st.column_config.NumberColumn(format="%.1f", width=60, help="Accuracy on the trained task, in the domains not trained on."),
    "Delta_ZS": st.column_config.NumberColumn(format="%+.1f", width=76, help="Mean change of zero-shot accuracy on the held-out tasks, in points."),
    "Delta_LP": st.column_config.NumberColumn(format="%+.1f", width=76, help="Mean change of linear-probe accuracy on the held-out tasks, in points."),
    "progress": st.column_config.ProgressColumn(format="%.0f %%", min_value=0, max_value=100, width=92, help="Of the stage that the run is in."),
    "started": st.column_config.DatetimeColumn(format="distance", width=126),
}

root = ui.frame("Runs", "What is running, and what happened?")


# --- the table of all runs --------------------------------------------------------------------------------------------


def table_of(views: list[RunView]) -> pd.DataFrame:
    """One row a run; accuracies in percent, changes in points."""
    rows = []
    for view in views:
        config, summary, started = view.config, view.summary, view.record.status.get("started")
        numbers = {title: 100 * summary[key] if key in summary else None for key, title in HEADLINE.items()}
        row = {"state": ui.state_word(view.state), "method": config.method, "task": config.dataset, "seed": config.seed, **numbers}
        time = pd.to_datetime(started, unit="s", utc=True) if isinstance(started, float) else None
        rows.append({**row, "progress": 100 * ui.share_done(view), "started": time})
    return pd.DataFrame(rows)


def choose_row(key: str, run_ids: list[str]) -> None:
    """Makes a clicked row the chosen run."""
    rows = st.session_state[key]["selection"]["rows"]
    if rows:
        st.session_state["run"] = run_ids[rows[0]]


def draw_table(views: list[RunView]) -> None:
    """All runs that pass the filters; a click chooses one."""
    with st.container(horizontal=True):
        states = st.multiselect(
            "State", [state for state in ui.STATE_ICONS if any(v.state == state for v in views)], key="runs.states", placeholder="all states"
        )
        made = st.multiselect("Method", sorted({v.config.method for v in views}), key="runs.methods", placeholder="all methods")
    shown = [v for v in views if (not states or v.state in states) and (not made or v.config.method in made)]
    if not shown:
        st.info("No run passes both filters. Take one of them away.", icon=":material/filter_alt:")
        return
    ids = [v.run_id for v in shown]
    # A selection is a row number: new rows make a new table, so that it never points at another run.
    key = f"runs.table.{len(views)}.{ids[0]}.{len(ids)}"
    height = min(36 + 35 * len(shown), 320)
    st.dataframe(table_of(shown), hide_index=True, column_config=FORMATS, placeholder="–", height=height, key=key,
                 on_select=lambda: choose_row(key, ids), selection_mode="single-row")  # fmt: skip
    st.caption(
        "ID and OOD: accuracy on the trained task. Delta: mean change on the held-out tasks in points; below zero is forgetting. "
        "One row is one seed, so small differences may be chance."
    )


# --- one run ----------------------------------------------------------------------------------------------------------


def pick(views: list[RunView]) -> RunView:
    """The choice of a run, kept in the URL; first the active one, else the newest."""
    by_id = {view.run_id: view for view in views}
    first = next((view for view in reversed(views) if view.state in ("running", "stopping")), next((v for v in views if v.state == "queued"), views[0]))
    chosen = st.selectbox("Run", list(by_id), index=list(by_id).index(first.run_id), key="run", bind="query-params")
    return by_id.get(chosen, first)


def draw_state(view: RunView, history: list[StepRecord]) -> None:
    """What a run is doing, or how it ended and what can be done."""
    if view.state in pipeline.ACTIVE:
        st.progress(ui.share_done(view), text=ui.progress_words(view, history))
    elif view.state == "failed":
        why = ui.plain(ui.without_paths(view.message, root)) or "It left no message; the log below may say more."
        st.error(f"**Failed.** {why}\n\nResume tries again from the last checkpoint; for other settings start another run on Launch.", icon=":material/error:")
    elif view.state == "lost":
        st.warning(
            "**Lost.** The process ended without a word: the machine was restarted, ran out of memory, or someone ended it. "
            "Resume goes on from the last checkpoint.",
            icon=":material/help:",
        )
    elif view.state in ("stopped", "unfinished"):
        st.info(f"**{view.state.capitalize()}.** Resume goes on from the last checkpoint, or from the start if there is none.", icon=":material/stop_circle:")
    else:
        draw_scores(view)


def draw_scores(view: RunView) -> None:
    """The headline of a finished run and the pages that explain it."""
    summary = view.summary
    with st.container(horizontal=True, key="runs.headline"):
        for key, title in HEADLINE.items():
            if key in summary:
                text = f"{100 * summary[key]:.1f} %" if key.endswith("accuracy") else f"{100 * summary[key]:+.1f} points"
                st.metric(("mean " if key.startswith("mean") else "") + title.removesuffix(" %"), text, width="content")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("Look closer:", width="content")
        for page, label, icon in NEXT_PAGES:
            ui.link(page, label, icon=icon, run=view)


def delete(run_id: str) -> None:
    """Moves a run to the trash, closes the question and goes on with another run, so that a second click deletes nothing more."""
    st.session_state["runs.delete"] = False
    try:
        pipeline.delete(run_id, root)
    except (ValueError, OSError) as error:
        st.session_state["runs.told"] = ui.words_of(error)
        return
    left = pipeline.get_runs(root)
    if left:
        st.session_state["run"] = left[0].run_id


def draw_buttons(view: RunView) -> None:
    """What can be done with a run; what its state rules out is greyed."""
    if told := st.session_state.pop("runs.told", None):
        st.error(ui.plain(told), icon=":material/error:")
    with st.container(horizontal=True), ui.errors_as_boxes():
        can_cancel = view.state in ("queued", "running") and view.job_id is not None
        if st.button(
            "Cancel", icon=":material/stop:", disabled=not can_cancel, key="runs.cancel", help="Writes a checkpoint and stops. Resume goes on from it."
        ):
            pipeline.cancel(view.run_id, root)
            st.rerun()
        if st.button("Resume", icon=":material/play_arrow:", disabled=view.state not in pipeline.RESUMABLE, key="runs.resume"):
            pipeline.resume(view.run_id, root)
            st.rerun()
        with st.popover("Delete", icon=":material/delete:", disabled=view.state in pipeline.ACTIVE, key="runs.delete", on_change="rerun"):
            st.markdown(f"Move **{ui.plain(ui.label_of(view))}** to the trash? Nothing is erased: it lies in the folder trash of the runs folder.")
            st.button("Move to trash", type="primary", key="runs.delete.sure", on_click=delete, args=(view.run_id,))
        st.download_button(
            "Config",
            configs.config_json(view.config),
            f"{view.run_id}.json",
            "application/json",
            icon=":material/download:",
            key="runs.download",
            on_click="ignore",
        )


def draw_curves(view: RunView, history: list[StepRecord]) -> None:
    """How training went, step by step."""
    if not history:
        if view.state in pipeline.ACTIVE:
            st.caption("Curves appear with the first five steps.")
        elif view.state == "finished":
            st.caption("This method trains nothing, so there are no curves.")
        return
    table = charts.steps_table(history)
    loss, health = st.columns(2)
    with loss:
        st.markdown("**Loss**")
        st.plotly_chart(charts.loss_curves(table), key="runs.loss", config={"displaylogo": False})
        terms = "The total is the task loss plus the regularizer; a regularizer that grows is drift. " if (table["regularizer"] != 0).any() else ""
        st.caption(f"How to read it: a task loss that falls is learning. {terms}One batch a step, so single peaks mean little.")
    with health:
        st.markdown("**Gradient and learning rate**")
        st.plotly_chart(charts.step_health(table), key="runs.health", config={"displaylogo": False})
        st.caption("How to read it: the gradient's norm is taken before clipping. Peaks that keep growing mean a learning rate that is too high.")
    if len(table) > charts.MOST_POINTS:
        st.caption(f"Drawn: {charts.MOST_POINTS} of {len(table)} steps, evenly chosen. The table has all.")
    with st.expander("Show as table"):
        st.dataframe(table, hide_index=True, height=240)


def draw_files(view: RunView) -> None:
    """The log's end, and what the run was asked for."""
    log = ui.without_paths(pipeline.get_log(view.run_id, root), root).splitlines()[-LOG_LINES:]
    with st.expander(f"Log (the last {LOG_LINES} lines)", expanded=view.state in ("failed", "lost")):
        st.code(
            "\n".join(log) or "The log is empty: it begins when the run's process does.",
            language=None,
            wrap_lines=True,
            height=240 if len(log) > 8 else "content",
        )
    with st.expander("Config and command line"):
        st.code(configs.command_line(view.config), language="bash", wrap_lines=True)
        st.code(configs.config_json(view.config), language="json")


def draw_run(view: RunView) -> None:
    """Everything about one run."""
    st.subheader(ui.plain(ui.label_of(view)))
    st.markdown(ui.state_badge(view.state) + " · " + f"`{view.run_id}`")
    history = pipeline.get_history(view.run_id, root)
    draw_state(view, history)
    draw_buttons(view)
    draw_curves(view, history)
    draw_files(view)


def draw_all() -> bool:
    """Table and chosen run; returns whether any run is active."""
    with ui.errors_as_boxes():
        views = pipeline.get_runs(root)
        if not views:
            st.info("No runs yet. Set one up on Launch, or press “Run the demo study” on Home (no GPU needed).", icon=":material/info:")
            ui.link("pages/1_Launch.py", "Set up a run on Launch", icon=":material/rocket_launch:")
            ui.link("app.py", "Run the demo study on Home", icon=":material/home:")
            return False
        draw_table(views)
        draw_run(pick(views))
        return any(view.state in pipeline.ACTIVE for view in views)
    return False


with ui.errors_as_boxes():
    ui.live(draw_all, is_active=any(view.state in pipeline.ACTIVE for view in pipeline.get_runs(root)))
