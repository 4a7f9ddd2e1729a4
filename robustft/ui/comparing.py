"""The parts of Compare: which runs, which of them is picked, and the report to take along."""

from collections.abc import Mapping, Sequence
from functools import partial

import streamlit as st

from ..figures import compare
from ..html_report import make_report
from ..methods import METHODS
from ..pipeline import RunView
from ..report_panels import PANELS, PLANES, READ_KEPT, READ_LOSS, read_plane
from ..side_by_side import FORMATS, SideBySide
from .charts import chart, table
from .frame import is_presenting, link
from .words import plain

HALVES = {f"± {title}": form.replace("+", "") for title, form in FORMATS.items()}
SMOOTH = 9
"""Steps that a smoothed loss is averaged over."""
NEXT_PAGES = (
    ("pages/3_Neighborhoods.py", "Neighborhoods", ":material/hub:"),
    ("pages/4_WiSE-FT.py", "WiSE-FT", ":material/tune:"),
    ("pages/2_Runs.py", "Runs", ":material/monitoring:"),
)


# --- asking -----------------------------------------------------------------------------------------------------------


def ask_task(views: Sequence[RunView]) -> str:
    """Draws the choice of the task; a link that names runs but no task means theirs."""
    tasks = list(dict.fromkeys(view.config.dataset for view in views))
    named = _named_runs()
    linked = next((view.config.dataset for view in views if view.run_id in named), None)
    if st.session_state.get("compare.task") not in tasks:
        asked = st.query_params.get("task")
        st.session_state["compare.task"] = asked if asked in tasks else linked or tasks[0]
    task = st.selectbox("Fine-tuned on", tasks, key="compare.task", on_change=_forget_link, help="Only runs on the same task can be compared.")
    _remember("task", task if len(tasks) > 1 else None)
    return task


def in_order(views: Sequence[RunView], task: str) -> dict[str, RunView]:
    """Returns the runs on a task in the order of the menu of methods, then by seed."""
    same = [view for view in views if view.config.dataset == task]
    return {view.run_id: view for view in sorted(same, key=lambda view: ([*METHODS, view.config.method].index(view.config.method), view.config.seed))}


def ask_runs(here: Mapping[str, RunView], names: Mapping[str, str], task: str) -> list[str]:
    """Draws the choice of runs, all at first or those that the URL names; what is ticked stands in the URL unless it is all."""
    key = f"compare.runs.{task}"
    named = _named_runs()
    if key not in st.session_state:
        st.session_state[key] = [run for run in here if run in named] or list(here)
        strange = [run for run in named if run not in here]
        if strange:
            st.caption(f"{len(strange)} of the {len(named)} runs that the link names are not here: on another task, not finished, or deleted.")
    chosen = st.multiselect("Runs", list(here), key=key, format_func=lambda run: names.get(run, run))
    _remember("runs", ",".join(chosen) if set(chosen) != set(here) else None)
    return chosen


def ask_picked(chosen: Sequence[str]) -> str | None:
    """Draws the choice of the run that is marked everywhere, kept in the URL, with links to what it did."""
    if st.session_state.get("compare.picked") not in [None, *chosen]:
        st.session_state["compare.picked"] = None
    if "compare.picked" not in st.session_state:
        asked = st.query_params.get("picked")
        st.session_state["compare.picked"] = asked if asked in chosen else None
    return st.session_state["compare.picked"]


def draw_picked(side: SideBySide) -> None:
    """The marked run, to change it by hand, and the pages that show it."""
    runs = [view.run_id for view in side.views]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        help_text = "Also by a click on a point of a plane or at the head of a row of the table. It gets a ring in the planes and a thick line in the curves."
        picked = st.selectbox(
            "Marked run",
            runs,
            index=None,
            key="compare.picked",
            format_func=lambda run: side.names.get(run, run),
            placeholder="none",
            help=help_text,
            width=320,
        )
        _remember("picked", picked)
        view = next((view for view in side.views if view.run_id == picked), None)
        for page, label, icon in NEXT_PAGES if view else ():
            link(page, label, icon=icon, run=view)


def _named_runs() -> list[str]:
    return [run for run in st.query_params.get("runs", "").split(",") if run]


def _forget_link() -> None:
    """Takes out of the URL what belongs to the task before."""
    for name in ("runs", "picked"):
        st.query_params.pop(name, None)


def _remember(name: str, value: str | None) -> None:
    """Writes a choice into the URL, or takes it out where it is the default."""
    if value is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != value:
        st.query_params[name] = value


def _pick_row(runs: Sequence[str], row: int | None) -> None:
    st.session_state["compare.picked"] = runs[row] if row is not None and row < len(runs) else None


def _pick_point(key: str, runs: Sequence[str]) -> None:
    for point in st.session_state[key]["selection"]["points"]:
        run = next(iter(point.get("customdata") or ()), None)
        if run in runs:
            st.session_state["compare.picked"] = run


# --- showing ----------------------------------------------------------------------------------------------------------


def draw_table(side: SideBySide, picked: str | None) -> None:
    """The papers' table: means over seeds with their intervals; a click on a row marks its run."""
    words, runs = side.table(), side.means["run"].tolist()
    halves = [f"± {title}" for title in words.columns if f"± {title}" in side.means]
    rows, labels = side.means[[*words.columns, *halves]], side.means["method"].tolist()
    selected = labels.index(label) if (label := side.row_of(picked)) else None
    table(rows, "compare.table", words=words, hidden=halves, selected=selected, on_select=partial(_pick_row, runs))


def draw_planes(side: SideBySide, picked: str | None) -> None:
    """Both trade-off planes; a click on a point marks its run."""
    runs = side.means["run"].tolist()
    for column, (name, (title, x, y, axes)) in zip(st.columns(2), PLANES.items(), strict=True):
        with column:
            st.subheader(title)
            if side.means[[x, y]].dropna().empty:
                st.info("These runs did not measure both.", icon=":material/info:")
                continue
            key = f"compare.plane.{name}"
            figure, twin = compare.trade_off(side.means, x, y, axes, side.row_of(picked)), compare.plane_table(side.means, x, y)
            chart(figure, key, read=read_plane(side), twin=twin, formats=FORMATS | HALVES, on_select=partial(_pick_point, key, runs))


def draw_loss(side: SideBySide, picked: str | None) -> None:
    """The loss curves of all runs that trained by steps, overlaid."""
    if not side.histories:
        st.info("None of these runs trained by steps, so there is no loss curve.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if "compare.part" not in st.session_state:
            asked = st.query_params.get("part")
            st.session_state["compare.part"] = asked if asked in compare.PARTS else "task_loss"
        part = st.segmented_control("Part", list(compare.PARTS), format_func=lambda name: compare.PARTS[name], key="compare.part", required=True)
        part = part or "task_loss"
        _remember("part", part if part != "task_loss" else None)
        is_log = st.toggle("Log scale", key="compare.log", bind="query-params")
        window = SMOOTH if st.toggle("Smooth", key="compare.smooth", bind="query-params", help=f"Mean over {SMOOTH} steps around each.") else 1
    curves = side.curves()
    twin = compare.loss_table(curves, part, window)
    figure = compare.loss_curves(curves, part, side.names.get(picked or ""), window=window, is_log=is_log)
    note = " Smoothed: single batches are averaged away." if window > 1 else ""
    note += " Zeros have no place on a log scale and are left out." if is_log and (twin <= 0).to_numpy().any() else ""
    chart(figure, "compare.loss", read=READ_LOSS + note, twin=twin.reset_index())


def draw_kept(side: SideBySide, picked: str | None) -> None:
    """Drift of all runs that kept features between start and end, overlaid, along training or alpha."""
    found = {along: moments for along in ("step", "alpha") if not (moments := side.kept(along)).empty}
    if not found:
        st.info("These runs kept no features between start and end, so there is no curve of drift. New runs keep them.", icon=":material/info:")
        return
    along = st.segmented_control(
        "Along", list(found), format_func=lambda name: "training" if name == "step" else name, default=next(iter(found)), key="compare.along", required=True
    )
    moments = found[along] if along in found else next(iter(found.values()))
    figure = compare.kept_curves(moments, str(moments.columns[1]), side.names.get(picked or ""))
    chart(figure, "compare.kept", read=READ_KEPT, twin=moments, formats={"neighbours kept (%)": "%.1f", "alpha": "%g"})


def draw_differences(side: SideBySide) -> None:
    """The settings in which the runs differ, and no others."""
    differing = side.differences()
    if differing.empty:
        st.info("No setting but the seed differs. Choose runs with other settings.", icon=":material/info:")
        return
    table(differing, "compare.differences")
    st.caption("Only settings in which the chosen runs differ; – means that a run has no such setting.")


def draw_report(side: SideBySide, picked: str | None) -> None:
    """One HTML file with the panels that are wanted."""
    st.caption(
        "One HTML file with these runs that opens anywhere without a network: charts, tables, configs, command lines, versions and seeds. "
        "It holds no path and no name of this machine or its user."
    )
    chosen = st.pills("Panels", list(PANELS), selection_mode="multi", default=list(PANELS), format_func=lambda key: PANELS[key][0], key="compare.panels")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Make the report",
            lambda: make_report(side, chosen, picked),
            f"report-{side.task}.html",
            "text/html",
            key="compare.report",
            icon=":material/description:",
            type="primary",
            on_click="ignore",
            disabled=not chosen,
        )
        st.markdown(plain("No panel is chosen.") if not chosen else f"{len(chosen)} panels, about 5 MB")
    if is_presenting():
        return
    command = " ".join(["python -m robustft report", *(view.run_id for view in side.views), "--out", f"report-{side.task}.html"])
    st.code(command, language="bash", wrap_lines=True)
