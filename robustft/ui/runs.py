"""Runs on pages: their names, their states in words, the choice of one."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from .. import pipeline
from ..pipeline import RunView
from ..types import StepRecord
from .words import duration

STATE_ICONS = {
    "finished": ":material/check_circle:",
    "running": ":material/play_circle:",
    "queued": ":material/schedule:",
    "stopping": ":material/pending:",
    "stopped": ":material/stop_circle:",
    "failed": ":material/error:",
    "lost": ":material/help:",
    "unfinished": ":material/draft:",
}
"""A sign beside each state's word, so that no state is told by colour alone."""

STATE_SIGNS = {"finished": "✔", "running": "▶", "queued": "…", "stopping": "◌", "stopped": "■", "failed": "✖", "lost": "?", "unfinished": "○"}
"""The same for the cells of a table, which hold plain text."""


def label_of(view: RunView) -> str:
    """Names a run for a list: method, task, seed, and the end of its id."""
    config = view.config
    return f"{config.method} · {config.dataset} · seed {config.seed} · {view.run_id[-8:]}"


def pick_run(root: Path, *, key: str = "run", label: str = "Run") -> RunView | None:
    """Draws the choice of a finished run, kept in the URL; says what to do if there is none."""
    views = [view for view in pipeline.get_runs(root) if view.state == "finished"]
    if not views:
        st.info("No finished runs yet. Start one on Launch, or press “Run the demo study” on Home (no GPU needed).", icon=":material/info:")
        return None
    by_id = {view.run_id: view for view in views}
    # No format_func: a bound control puts what it shows into the URL, and a URL should name a run by its id.
    chosen = st.selectbox(label, list(by_id), key=key, bind="query-params")
    return by_id.get(chosen, views[0])


def finished(views: Sequence[RunView]) -> list[RunView]:
    """Returns the runs that have scores."""
    return [view for view in views if view.state == "finished"]


def state_badge(state: str) -> str:
    """Returns sign and word of a state."""
    return f"{STATE_ICONS.get(state, '')} {state}"


def state_word(state: str) -> str:
    """Returns sign and word of a state as plain text."""
    return f"{STATE_SIGNS.get(state, '')} {state}"


def share_done(view: RunView) -> float:
    """Returns how much of its stage a run has done, in [0, 1]."""
    if view.state == "finished":
        return 1.0
    return min(1.0, view.done / view.total) if view.total and view.state in ("running", "stopping") else 0.0


def progress_words(view: RunView, history: Sequence[StepRecord] = ()) -> str:
    """Says what a run is doing: its place in the queue, or stage, steps and the time that training still takes."""
    if view.state == "queued":
        return f"waiting, number {view.place} in the queue" if view.place else "waiting"
    if view.state == "stopping":
        return "stopping: it writes a checkpoint first"
    if view.state != "running":
        return view.state
    words = (view.stage or "starting") + (f" · {'step ' if view.stage == 'training' else ''}{view.done} of {view.total}" if view.total else "")
    if view.stage == "training":
        left = pipeline.seconds_left(view, history)
        words += " · measuring speed ..." if left is None else f" · about {duration(left)} of training left"
    return words
