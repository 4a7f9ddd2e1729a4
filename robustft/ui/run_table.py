"""The table of all runs: what it shows, which rows are ticked, and what is done with several at once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitAPIException

from .. import pipeline
from ..methods import METHODS
from ..pipeline import RunView
from ..registry import discover
from ..types import UserError
from .runs import STATE_ICONS, label_of, share_done, state_word
from .words import errors_as_boxes, plain, words_of

HEADLINE = {"id_accuracy": "ID %", "ood_accuracy": "OOD %", "mean_delta_zs": "Delta_ZS", "mean_delta_lp": "Delta_LP"}
FORMATS = {
    "state": st.column_config.TextColumn(width=88),
    "name": st.column_config.TextColumn(width=120, help="What you call it. Change it below the table."),
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
_FILTERS = {"runs.states": "state", "runs.methods": "method", "runs.tasks": "task", "runs.search": "text"}
_TICKED, _TURN, _TOLD, _ASKED = "runs.ticked", "runs.turn", "runs.many.told", "runs.many.delete"


# --- filters ----------------------------------------------------------------------------------------------------------


def ask_filters(views: Sequence[RunView]) -> list[RunView]:
    """Draws the filters, which stand in the URL, and returns the runs that pass them; says how to undo them if none does."""
    with st.container(horizontal=True):
        # All that there can be and not only what there is: a filter must not change its meaning when a run ends.
        states = st.multiselect("State", list(STATE_ICONS), key="runs.states", bind="query-params", placeholder="all states")
        made = st.multiselect("Method", list(METHODS), key="runs.methods", bind="query-params", placeholder="all methods")
        tasks = st.multiselect("Task", list(discover("datasets")), key="runs.tasks", bind="query-params", placeholder="all tasks")
        text = st.text_input("Search", key="runs.search", bind="query-params", max_chars=100, placeholder="id, name or note")
    shown = [view for view in views if _passes(view, states, made, tasks, text)]
    if not shown:
        used = [name for key, name in _FILTERS.items() if st.session_state.get(key)]
        st.info(
            f"None of the {len(views)} runs passes the filter{'s' if len(used) > 1 else ''} by {', '.join(used)}. “Show all runs” takes them away.",
            icon=":material/filter_alt:",
        )
        st.button("Show all runs", icon=":material/filter_alt_off:", key="runs.unfilter", on_click=_clear_filters)
    return shown


def _passes(view: RunView, states: Sequence[str], made: Sequence[str], tasks: Sequence[str], text: str) -> bool:
    config = view.config
    if (states and view.state not in states) or (made and config.method not in made) or (tasks and config.dataset not in tasks):
        return False
    searched = f"{view.run_id}\n{view.name}\n{view.note}".casefold()
    return all(word in searched for word in text.casefold().split())


def _clear_filters() -> None:
    for key in _FILTERS:
        st.session_state[key] = "" if key == "runs.search" else []


# --- the table --------------------------------------------------------------------------------------------------------


def draw_table(shown: Sequence[RunView]) -> list[RunView]:
    """Draws some runs, one row each, and returns the ticked ones; one alone becomes the run that is shown below."""
    ids = tuple(view.run_id for view in shown)
    ticked = [run_id for run_id in st.session_state.get(_TICKED, []) if run_id in set(ids)]
    # A tick is a row number. Other rows are another table, whose ticks are put where the same runs are now.
    key = f"runs.table.{st.session_state.get(_TURN, 0)}.{hash(ids):x}"
    first = st.session_state.get("runs.first")
    if first is None or first[0] != key:  # where ticks begin belongs to a table's identity, so it stays as it was at first
        first = st.session_state["runs.first"] = (key, [ids.index(run_id) for run_id in ticked])
    st.dataframe(
        _rows(shown),
        hide_index=True,
        column_config=FORMATS,
        placeholder="–",
        height=min(36 + 35 * len(shown), 320),
        key=key,
        on_select=lambda: _tick(key, ids),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": first[1], "columns": [], "cells": []}},
    )
    st.session_state[_TICKED] = ticked
    by_id = {view.run_id: view for view in shown}
    return [by_id[run_id] for run_id in ticked]


def _tick(key: str, ids: Sequence[str]) -> None:
    """Remembers the ticked rows as runs, by the rows that the table had when it was drawn."""
    ticked = [ids[row] for row in st.session_state[key]["selection"]["rows"] if row < len(ids)]
    st.session_state[_TICKED] = ticked
    st.session_state[_ASKED] = False
    if len(ticked) == 1:
        st.session_state["run"] = ticked[0]


def _rows(shown: Sequence[RunView]) -> pd.DataFrame:
    """Returns the table of some runs; the last one is kept, so that a look at what did not change makes nothing anew."""
    stamp = [(view.run_id, view.state, view.name, view.done, view.total, view.record.status.get("started")) for view in shown]
    known = st.session_state.get("runs.rows")
    if known is None or known[0] != stamp:
        known = st.session_state["runs.rows"] = (stamp, table_of(shown))
    rows: pd.DataFrame = known[1]
    return rows


def table_of(views: Sequence[RunView]) -> pd.DataFrame:
    """Returns one row a run; accuracies in percent, changes in points. Names only if there are any: most people give none."""
    rows = []
    for view in views:
        config, summary, started = view.config, view.summary, view.record.status.get("started")
        numbers = {title: 100 * summary[key] if key in summary else None for key, title in HEADLINE.items()}
        # A name stands as it was typed: cells are plain text and know no Markdown to escape.
        row = {"state": state_word(view.state), "name": view.name, "method": config.method, "task": config.dataset, "seed": config.seed}
        time = pd.to_datetime(started, unit="s", utc=True) if isinstance(started, float) else None
        rows.append({**row, **numbers, "progress": 100 * share_done(view), "started": time})
    table = pd.DataFrame(rows)
    return table if any(view.name for view in views) else table.drop(columns="name")


# --- several at once --------------------------------------------------------------------------------------------------


def draw_bulk(ticked: Sequence[RunView], root: Path) -> None:
    """Draws what can be done with several ticked runs; each button says with how many of them."""
    if told := st.session_state.pop(_TOLD, None):
        (st.error if told[0] else st.success)(plain(told[1]), icon=":material/error:" if told[0] else ":material/check_circle:")
    if len(ticked) < 2:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="runs.many"), errors_as_boxes():
        st.markdown(f"**{len(ticked)} runs ticked:**", width="content")
        if not pipeline.is_read_only():
            active = [view for view in ticked if view.state in ("queued", "running") and view.job_id is not None]
            ended = [view for view in ticked if view.state in pipeline.RESUMABLE]
            _button("Cancel", ":material/stop:", active, pipeline.cancel, root)
            _button("Resume", ":material/play_arrow:", ended, pipeline.resume, root)
            _ask_delete([view for view in ticked if view.state not in pipeline.ACTIVE], root)
        _link_compare([view for view in ticked if view.state == "finished"])
        st.button("Untick all", icon=":material/deselect:", key="runs.many.none", on_click=_untick)


def _button(label: str, icon: str, views: Sequence[RunView], action: Callable[[str, Path], None], root: Path) -> None:
    ids = tuple(view.run_id for view in views)
    # The key says who it is about: should the runs change between drawing and click, the click is nobody's.
    key = f"runs.many.{label.lower()}.{hash(ids):x}"
    st.button(f"{label} {len(ids)} of them", icon=icon, disabled=not ids, key=key, on_click=do_all, args=(label, ids, action, root))


def _ask_delete(views: Sequence[RunView], root: Path) -> None:
    ids = tuple(view.run_id for view in views)
    with st.popover(f"Delete {len(ids)} of them", icon=":material/delete:", disabled=not ids, key=_ASKED, on_change="rerun"):
        named = ", ".join(plain(label_of(view)) for view in views[:5]) + (f" and {len(views) - 5} more" if len(views) > 5 else "")
        st.markdown(f"Move **{len(ids)} runs** to the trash? {named}. Nothing is erased: they lie in the folder trash of the runs folder.")
        st.button("Move all to trash", type="primary", key=f"runs.many.delete.{hash(ids):x}", on_click=_delete_all, args=(ids, root))


def _delete_all(ids: Sequence[str], root: Path) -> None:
    st.session_state[_ASKED] = False
    do_all("Delete", ids, pipeline.delete, root)
    _untick()
    left = pipeline.get_runs(root)
    if st.session_state.get("run") in set(ids) and left:
        st.session_state["run"] = left[0].run_id


def do_all(label: str, ids: Sequence[str], action: Callable[[str, Path], None], root: Path) -> None:
    """Does something with every run named and remembers what to tell: how many it was done with, and why not with another."""
    refused = []
    for run_id in ids:
        try:
            action(run_id, root)
        except (UserError, OSError, LookupError) as error:
            refused.append(words_of(error))
    done = f"{label}: done for {len(ids) - len(refused)} of {len(ids)} runs."
    st.session_state[_TOLD] = (bool(refused), done + (f" The first that was refused: {refused[0]}" if refused else ""))


def _untick() -> None:
    """Takes all ticks away; the table itself would keep them, so the next one is another."""
    st.session_state[_TICKED] = []
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1


def _link_compare(views: Sequence[RunView]) -> None:
    """Links to Compare with these runs; it compares finished runs on one task."""
    tasks = {view.config.dataset for view in views}
    if len(views) < 2 or len(tasks) > 1:
        why = f"they are on {len(tasks)} tasks" if len(tasks) > 1 else f"{len(views)} of them finished" if views else "none of them has finished"
        st.caption(f"Compare needs two finished runs on one task; {why}.", width="content")
        return
    label, icon = f"Compare {len(views)} of them", ":material/leaderboard:"
    try:
        st.page_link("pages/6_Compare.py", label=label, icon=icon, query_params={"runs": ",".join(view.run_id for view in views)})
    except StreamlitAPIException:  # no such page, as when a test runs one page alone
        st.markdown(label)
