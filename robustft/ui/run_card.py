"""One run on Runs: what it does or how it ended, what can be done with it, its curves and its files."""

import json
from dataclasses import asdict
from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAPIException

from .. import configs, doctor, failures, notes, pipeline
from ..figures import runs as charts
from ..pipeline import RunView
from ..types import StepRecord
from .charts import chart
from .frame import is_presenting, link
from .launching import SOURCE
from .run_table import HEADLINE
from .runs import label_of, progress_words, share_done, state_badge
from .words import errors_as_boxes, plain, without_paths, words_of

LOG_LINES = 100
DIAGNOSTIC_LINES = 30
NEXT_PAGES = (
    ("pages/3_Neighborhoods.py", "Neighborhoods", ":material/hub:"),
    ("pages/4_WiSE-FT.py", "WiSE-FT", ":material/tune:"),
    ("pages/5_Forgetting.py", "Forgetting", ":material/trending_down:"),
    ("pages/6_Compare.py", "Compare", ":material/leaderboard:"),
)


def draw_run(view: RunView, root: Path) -> None:
    """Everything about one run."""
    st.subheader(plain(view.name or label_of(view)))
    st.markdown(state_badge(view.state) + " · " + (f"{plain(label_of(view))} · " if view.name else "") + f"`{view.run_id}`")
    for line in filter(None, view.note.splitlines()):
        st.caption(plain(line))
    history = pipeline.get_history(view.run_id, root)
    draw_state(view, history, root)
    draw_buttons(view, root)
    draw_curves(view, history)
    if not is_presenting():
        draw_files(view, root)


# --- its state --------------------------------------------------------------------------------------------------------


def draw_state(view: RunView, history: list[StepRecord], root: Path) -> None:
    """What a run is doing, or how it ended and what can be done."""
    if view.state in pipeline.ACTIVE:
        st.progress(share_done(view), text=progress_words(view, history))
    elif view.state in ("failed", "lost"):
        draw_failure(view, history, root)
    elif view.state in ("stopped", "unfinished"):
        st.info(f"**{view.state.capitalize()}.** Resume goes on from the last checkpoint, or from the start if there is none.", icon=":material/stop_circle:")
    else:
        draw_scores(view)


def draw_failure(view: RunView, history: list[StepRecord], root: Path) -> None:
    """Why a run ended early, how far it came, and what to do."""
    log = "" if view.message else pipeline.get_log(view.run_id, root)
    found = failures.explain(view.message, log, is_lost=view.state == "lost")
    advice = "" if pipeline.is_read_only() else f"\n\n{plain(found.advice)}"
    if view.state == "lost":
        st.warning(f"**Lost.** {plain(found.cause)} {_last_step(history)}{advice}", icon=":material/help:")
    else:
        said = plain(without_paths(view.message, root))
        why = f"It said: {said}" if said else "It left no message" + (" beside the log below." if not is_presenting() else ".")
        st.error(f"**Failed: {plain(found.kind)}.** {plain(found.cause)} {_last_step(history)}\n\n{why}{advice}", icon=":material/error:")
    if found.is_memory:
        _link_launch("Retry with half the batch", ":material/compress:", {"from": view.run_id, "half": "1"})


def _last_step(history: list[StepRecord]) -> str:
    """Says how far training came, up to the last step that is written down with a finite loss."""
    step = charts.last_good_step(history)
    return f"The last good step was {step:,}." if step else "It took no step that is written down."


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
            link(page, label, icon=icon, run=view)


# --- what can be done -------------------------------------------------------------------------------------------------


def draw_buttons(view: RunView, root: Path) -> None:
    """What can be done with a run; what its state rules out is greyed, and where nothing may be changed there is no such button."""
    if told := st.session_state.pop("runs.told", None):
        st.error(plain(told), icon=":material/error:")
    with st.container(horizontal=True, vertical_alignment="center"), errors_as_boxes():
        if not pipeline.is_read_only():
            _draw_changes(view, root)
        if not is_presenting():
            _link_launch("Duplicate", ":material/content_copy:", {"from": view.run_id})
            text = configs.config_json(view.config)
            st.download_button("Config", text, f"{view.run_id}.json", "application/json", icon=":material/download:", key="runs.download", on_click="ignore")


def _draw_changes(view: RunView, root: Path) -> None:
    can_cancel = view.state in ("queued", "running") and view.job_id is not None
    help_cancel = "Writes a checkpoint and stops. Resume goes on from it."
    if st.button("Cancel", icon=":material/stop:", disabled=not can_cancel, key="runs.cancel", help=help_cancel):
        pipeline.cancel(view.run_id, root)
        st.rerun()
    if st.button("Resume", icon=":material/play_arrow:", disabled=view.state not in pipeline.RESUMABLE, key="runs.resume"):
        pipeline.resume(view.run_id, root)
        st.rerun()
    if (view.place or 0) > 1 and st.button("Run next", icon=":material/vertical_align_top:", key="runs.front", help="Moves it to the front of the queue."):
        pipeline.move_to_front(view.run_id, root)
        st.rerun()
    with st.popover("Delete", icon=":material/delete:", disabled=view.state in pipeline.ACTIVE, key="runs.delete", on_change="rerun"):
        st.markdown(f"Move **{plain(label_of(view))}** to the trash? Nothing is erased: it lies in the folder trash of the runs folder.")
        st.button("Move to trash", type="primary", key="runs.delete.sure", on_click=delete, args=(view.run_id, root))
    with st.popover("Name and note", icon=":material/edit_note:", key="runs.note", on_change="rerun"):
        _draw_note(view, root)


def _draw_note(view: RunView, root: Path) -> None:
    name_key, note_key = f"runs.name.{view.run_id}", f"runs.note.{view.run_id}"
    with st.form(f"runs.note.form.{view.run_id}", border=False):
        st.text_input("Name", view.name, max_chars=notes.NAME_CHARS, key=name_key, help="One line; it heads the run and stands in the table.")
        st.text_area(
            "Note", view.note, max_chars=notes.NOTE_CHARS, key=note_key, help="What you want to remember about the run. The run itself stays as it is."
        )
        st.form_submit_button("Save", type="primary", key="runs.note.save", on_click=_save_note, args=(view.run_id, name_key, note_key, root))


def _save_note(run_id: str, name_key: str, note_key: str, root: Path) -> None:
    try:
        pipeline.set_note(run_id, st.session_state[name_key], st.session_state[note_key], root)
        st.session_state["runs.note"] = False
    except (ValueError, LookupError, OSError) as error:
        st.session_state["runs.told"] = words_of(error)


def delete(run_id: str, root: Path) -> None:
    """Moves a run to the trash, closes the question and goes on with another run, so that a second click deletes nothing more."""
    st.session_state["runs.delete"] = False
    try:
        pipeline.delete(run_id, root)
    except (ValueError, OSError) as error:
        st.session_state["runs.told"] = words_of(error)
        return
    left = pipeline.get_runs(root)
    if left:
        st.session_state["run"] = left[0].run_id


def _link_launch(label: str, icon: str, query: dict[str, str]) -> None:
    if pipeline.is_read_only():  # there is nothing to launch
        return
    st.session_state.pop(SOURCE, None)
    try:
        st.page_link("pages/1_Launch.py", label=label, icon=icon, query_params=query, help="Opens Launch with every control set as in this run.")
    except StreamlitAPIException:  # no such page, as when a test runs one page alone
        st.markdown(label)


# --- its curves and files ---------------------------------------------------------------------------------------------


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
        terms = "The total is the task loss plus the regularizer; a regularizer that grows is drift. " if (table["regularizer"] != 0).any() else ""
        read = f"a task loss that falls is learning. {terms}One batch a step, so single peaks mean little."
        chart(charts.loss_curves(table), "runs.loss", read=read, twin=table)
    with health:
        st.markdown("**Gradient and learning rate**")
        read = "the gradient's norm is taken before clipping. Peaks that keep growing mean a learning rate that is too high."
        chart(charts.step_health(table), "runs.health", read=read)
        st.caption("Its numbers are in the table of the loss.")
    if len(table) > charts.MOST_POINTS:
        st.caption(f"Drawn: {charts.MOST_POINTS} of {len(table)} steps, evenly chosen. The table has all.")


def draw_files(view: RunView, root: Path) -> None:
    """The log's end, what the run was asked for, and all of it as one text for whoever helps."""
    log = without_paths(pipeline.get_log(view.run_id, root), root).splitlines()[-LOG_LINES:]
    with st.expander(f"Log (the last {LOG_LINES} lines)", expanded=view.state in ("failed", "lost")):
        empty = "The log is empty: it begins when the run's process does."
        st.code("\n".join(log) or empty, language=None, wrap_lines=True, height=240 if len(log) > 8 else "content")
    with st.expander("Config and command line"):
        st.code(configs.command_line(view.config), language="bash", wrap_lines=True)
        st.code(configs.config_json(view.config), language="json")
    if view.state in ("failed", "lost"):
        with st.expander("Diagnostics to copy, for whoever helps", icon=":material/content_paste:"):
            st.code(diagnostics(view, log, root), language=None, height=240)


def diagnostics(view: RunView, log: list[str], root: Path) -> str:
    """Returns what somebody needs to know who helps with a failed run; no paths, and no name of machine or user.

    Args:
        view: The run.
        log: Lines of its log without paths.
        root: Cache folder, which is taken out of the message.
    """
    status = {"run": view.run_id, "state": view.state, "stage": view.stage, "step": view.done, "steps": view.total}
    parts = {
        "run": json.dumps(status | {"message": without_paths(view.message, root)}, indent=1, ensure_ascii=False),
        "versions": json.dumps(doctor.versions(), indent=1),
        "config": json.dumps(asdict(view.config), indent=1, sort_keys=True),
        f"log, the last {DIAGNOSTIC_LINES} lines": "\n".join(log[-DIAGNOSTIC_LINES:]),
    }
    return "\n\n".join(f"## {title}\n{text}" for title, text in parts.items())
