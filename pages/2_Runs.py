"""Runs: what is running, and what happened?"""

from collections.abc import Sequence

import streamlit as st

from robustft import pipeline, ui
from robustft.pipeline import RunView
from robustft.ui import run_card, run_table

ABOUT_TABLE = (
    "ID and OOD: accuracy on the trained task. Delta: mean change on the held-out tasks in points; below zero is forgetting. "
    "One row is one seed, so small differences may be chance. Tick one row to see it below, several to act on them."
)

root = ui.frame("Runs", "What is running, and what happened?")


def pick(views: Sequence[RunView]) -> RunView:
    """The choice of a run, kept in the URL; first the active one, else the newest."""
    by_id = {view.run_id: view for view in views}
    first = next((view for view in reversed(views) if view.state in ("running", "stopping")), next((v for v in views if v.state == "queued"), views[0]))
    chosen = st.selectbox("Run", list(by_id), index=list(by_id).index(first.run_id), key="run", bind="query-params")
    return by_id.get(chosen, first)


def draw_empty() -> None:
    """What to do where there are no runs."""
    st.info("No runs yet. Set one up on Launch, or press “Run the demo study” on Home (no GPU needed).", icon=":material/info:")
    ui.link("pages/1_Launch.py", "Set up a run on Launch", icon=":material/rocket_launch:")
    ui.link("app.py", "Run the demo study on Home", icon=":material/home:")


def draw_all() -> bool:
    """Table and chosen run; returns whether any run is active."""
    with ui.errors_as_boxes():
        views = pipeline.get_runs(root)
        if not views:
            draw_empty()
            return False
        shown = run_table.ask_filters(views)
        ticked = run_table.draw_table(shown) if shown else []
        run_table.draw_bulk(ticked, root)
        if shown:
            st.caption(ABOUT_TABLE)
        run_card.draw_run(pick(views), root)
        return any(view.state in pipeline.ACTIVE for view in views)
    return False


with ui.errors_as_boxes():
    is_active = any(view.state in pipeline.ACTIVE for view in pipeline.get_runs(root))
    help_follow = f"Looks again every {ui.LIVE_SECONDS:.0f} seconds. Off holds the page still; what runs goes on."
    is_followed = st.toggle("Follow", True, key="runs.follow", bind="query-params", help=help_follow) if is_active else True
    ui.live(draw_all, is_active=is_active and is_followed)
