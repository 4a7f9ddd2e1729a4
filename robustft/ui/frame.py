"""The frame of every page: its title, its menu, and the part of it that is drawn again while something runs."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAPIException

from ..pipeline import RunView, is_read_only
from ..store import default_root

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

IMAGE_KINDS = ("png", "svg")

_LARGE = """<style>
[data-testid="stMain"] [data-testid="stMarkdown"] :is(p, li) {font-size: 1.25rem; line-height: 1.5}
[data-testid="stMain"] [data-testid="stMetricValue"] {font-size: 2.6rem}
[data-testid="stMain"] [data-testid="stCaptionContainer"] p {font-size: 1.05rem}
[data-testid="stMain"] h1 {font-size: 2.6rem}
</style>"""

_RESET = """<a href="./?step=1" target="_self" title="Forgets what was chosen and begins the story anew"
style="display: inline-block; padding: 0.4rem 0.8rem; border: 1px solid; border-radius: 0.5rem; color: inherit; text-decoration: none">↺ Reset</a>"""
"""A plain link: a browser that follows it starts a new session, so nothing of the last visitor is left."""

LIVE_SECONDS = 2.0
"""How often the live part of a page is drawn again."""


def frame(title: str, question: str) -> Path:
    """Begins a page: its title, the question that it answers; returns the cache folder.

    Args:
        title: Heading and browser tab.
        question: One sentence under the heading.
    """
    st.set_page_config(page_title=title if title == "robustft" else f"{title} - robustft", layout="wide", page_icon="🧭")
    with st.sidebar:
        for page, name, about, icon in shown_pages():
            link(page, name, icon=icon, help=about)
        _draw_switches()
    st.title(title)
    st.caption(question)
    return default_root()


def shown_pages() -> list[tuple[str, str, str, str]]:
    """Returns the pages of the menu; where runs are only shown there is nothing to launch."""
    return [page for page in PAGES if page[1] != "Launch" or not is_read_only()]


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


def is_presenting() -> bool:
    """Returns whether the page is shown to an audience: larger type, and nothing that only the owner of a run needs."""
    return bool(st.session_state.get("present", False))


def _draw_switches() -> None:
    """What holds for every page: the presenter's view and the kind of picture that charts are saved as."""
    st.divider()
    st.toggle("Presenter view", key="present", bind="query-params", help="Larger type; settings, logs and command lines are left out.")
    if not is_presenting():
        st.segmented_control("Save charts as", IMAGE_KINDS, default="png", key="picture", bind="query-params", required=True, help="By the camera of a chart.")
    else:
        st.html(_LARGE)  # a constant of ours, never anybody's text
    if is_read_only():
        st.html(_RESET)  # likewise
