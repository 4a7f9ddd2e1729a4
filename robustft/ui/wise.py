"""The parts of WiSE-FT: which run beside which others, and what moves with alpha."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from .. import alphas, pipeline
from ..figures import forgetting
from ..figures import wise as figures
from ..methods import METHODS
from ..neighborhoods import measured_tasks
from ..pipeline import RunView
from . import address, at_alpha
from .charts import chart, table
from .runs import finished
from .words import errors_as_boxes

TITLES = {"id_accuracy": "ID accuracy", "ood_accuracy": "OOD accuracy", "mean_delta_zs": "Mean Δ zero-shot"}
MOST_OTHERS = len(figures.DASHES)
FORMATS = {"alpha": "%.1f", **{title: "%.1f" for name, title in alphas.TITLES.items() if name != "alpha"}, alphas.TITLES["mean_delta_zs"]: "%+.1f"}
RULE = (
    f"The best alpha by rule: among the alphas whose ID **validation** accuracy is within {alphas.SLACK:g} point of the best, the one with the largest mean "
    "zero-shot change on the held-out tasks. ID and OOD test accuracy play no part; the held-out change is read on the same test images as the charts, "
    "so at the chosen alpha it is slightly flattered."
)


@dataclass(frozen=True)
class Shown:
    """A run's curve, and those that are laid over it.

    Attributes:
        view: The run.
        name: Its short name beside the others.
        table: From `alphas.wise_table`.
        changes: From `alphas.task_changes`; without columns if single tasks were not stored.
        measures: What it has of `TITLES`.
        others: Tables of other runs by name.
        points: All of these curves for reading.
        noise: A sentence on how far one bar of `changes` may be off.
        root: Cache folder.
    """

    view: RunView
    name: str
    table: pd.DataFrame
    changes: pd.DataFrame
    measures: Sequence[str]
    others: Mapping[str, pd.DataFrame]
    points: pd.DataFrame
    noise: str
    root: Path

    @property
    def steps(self) -> list[float]:
        """The alphas that were measured."""
        return self.table["alpha"].tolist()


# --- asking -----------------------------------------------------------------------------------------------------------


def read(view: RunView, root: Path) -> Shown | None:
    """Returns the curve of a run with those that are chosen beside it; says why if it has none."""
    rows = pipeline.get_wise(view.run_id, root)
    if not rows:
        st.info(
            "This run was started without measuring the models between start and end. Launch measures them unless “WiSE-FT curve” is off under “Advanced”."
            if not view.config.curve
            else "This run has no WiSE-FT curve. Start the same method again on Launch with another seed: the curve is measured after training.",
            icon=":material/info:",
        )
        return None
    name, others = _ask_others(view, root)
    config = view.config
    has_ood = len(measured_tasks(config)[config.dataset]) > 1
    measures = ["id_accuracy", *(["ood_accuracy"] if has_ood else []), *(["mean_delta_zs"] if config.held_out else [])]
    tables = {name: alphas.wise_table(rows), **others}
    points = _all_points(tables, measures)
    return Shown(view, name, tables[name], alphas.task_changes(rows), measures, others, points, _noise_words(view), root)


def _all_points(tables: Mapping[str, pd.DataFrame], measures: Sequence[str]) -> pd.DataFrame:
    """Returns the points of all curves for reading."""
    names = [*(["run"] if len(tables) > 1 else []), "alpha", "val_accuracy", *measures]
    return pd.concat([table.assign(run=name) for name, table in tables.items()], ignore_index=True)[names].rename(columns=alphas.TITLES)


def _noise_words(view: RunView) -> str:
    noises = forgetting.change_table([view.record], "delta_zs")["noise"]
    return f" Noise of one bar, one seed: ± {noises.min():.1f} to {noises.max():.1f} points." if len(noises) else ""


def _ask_others(view: RunView, root: Path) -> tuple[str, dict[str, pd.DataFrame]]:
    """Draws the choice of runs to lay over; returns this run's short name, and their curves by name."""
    same = [other for other in finished(pipeline.get_runs(root)) if other.config.dataset == view.config.dataset]
    names = forgetting.run_names({other.run_id: other.config for other in same})
    curves = {other.run_id: rows for other in same if other.run_id != view.run_id and (rows := pipeline.get_wise(other.run_id, root))}
    if not curves:
        return names[view.run_id], {}
    address.restore_several("wise.with", "with", list(curves), [])
    st.session_state["wise.with"] = st.session_state["wise.with"][:MOST_OTHERS]
    chosen = st.multiselect(
        "Compare with",
        list(curves),
        key="wise.with",
        format_func=lambda run: names.get(run, run),
        max_selections=MOST_OTHERS,
        placeholder="no other run",
        help="Runs on the same task. Their curves are laid over this one's as thin broken lines.",
    )
    address.remember("with", ",".join(chosen) or None)
    return names[view.run_id], {names[run]: alphas.wise_table(curves[run]) for run in chosen}


def _ask_alpha(shown: Shown, best: float) -> float:
    """Draws the slider; an alpha in the address that was not measured means the nearest that was, none the best by the rule."""
    if st.session_state.get("alpha") not in shown.steps:
        st.session_state["alpha"] = alphas.nearest_alpha(shown.table, _number(st.query_params.get("alpha"), best))
    meaning = "Weights are (1 - alpha) x start + alpha x fine-tuned. These are the alphas that were measured."
    alpha = st.select_slider("alpha", shown.steps, key="alpha", format_func=lambda value: f"{value:g}", help=meaning)
    address.remember("alpha", f"{alpha:g}")
    return alpha


def _number(text: str | None, otherwise: float) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def _go_to(alpha: float) -> None:
    st.session_state["alpha"] = alpha


# --- what moves with alpha --------------------------------------------------------------------------------------------


@st.fragment
def explore(shown: Shown) -> None:
    """Slider and all that follows it: a step draws this again and leaves the rest of the page as it is.

    What does not move stands outside: every element here is sent and drawn at each step.
    """
    with errors_as_boxes():
        best = alphas.best_alpha(shown.table)
        alpha = _ask_alpha(shown, best)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(f"best alpha by rule: {best:g}", icon=":material/flag:", color="primary")
            st.button("Go there", key="wise.best", on_click=_go_to, args=(best,), disabled=alpha == best)
        _draw_metrics(shown, alpha)
        _draw_curves(shown, alpha)
        left, right = st.columns([3, 2])
        with left:
            _draw_changes(shown, alpha)
        with right:
            at_alpha.draw_download(shown.view, alpha, shown.root)
        at_alpha.draw_map(shown.view, alpha, shown.root)


def _draw_metrics(shown: Shown, alpha: float) -> None:
    here, start, end = (shown.table[shown.table["alpha"] == value].iloc[0] for value in (alpha, shown.steps[0], shown.steps[-1]))
    for column, name in zip(st.columns(len(shown.measures)), shown.measures, strict=True):
        unit, sign = (" points", "+") if name == "mean_delta_zs" else (" %", "")
        column.metric(TITLES[name], f"{here[name]:{sign}.1f}{unit}", f"{here[name] - end[name]:+.1f} points against alpha 1", border=True)
    st.caption(f"Against alpha 0: {', '.join(f'{TITLES[name]} {here[name] - start[name]:+.1f}' for name in shown.measures)} points.")


def _draw_curves(shown: Shown, alpha: float) -> None:
    """Curves along alpha, and beside them the same in the plane of ID and OOD."""
    colors, has_ood = _palette(), "ood_accuracy" in shown.measures
    left, right = st.columns(2) if has_ood else (st.container(), None)
    others = " Thin broken lines with open marks are the other runs." if shown.others else ""
    with left:
        st.subheader("Along alpha")
        read = "the larger marks are the chosen alpha. Below zero in the lower panel: held-out tasks lost zero-shot accuracy against the foundation model."
        figure = figures.wise_curves(shown.table, alpha, shown.measures, shown.others, colors)
        chart(figure, "wise.curves", read=read + others)
    if right is not None:
        with right:
            st.subheader("ID against OOD")
            read = "the line leads from the start to the fine-tuned model; the star is the chosen alpha. Up and to the right is better."
            figure = figures.wise_plane(shown.table, alpha, shown.others, colors, shown.name)
            chart(figure, "wise.plane", read=read + others)


def _draw_changes(shown: Shown, alpha: float) -> None:
    """A bar a held-out task; the axis is the same at every alpha."""
    st.subheader("Change on each held-out task")
    if shown.changes.empty or alpha not in shown.changes.index:
        words = "This run did not keep the change of single tasks along alpha; the mean stands in the charts above. New runs keep it."
        st.info(words if shown.view.config.held_out else "This run measured no held-out task.", icon=":material/info:")
        return
    read = "left of zero the task lost zero-shot accuracy at this alpha. The grey tick is where the fine-tuned model ends; the axis stays as alpha moves."
    chart(figures.change_bars(shown.changes, alpha), "wise.changes", read=read + shown.noise)


def _palette() -> Sequence[str]:
    return st.get_option(f"theme.{st.context.theme.type or 'light'}.chartCategoricalColors")


# --- what does not move -----------------------------------------------------------------------------------------------


def draw_tables(shown: Shown) -> None:
    """The numbers of all charts at every alpha; they stay as alpha moves, so a step need not draw them."""
    with st.expander("Show as table"):
        st.caption("Along alpha, and ID against OOD")
        table(shown.points, "wise.points", formats=FORMATS)
        if not shown.changes.empty:
            st.caption("Zero-shot change on each held-out task (points)")
            rows = shown.changes.rename_axis("alpha").reset_index()
            table(rows, "wise.changes", formats={"alpha": "%.1f"} | dict.fromkeys(shown.changes.columns, "%+.1f"))


def draw_about(shown: Shown) -> None:
    """What the ends are, and how far the numbers may be off."""
    method = METHODS.get(shown.view.config.method)
    st.caption(f"alpha 0 is the start: {head_start(shown.view)}. alpha 1 is the fine-tuned model. {_accuracy_noise(shown)}")
    if method and method.trains == "none":
        st.info("This run trains nothing between start and end, so all alphas are the same model.", icon=":material/info:")


def _accuracy_noise(shown: Shown) -> str:
    samples = {score.metric: score.n for score in shown.view.record.scores if score.metric in ("id_accuracy", "ood_accuracy")}
    end = shown.table.iloc[-1]
    found = [f"{TITLES[name]} ± {forgetting.noise(end[name] / 100, n) * 100:.1f} points ({n} images)" for name, n in samples.items() if name in shown.measures]
    if not found:
        return ""
    return f"Sampling noise of the test set at alpha 1, one seed: {', '.join(found)}. Neighbouring alphas that differ by less are not told apart."


def draw_best(shown: Shown) -> None:
    """The best alpha of each run, where there are several."""
    if not shown.others:
        return
    st.subheader("Best alpha of each run")
    rows = alphas.best_rows({shown.name: shown.table, **shown.others})[["run", "alpha", "val_accuracy", *shown.measures]]
    table(rows.rename(columns=alphas.TITLES | {"alpha": "best alpha"}), "wise.bests", formats=FORMATS | {"best alpha": "%.1f"})
    st.caption("By the rule above for each run alone, and what the run has there. One row is one run with one seed.")


def head_start(view: RunView) -> str:
    """Says what alpha 0 is for a run."""
    method = METHODS.get(view.config.method)
    start = view.config.options.get("head_start", (method.defaults if method else {}).get("head_start", "zero_shot"))
    return "the foundation model with a linear probe as its head" if start == "linear_probe" else "the foundation model with its zero-shot head"
