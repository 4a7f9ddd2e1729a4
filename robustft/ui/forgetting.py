"""The parts of Forgetting: which runs and which change, what each task lost, and whether distance foretells it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitAPIException

from .. import foretelling, pipeline
from ..figures import forgetting as figures
from ..methods import METHODS
from ..otdd_settings import held_out_settings, unlike_settings
from ..pipeline import RunView
from ..registry import discover
from ..trend import trend
from . import address
from .charts import chart, table
from .words import plain, shown

NEWEST = 6
"""Runs that are chosen at first."""
EVERY = "all methods"
MEANINGS = {
    "delta_zs": "zero-shot: accuracy of the head made of class names, after minus before. Falls when images move away from the text they belong to.",
    "delta_lp": "linear probe: accuracy of a fresh probe on the features, after minus before. Falls when the features no longer hold the task.",
}


@dataclass(frozen=True)
class Choice:
    """What is asked.

    Attributes:
        everyone: All runs with held-out tasks, by id, in the order of the menu of methods.
        here: Those on the chosen task.
        chosen: Ids of those in the bars.
        metric: ``delta_zs`` or ``delta_lp``.
        by_domain: Whether domains stand apart.
    """

    everyone: Mapping[str, RunView]
    here: Mapping[str, RunView]
    chosen: Sequence[str]
    metric: str
    by_domain: bool

    @property
    def names(self) -> dict[str, str]:
        """Short names of the runs on the chosen task."""
        return figures.run_names({run_id: view.config for run_id, view in self.here.items()})

    @property
    def all_names(self) -> dict[str, str]:
        """Short names of all runs."""
        return figures.run_names({run_id: view.config for run_id, view in self.everyone.items()})

    def changes(self) -> pd.DataFrame:
        """Returns the changes of the runs on the chosen task."""
        return figures.change_table([view.record for view in self.here.values()], self.metric, by_domain=self.by_domain)


# --- asking -----------------------------------------------------------------------------------------------------------


def ask(views: Sequence[RunView]) -> Choice:
    """Draws the controls, all of them kept in the address."""
    everyone = {view.run_id: view for view in sorted(views, key=lambda view: ([*METHODS, view.config.method].index(view.config.method), view.config.seed))}
    left, right = st.columns(2)
    with left:
        task = _ask_task(views)
    address.restore_one("forgetting.metric", "metric", list(figures.MEASURES), "delta_zs")
    metric = right.segmented_control("Measure", list(figures.MEASURES), format_func=lambda name: figures.MEASURES[name], key="forgetting.metric", required=True)
    metric = metric or "delta_zs"
    address.remember("metric", metric if metric != "delta_zs" else None)
    st.caption(MEANINGS[metric])
    here = {run_id: view for run_id, view in everyone.items() if view.config.dataset == task}
    chosen = _ask_runs(here, [view.run_id for view in views if view.config.dataset == task][:NEWEST], task)
    if "forgetting.by_domain" not in st.session_state:
        st.session_state["forgetting.by_domain"] = st.query_params.get("apart") == "1"
    about = "Off: a task's domains are averaged, so that every task counts once."
    by_domain = st.toggle("Keep domains apart", key="forgetting.by_domain", help=about)
    address.remember("apart", "1" if by_domain else None)
    return Choice(everyone, here, chosen, metric, by_domain)


def _ask_task(views: Sequence[RunView]) -> str:
    """Draws the choice of the downstream task; a link that names runs but no task means theirs."""
    tasks, named = list(dict.fromkeys(view.config.dataset for view in views)), address.asked_for("runs")
    linked = next((view.config.dataset for view in views if view.run_id in named), tasks[0])
    address.restore_one("forgetting.task", "task", tasks, linked)
    task = st.selectbox("Fine-tuned on", tasks, key="forgetting.task", help="Runs on different tasks have different held-out tasks.")
    address.remember("task", task if task != tasks[0] else None)
    return task


def _ask_runs(here: Mapping[str, RunView], newest: Sequence[str], task: str) -> list[str]:
    key, usual = f"forgetting.runs.{task}", [run_id for run_id in here if run_id in newest]
    names = figures.run_names({run_id: view.config for run_id, view in here.items()})
    address.restore_several(key, "runs", list(here), usual)
    chosen = st.multiselect(
        "Runs", list(here), key=key, format_func=lambda run: names.get(run, run), help="At first the newest. All runs stand in the heat map."
    )
    address.remember("runs", ",".join(chosen) if set(chosen) != set(usual) else None)
    return chosen


# --- what each task lost ----------------------------------------------------------------------------------------------


def draw_changes(choice: Choice, changes: pd.DataFrame) -> None:
    """A bar a run and held-out task, with its noise."""
    st.subheader("Change on each held-out task")
    picked, names = changes[changes["run"].isin(choice.chosen)], choice.names
    if picked.empty:
        st.info("No run chosen. Choose one under “Runs”.", icon=":material/info:")
        return
    twin = picked.assign(run=picked["run"].map(names))[["run", "task", "change", "noise", "images"]]
    twin.columns = pd.Index(["run", "held-out task", "change (points)", "± noise", "test images"])
    read = (
        "left of zero the run lost accuracy on a task that it did not train on; right of zero it gained. "
        "The thin bars are the **noise of the measurement, one seed**: 1.96 standard errors of the change over the test images, which are the same before "
        "and after; for the linear probe also how far three refits of it differ. Where a thin bar crosses zero, the change cannot be told from noise. "
        "Noise between seeds comes on top."
    )
    chart(figures.change_bars(picked, names), "forgetting.bars", read=read, twin=twin, formats={"change (points)": "%+.1f", "± noise": "%.1f"})


def draw_costs(choice: Choice, changes: pd.DataFrame) -> None:
    """Mean and worst of each run."""
    st.subheader("Mean and worst of each run")
    costs = figures.cost_table(changes, choice.names).rename(columns={"parts": "tasks and domains" if choice.by_domain else "held-out tasks"})
    formats = {title: "%.1f" if title.startswith("±") else "%+.1f" for title in costs.columns if "points" in title or "noise" in title}
    table(costs, "forgetting.costs", formats=formats)
    seeds = {view.config.seed for view in choice.here.values()}
    many = "All runs have 1 seed, so this is no ranking." if len(seeds) == 1 else f"{len(seeds)} seeds in all; each row is one run."
    st.caption(f"The worst of many tasks is low by chance alone: read it with its noise. {many}")


def draw_heat(choice: Choice, changes: pd.DataFrame) -> None:
    """All runs on the chosen task by held-out task."""
    st.subheader("All runs and held-out tasks")
    twin = changes.assign(run=changes["run"].map(choice.names)).pivot(index="run", columns="task", values="change").reset_index()
    read = (
        "each cell is a change in points; orange is loss, blue is gain, white is none, – is not measured. "
        f"The colours end at ± {figures.LIMIT:g} points whatever is shown, so two views can be compared."
    )
    formats = {title: "%+.1f" for title in twin.columns if title != "run"}
    chart(figures.change_heat(changes, choice.names), "forgetting.heat", read=read, twin=twin, formats=formats)


def draw_downstream(choice: Choice) -> None:
    """Downstream by held-out tasks, where runs were fine-tuned on several tasks."""
    configs = {run_id: view.config for run_id, view in choice.everyone.items()}
    if len({config.dataset for config in configs.values()}) < 2:
        return
    st.subheader("Fine-tuned on against held-out task")
    changes = figures.change_table([view.record for view in choice.everyone.values()], choice.metric)
    methods = [EVERY, *dict.fromkeys(config.method for config in configs.values())]
    address.restore_one("forgetting.method", "method", methods, EVERY)
    method = st.selectbox("Method", methods, key="forgetting.method", help="A cell is the mean over all finished runs of the method on that task.")
    address.remember("method", method if method != EVERY else None)
    means = figures.downstream_table(changes, configs, None if method == EVERY else method)
    twin = means.rename(columns={"downstream": "fine-tuned on", "task": "held-out task", "change": "mean change (points)"})
    read = (
        "a row is the task that was fine-tuned on, a column one that was not; colours as above, – is not measured or the task itself. "
        f"Cells are means over {_counts(means['runs'])} each." + (" Their mix of methods may differ." if method == EVERY else "")
    )
    chart(figures.downstream_heat(means), "forgetting.downstream", read=read, twin=twin, formats={"mean change (points)": "%+.1f"})


def _counts(runs: pd.Series) -> str:
    few, many = int(runs.min()), int(runs.max())
    return f"{few} to {many} runs" if few != many else f"{few} run" + ("s" if few != 1 else "")


# --- forgetting against distance, over all runs: one downstream task says little --------------------------------------


@st.fragment
def draw_foretelling(choice: Choice, root: Path) -> None:
    """Scatter, line, verdict and correlations; a click on a mark leads to the neighbourhoods of its run and task."""
    _follow_click()
    st.subheader("Does distance foretell forgetting?")
    records = [view.record for view in choice.everyone.values()]
    pairs, still = foretelling.drift_pairs(records, choice.metric), foretelling.unmoved_runs(records)
    measures, left_out = foretelling.measures_of(pairs), f" Runs that moved nothing are left out: {len(still)} of {len(records)}." if still else ""
    if not measures:
        st.info(f"No run measured both this change and a distance on a held-out task.{left_out}", icon=":material/info:")
        return
    measure = _ask_measure(measures)
    _draw_scatter(pairs, measure, choice, left_out)
    verdict, correlations = _foretold(pairs)
    st.markdown(plain(verdict))
    unlike = _unlike_otdd(tuple(sorted({(run, choice.everyone[run].config.dataset) for run in pairs["run"]})), root) if "otdd" in measures else ""
    if unlike:
        st.warning(plain(unlike), icon=":material/rule:")
    table(figures.correlation_words(correlations), "forgetting.correlations")
    st.caption(_correlation_notes(pairs, choice.metric))


def _ask_measure(measures: Sequence[str]) -> str:
    usual = "otdd" if "otdd" in measures else measures[0]
    address.restore_one("forgetting.measure", "measure", measures, usual)
    measure = st.segmented_control("Distance", measures, format_func=foretelling.title_of, key="forgetting.measure", required=True) or usual
    address.remember("measure", measure if measure != usual else None)
    about = discover("drift").get(measure)
    if about:
        st.caption(" ".join([about.summary, *(f"{param.name} = {shown(param.default)}." for param in about.params)]))
    return measure


def _draw_scatter(pairs: pd.DataFrame, measure: str, choice: Choice, left_out: str) -> None:
    names, key = choice.all_names, "forgetting.scatter"
    read = (
        "each mark is one run on one held-out task. Further right, the task's images moved further from where they were; above zero, "
        f"the task was forgotten ({figures.MEASURES[choice.metric]}, sign turned). Where distance foretells forgetting, marks rise to the right. "
        "The grey band is where the line may lie for other held-out tasks (95 %), not where single marks do. **Click a mark, or a row of the table, for the "
        f"neighbourhoods of its run and task.** All finished runs stand here, whatever is chosen above.{left_out}"
    )
    chart(figures.drift_scatter(pairs, measure, names, _trend(pairs, measure)), key, read=read, on_select=lambda: _take_up_mark(key, pairs))
    with st.expander("Show as table"):
        rows = figures.pair_table(pairs, names)
        formats = {"forgetting (points)": "%+.1f"} | {foretelling.title_of(name): "%.3g" for name in foretelling.measures_of(pairs)}
        table(rows, key, formats=formats, on_select=lambda row: _mark(pairs, row))


def _correlation_notes(pairs: pd.DataFrame, metric: str) -> str:
    several = pairs["downstream"].nunique() > 1
    return (
        "Correlation of forgetting with each distance, in brackets its 95 % interval: the same runs, held-out tasks drawn anew, all marks of a task together. "
        + (
            "“Within”: after differences between downstream tasks are taken out. "
            if several
            else "All runs were fine-tuned on one task, so within it is the same as pooled. "
        )
        + "A correlation is no cause, and with few tasks the intervals are too narrow."
        + (" Proxy-FDA's claim that OTDD foretells better than L2 is about the linear probe." if metric == "delta_zs" else "")
    )


def _take_up_mark(key: str, pairs: pd.DataFrame) -> None:
    for point in st.session_state[key]["selection"]["points"]:
        row = point.get("customdata")
        _mark(pairs, row[0] if isinstance(row, list) and row else row)


def _mark(pairs: pd.DataFrame, row: object) -> None:
    """Notes where to go; a callback cannot leave the page itself."""
    if isinstance(row, int | float) and 0 <= row < len(pairs):
        st.session_state["forgetting.goal"] = {"run": pairs["run"].iloc[int(row)], "task": pairs["task"].iloc[int(row)]}


def _follow_click() -> None:
    goal = st.session_state.pop("forgetting.goal", None)
    if goal:
        try:
            st.switch_page("pages/3_Neighborhoods.py", query_params=goal)
        except StreamlitAPIException:  # a test runs this page alone
            st.markdown(plain(f"Neighborhoods of {goal['run']} on {goal['task']}"))


# Remembered by the pairs themselves: a click, or another distance, changes none of it.


@st.cache_data(max_entries=32, show_spinner=False)
def _foretold(pairs: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    return foretelling.verdict(pairs), foretelling.correlations(pairs)


@st.cache_data(max_entries=64, show_spinner=False)
def _trend(pairs: pd.DataFrame, measure: str) -> pd.DataFrame:
    return trend(pairs, measure)


@st.cache_data(max_entries=32, show_spinner=False)
def _unlike_otdd(runs: tuple[tuple[str, str], ...], _root: Path) -> str:
    """Says how the OTDD values of runs, each with its downstream task, were computed unlike; finished runs never change."""
    settings = [found for run_id, downstream in runs for found in held_out_settings(pipeline.get_details(run_id, _root), downstream)]
    return unlike_settings(settings)
