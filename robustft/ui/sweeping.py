"""A sweep on Launch: several methods, seeds and strengths, the table of its runs, and one start for all."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitAPIException

from .. import configs, methods, pipeline, sweep
from ..pipeline import RunView
from ..store import run_id_of
from ..types import RunConfig
from .method_form import DEFAULT_METHOD, draw_fields, title_of
from .runs import state_word
from .words import duration, errors_as_boxes, shown

NEW = "new"
_USUAL = ["zero_shot", DEFAULT_METHOD]


def ask_sweep() -> dict[str, Any]:
    """Draws what a sweep is made of; returns it as typed, for `read_sweep`."""
    names = list(methods.METHODS)
    about = "The runs are every method with every seed; zero-shot is the bar that forgetting is measured from."
    chosen = st.pills("Methods", names, default=_USUAL, selection_mode="multi", format_func=title_of, key="sweep.methods", bind="query-params", help=about)
    about = "Ranges and single ones, as in 0-2 or 0, 1, 5. A method that trains nothing runs once."
    seeds = st.text_input("Seeds", "0", max_chars=200, key="sweep.seeds", bind="query-params", help=about)
    strengths = _ask_strengths([name for name in names if name in chosen])
    with st.expander("Settings that all share"):
        st.caption("What you change here holds for every method that has the setting; all else stays at each method's own default.")
        loop = [param for param in methods.method_params(DEFAULT_METHOD) if param.source == "loop"]
        values = draw_fields(loop, "sweep")
    # Only what was changed: methods have other defaults than plain fine-tuning has, and keep them.
    shared = {param.name: values[param.name] for param in loop if shown(values[param.name]) != shown(param.default)}
    return {"methods": [name for name in names if name in chosen], "seeds": seeds, "strengths": strengths, "shared": shared}


def _ask_strengths(chosen: Sequence[str]) -> dict[str, str]:
    """Draws a field for each method that protects more or less; returns what was typed."""
    typed: dict[str, str] = {}
    strong = [name for name in chosen if sweep.strength_setting(name)]
    if not strong:
        return typed
    st.markdown("**Strengths**")
    st.caption("Values with commas, one run each; empty runs with the method's default.")
    for begin in range(0, len(strong), 3):
        for column, name in zip(st.columns(3), strong[begin : begin + 3], strict=False):
            setting, usual = sweep.strength_setting(name), ", ".join(map(shown, sweep.usual_strengths(name)))
            param = next(param for param in methods.method_params(name) if param.name == setting)
            about = f"Allowed: {param.allowed}. Default: {shown(param.default)}." + (f" The methods study tries {usual}." if usual else "")
            label, key = f"{title_of(name)}: {setting}", f"sweep.strength.{name}"
            with column:
                example = f"such as {usual}" if usual else None
                typed[name] = st.text_input(label, "", max_chars=200, key=key, bind="query-params", placeholder=example, help=about)
    return typed


def read_sweep(asked: dict[str, Any], **same: Any) -> list[RunConfig]:
    """Returns the runs that were asked for.

    Args:
        asked: What `ask_sweep` returned.
        same: Model, task, device, held-out tasks and curve, as in `sweep.Sweep`.

    Raises:
        UserError: If something typed is not allowed; says what.
    """
    strengths = {name: sweep.parse_strengths(text, name) for name, text in asked["strengths"].items()}
    return sweep.plan(sweep.Sweep(methods=asked["methods"], seeds=sweep.parse_seeds(asked["seeds"]), strengths=strengths, shared=asked["shared"], **same))


# --- its runs ---------------------------------------------------------------------------------------------------------


def draw_plan(runs: Sequence[RunConfig], root: Path) -> None:
    """The table of a sweep's runs, what they cost together, and their start."""
    views = {view.run_id: view for view in pipeline.get_runs(root)}
    there = [views.get(run_id_of(run)) for run in runs]
    open_runs = [run for run, view in zip(runs, there, strict=True) if not _is_settled(view)]
    states = Counter(view.state for view in there if view is not None)
    listed = ", ".join(f"{count} {state}" for state, count in states.items())
    st.markdown(f"**{_counted(len(runs))}**, {len(runs) - states.total()} of them new" + (f"; there already: {listed}." if listed else "."))
    rows = plan_table(runs, there)
    st.dataframe(rows, hide_index=True, height=min(36 + 35 * len(rows), 330), placeholder="–")
    if pipeline.is_read_only():
        return
    with errors_as_boxes():
        _draw_estimate(open_runs, root)
    with errors_as_boxes():
        _draw_start(runs, open_runs, root)


def plan_table(runs: Sequence[RunConfig], there: Sequence[RunView | None]) -> pd.DataFrame:
    """Returns one row a run: what it differs in and whether it is there.

    Args:
        runs: The runs of a sweep.
        there: The view of each, None where it is new.
    """
    rows = []
    for run, view in zip(runs, there, strict=True):
        setting = sweep.strength_setting(run.method)
        strength = f"{setting} = {shown(run.options[setting])}" if setting else ""
        rows.append({"method": run.method, "strength": strength, "seed": run.seed, "state": state_word(view.state) if view else NEW})
    return pd.DataFrame(rows)


def _is_settled(view: RunView | None) -> bool:
    return view is not None and (view.state == "finished" or view.state in pipeline.ACTIVE)


def _counted(count: int) -> str:
    return f"{count} run" + ("s" if count != 1 else "")


def _draw_estimate(runs: Sequence[RunConfig], root: Path) -> None:
    """How long the runs take that are still to do, measured when asked for with one run of each method."""
    known = st.session_state.setdefault("launch.estimates", {})
    first = {run.method: run for run in reversed(runs)}
    about = "Times five steps of one run of each method, in a process of its own: up to a minute each."
    if st.button("Estimate time", icon=":material/timer:", key="sweep.estimate", disabled=not runs, help=about):
        with errors_as_boxes(), st.spinner(f"Timing five steps of {_counted(len(first))} ..."):
            for run in first.values():
                known[configs.config_json(run)] = pipeline.estimate(run, root)
    measured = {method: known.get(configs.config_json(run)) for method, run in first.items()}
    if runs and all(measured.values()):
        total = sum(measured[run.method]["seconds"] for run in runs)
        st.metric("Time for all, about", duration(total), width="content")
        st.caption("One after another on this machine, from one run of each method; with several GPUs they run side by side.")


def _draw_start(runs: Sequence[RunConfig], open_runs: Sequence[RunConfig], root: Path) -> None:
    queue = pipeline.queue_summary(root)
    st.caption(f"{queue['running']} running and {queue['queued']} waiting are ahead of them." if any(queue.values()) else "The queue is empty.")
    key = tuple(map(configs.config_json, runs))
    if st.button("Start", type="primary", icon=":material/play_arrow:", key="launch.start", disabled=not open_runs):
        pipeline.submit(open_runs, root)
        st.session_state["sweep.started"] = (key, len(open_runs))
        st.rerun()
    started = st.session_state.get("sweep.started")
    if started and started[0] == key:
        st.success(f"Started {_counted(started[1])}. The same settings are always the same runs.", icon=":material/check_circle:")
    elif not open_runs:
        st.info("All of these runs are there already. The same settings are always the same runs.", icon=":material/check_circle:")
    if not open_runs:
        _link_runs(sorted({run.method for run in runs}), runs[0].dataset)


def _link_runs(made: Sequence[str], task: str) -> None:
    """Links to Runs with the filters that show the sweep."""
    try:
        st.page_link("pages/2_Runs.py", label="Open them on Runs", icon=":material/monitoring:", query_params={"runs.methods": list(made), "runs.tasks": task})
    except StreamlitAPIException:  # no such page, as when a test runs one page alone
        st.markdown("Open them on Runs")
