"""The only library room that knows Streamlit: the frame of every page, controls, cached reading, errors as boxes."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st

from . import pipeline
from .neighborhoods import Neighborhood, get_neighborhood
from .pipeline import RunView
from .registry import Param
from .store import default_root

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


def frame(title: str, question: str) -> Path:
    """Begins a page: its title, the question that it answers; returns the cache folder.

    Args:
        title: Heading and browser tab.
        question: One sentence under the heading.
    """
    st.set_page_config(page_title=f"{title} - robustft", layout="wide", page_icon="🧭")
    st.title(title)
    st.caption(question)
    return default_root()


@contextmanager
def errors_as_boxes() -> Iterator[None]:
    """Shows what goes wrong inside as one sentence in a box; the traceback goes to the server's log only."""
    try:
        yield
    except (ValueError, LookupError, OSError) as error:
        logging.getLogger("robustft").warning("shown on a page", exc_info=error)
        st.error(pipeline.describe_error(error), icon=":material/error:")


def plain(text: str) -> str:
    """Escapes text that came from a person or a folder so that Markdown shows it as it is."""
    return "".join("\\" + char if char in r"\`*_{}[]()<>#+-.!|$~:&" else char for char in text)


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
    chosen = st.selectbox(label, list(by_id), format_func=lambda run_id: label_of(by_id[run_id]), key=key, bind="query-params")
    return by_id.get(chosen, views[0])


def param_control(param: Param, key: str) -> Any:
    """Draws the control of one parameter from its type, range, default and help, and returns its value."""
    note = " ".join(
        filter(None, [param.help, f"Allowed: {param.allowed}.", f"Default: {shown(param.default)}.", f"Source: {param.source}" if param.source else ""])
    )
    if param.choices:
        return st.selectbox(param.name, param.choices, index=param.choices.index(param.default), key=key, help=note)
    if param.kind is bool:
        return st.toggle(param.name, value=param.default, key=key, help=note)
    if param.kind is int:
        return st.number_input(param.name, int(param.low or 0), int(param.high or 2**31), param.default, step=1, key=key, help=note)
    # Numbers that span decades, or may be left open, are typed: a stepper would round 1e-5 to nothing.
    return st.text_input(param.name, value=shown(param.default), key=key, help=note)


def shown(value: Any) -> str:
    """Writes a default as a person would type it."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@st.cache_data(max_entries=64, show_spinner="Reading features and finding neighbours ...")
def read_neighborhood(run_id: str, dataset: str, domain: str, n_neighbors: int, maps_stamp: float, _root: Path) -> Neighborhood:
    """Returns a run's neighbourhood; finished runs never change, so only a new pair of maps makes it stale."""
    return get_neighborhood(run_id, dataset, domain, n_neighbors, _root)


def state_badge(state: str) -> str:
    """Returns sign and word of a state."""
    return f"{STATE_ICONS.get(state, '')} {state}"


def finished(views: Sequence[RunView]) -> list[RunView]:
    """Returns the runs that have scores."""
    return [view for view in views if view.state == "finished"]
