"""The only library room that knows Streamlit: the frame of every page, controls, cached reading, errors as boxes."""

import logging
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from . import pipeline
from .devices import Device, list_devices
from .feature_cache import CacheUse, cache_use, clear_oldest
from .neighborhoods import Neighborhood, get_neighborhood
from .pipeline import RunView
from .preview import TaskCard, task_card
from .registry import Param
from .store import default_root
from .types import StepRecord, UserError

PAGES = (
    ("app.py", "Home", "What is here, what is running, and where do I start?", ":material/home:"),
    ("pages/1_Launch.py", "Launch", "What shall I run?", ":material/rocket_launch:"),
    ("pages/2_Runs.py", "Runs", "What is running, and what happened?", ":material/monitoring:"),
    ("pages/3_Neighborhoods.py", "Neighborhoods", "What moved in feature space?", ":material/hub:"),
    ("pages/4_WiSE-FT.py", "WiSE-FT", "How far from zero-shot shall I go?", ":material/tune:"),
    ("pages/5_Forgetting.py", "Forgetting", "What did it cost on tasks that were not trained on?", ":material/trending_down:"),
    ("pages/6_Compare.py", "Compare", "Which regularizer wins?", ":material/leaderboard:"),
)
"""File, name, question and sign of every page, in the order of the menu."""

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

LIVE_SECONDS = 2.0
"""How often the live part of a page is drawn again."""

# --- the frame of a page ----------------------------------------------------------------------------------------------


def frame(title: str, question: str) -> Path:
    """Begins a page: its title, the question that it answers; returns the cache folder.

    Args:
        title: Heading and browser tab.
        question: One sentence under the heading.
    """
    st.set_page_config(page_title=title if title == "robustft" else f"{title} - robustft", layout="wide", page_icon="🧭")
    with st.sidebar:
        for page, name, about, icon in PAGES:
            link(page, name, icon=icon, help=about)
    st.title(title)
    st.caption(question)
    return default_root()


def link(page: str, label: str, *, icon: str | None = None, run: RunView | None = None, help: str | None = None) -> None:
    """Draws a link to a page; plain words where there is no such page, as when a test runs one page alone.

    Args:
        page: File below the app, as ``pages/2_Runs.py``.
        label: What it says.
        icon: Material sign before it.
        run: The run to show there.
        help: What is shown beside it on hover.
    """
    try:
        st.page_link(page, label=label, icon=icon, help=help, query_params={"run": run.run_id} if run else None)
    except StreamlitAPIException:
        st.markdown(label)


def live(draw: Callable[[], bool], *, is_active: bool) -> None:
    """Draws a part of a page again and again while something is active, and the whole page once when all has ended.

    Args:
        draw: Draws the part and returns whether something is still active.
        is_active: Whether something is active now.
    """

    def part() -> None:
        if not draw() and is_active:
            st.rerun()

    st.fragment(part, run_every=LIVE_SECONDS if is_active else None)()


# --- text that others wrote -------------------------------------------------------------------------------------------


@contextmanager
def errors_as_boxes() -> Iterator[None]:
    """Shows what goes wrong inside as one sentence in a box; an unforeseen one's traceback goes to the server's log."""
    try:
        yield
    except (ValueError, LookupError, OSError, subprocess.SubprocessError) as error:
        if not isinstance(error, UserError):
            logging.getLogger("robustft").warning("shown on a page", exc_info=error)
        st.error(plain(words_of(error)), icon=":material/error:")


def words_of(error: BaseException) -> str:
    """Returns one sentence for a page: a user error's own words, less this machine's paths; of any other only its kind."""
    if isinstance(error, UserError):
        return without_paths(str(error), default_root())
    return f"Something went wrong inside robustft ({type(error).__name__}). The server's log has the details."


def plain(text: str) -> str:
    """Escapes text that came from a person or a folder so that Markdown shows it as it is."""
    return "".join("\\" + char if char in r"\`*_{}[]()<>#+-.!|$~:&" else char for char in text)


def without_paths(text: str, root: Path) -> str:
    """Takes this machine's paths out of a text: the cache folder reads ``<runs>``, the code ``<robustft>``, others ``...``."""
    known = {str(root): "<runs>", str(root.resolve()): "<runs>", str(Path(__file__).parent): "<robustft>", sys.prefix: "<python>"}
    for path, word in sorted(known.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(path, word)
    return re.sub(r"(?<![\w<>.~/:])/(?:[^\s/'\",:]+/)+(?=[^\s/'\",:]+)", ".../", text)


# --- runs -------------------------------------------------------------------------------------------------------------


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


def duration(seconds: float) -> str:
    """Writes a time span for a person.

    Example:
        >>> duration(8.2), duration(200), duration(9000)
        ('9 s', '4 min', '2 h 30 min')
    """
    if seconds < 99:
        return f"{int(math.ceil(seconds))} s"
    minutes = int(math.ceil(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


# --- controls ---------------------------------------------------------------------------------------------------------


def param_control(param: Param, key: str) -> Any:
    """Draws the control of one parameter from its type, range, default and help, and returns its value.

    What is typed stays in the URL, so that a reload keeps it.
    """
    is_cited = param.source and param.source != "loop"
    note = " ".join(
        filter(None, [param.help, f"Allowed: {param.allowed}.", f"Default: {shown(param.default)}.", f"Source: {param.source}" if is_cited else ""])
    )
    if param.choices:
        return st.selectbox(param.name, param.choices, index=param.choices.index(param.default), key=key, help=note, bind="query-params")
    if param.kind is bool:
        return st.toggle(param.name, value=param.default, key=key, help=note, bind="query-params")
    if param.kind is int:
        low, high = int(param.low or 0), int(param.high or 2**31)
        return st.number_input(param.name, low, high, param.default, step=1, key=key, help=note, bind="query-params")
    # Numbers that span decades, or may be left open, are typed: a stepper would round 1e-5 to nothing.
    return st.text_input(param.name, value=shown(param.default), key=key, help=note, bind="query-params")


def control_value(param: Param, value: Any) -> Any:
    """Returns what a parameter's control must hold to mean a value."""
    return value if param.choices or param.kind in (bool, int) else shown(value)


def shown(value: Any) -> str:
    """Writes a value as a person would type it, without losing a digit."""
    if value is None:
        return "none"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


# --- cached reading ---------------------------------------------------------------------------------------------------


@st.cache_data(max_entries=64, show_spinner="Reading features and finding neighbours ...")
def read_neighborhood(run_id: str, dataset: str, domain: str, n_neighbors: int, maps_stamp: float, _root: Path) -> Neighborhood:
    """Returns a run's neighbourhood; finished runs never change, so only a new pair of maps makes it stale."""
    return get_neighborhood(run_id, dataset, domain, n_neighbors, _root)


@st.cache_data(ttl=20, show_spinner=False)
def read_devices() -> list[Device]:
    """Returns where a run can compute, with the free memory of a moment ago."""
    return list_devices()


def free_gb(root: Path) -> float:
    """Returns the free space of the disk that holds the cache folder, or will hold it, in GB."""
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free / 1e9


def read_cache_use(root: Path) -> CacheUse:
    """Returns how full the cache of features is."""
    return cache_use(root)


def clear_features(root: Path) -> None:
    """Removes all features and graphs from the disk, and what pages remember of them."""
    clear_oldest(root, 0)
    read_neighborhood.clear()


def size(count: int) -> str:
    """Writes a number of bytes for a person.

    Example:
        >>> size(900), size(34_500_000), size(5_000_000_000)
        ('1 kB', '34 MB', '5.0 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


@st.cache_data(max_entries=32, show_spinner="Drawing sample images ...")
def read_task(name: str, _root: Path) -> TaskCard:
    """Returns the card of a task; its pictures are drawn once and then read from disk."""
    return task_card(name, _root)
