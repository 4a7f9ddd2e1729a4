"""The panels that a report can hold: for each its title, its words, charts and tables."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from . import foretelling
from .configs import command_line, config_json
from .doctor import versions
from .figures import compare, forgetting
from .figures.tables import csv_text, worded
from .side_by_side import FORMATS, SideBySide
from .types import UserError

PLANES = {
    "OOD": ("ID against OOD", "ID", "OOD", ("ID accuracy (%)", "OOD accuracy (%)")),
    "ZS": ("ID against zero-shot change", "ID", "mean Delta_ZS", ("ID accuracy (%)", "mean Δ zero-shot (points)")),
}
"""Title, columns and axes of each plane."""
READ_PLANE = (
    "up and to the right is better. Full diamonds are on the Pareto front: as measured here, "
    "no other run shown is better in one measure and as good in the other."
)
READ_LOSS = "loss of each training batch. The task loss can be compared between methods; objective and regularizer are on each method's own scale."
READ_KEPT = "share of each image's ten nearest neighbours that it still has, on the test images of the training domain. 100 % is the start; falling is drift."
READ_PATHS = "each line leads from the start (alpha 0) to the fine-tuned model (alpha 1, larger mark). Up is less forgetting, right is more accuracy."
ABOUT_TABLE = (
    "Accuracies (ID, OOD, A_LP = linear probe on the fine-tuned task), ECE and neighbours lost in percent, changes (Delta) in points; "
    "L2 drift and OTDD have no unit. "
    "Delta_ZS and Delta_LP: zero-shot and linear-probe accuracy on held-out tasks, after minus before; below zero is forgetting. "
    "ECE: how far confidence is from accuracy, in the training domain; 0 is best. Step: median time of a training step on the machine that ran it."
)
ABOUT_SEEDS = "± is half a 95 % interval of the mean over seeds (Student's t). It says how far another seed may lead, not how far other test images may."


@dataclass(frozen=True)
class Part:
    """One thing on a panel; what is empty is not drawn.

    Attributes:
        title: Heading above it.
        text: Words.
        code: A config or a command, as it is.
        figure: A chart.
        read: How to read the chart.
        table: Its numbers, or a table by itself, as words.
        csv: The same as CSV.
    """

    title: str = ""
    text: str = ""
    code: str = ""
    figure: go.Figure | None = None
    read: str = ""
    table: pd.DataFrame | None = None
    csv: str = ""


def chart(figure: go.Figure, read: str, twin: pd.DataFrame, formats: Mapping[str, str], title: str = "") -> Part:
    """Returns a chart with its reading line and its numbers."""
    return Part(title, figure=figure, read=read, table=worded(twin, formats), csv=csv_text(twin))


def panels(side: SideBySide, chosen: Iterable[str], picked: str | None = None) -> dict[str, list[Part]]:
    """Returns the parts of each chosen panel by its title, in the order of `PANELS`.

    Args:
        side: The runs.
        chosen: Keys of `PANELS`.
        picked: A run that is marked in the charts.

    Raises:
        UserError: If a panel is unknown or none is chosen; names those there are.
    """
    names = list(chosen)
    unknown = [name for name in names if name not in PANELS]
    if unknown or not names:
        raise UserError(f"{f'there is no panel {unknown[0]!r}' if unknown else 'no panel is chosen'}; choose among {', '.join(PANELS)}.")
    return {title: make(side, picked) for key, (title, make) in PANELS.items() if key in names}


# --- each panel -------------------------------------------------------------------------------------------------------


def _table(side: SideBySide, picked: str | None) -> list[Part]:
    several = side.means["seeds"].max() > 1
    text = f"{ABOUT_TABLE} {ABOUT_SEEDS if several else ''}".strip()
    return [Part(text=text, table=worded(side.table(), FORMATS), csv=csv_text(side.means.drop(columns="run")))]


def _verdict(side: SideBySide, picked: str | None) -> list[Part]:
    return [Part(kind.capitalize(), text=side.verdict(metric)) for metric, kind in forgetting.MEASURES.items()]


def read_plane(side: SideBySide) -> str:
    """Says how to read a plane of some runs."""
    return READ_PLANE + (" Thin bars: 95 % interval over seeds." if side.means["seeds"].max() > 1 else "")


def _planes(side: SideBySide, picked: str | None) -> list[Part]:
    found = []
    for title, x, y, axes in PLANES.values():
        if side.means[[x, y]].dropna().empty:
            found.append(Part(title, text="These runs did not measure both."))
        else:
            figure = compare.trade_off(side.means, x, y, axes, side.row_of(picked))
            found.append(chart(figure, read_plane(side), compare.plane_table(side.means, x, y), _with_halves(FORMATS), title))
    return found


def _loss(side: SideBySide, picked: str | None) -> list[Part]:
    if not side.histories:
        return [Part(text="None of these runs trained by steps, so there is no loss curve.")]
    curves, name = side.curves(), side.names.get(picked or "")
    twin = compare.loss_table(curves, "task_loss").reset_index()
    return [chart(compare.loss_curves(curves, "task_loss", name), READ_LOSS, twin, {}, "Task loss")]


def _kept(side: SideBySide, picked: str | None) -> list[Part]:
    found = []
    for along, title in (("step", "Along training"), ("alpha", "Along alpha")):
        moments = side.kept(along)
        if not moments.empty:
            figure = compare.kept_curves(moments, along, side.names.get(picked or ""))
            found.append(chart(figure, READ_KEPT, moments, {along: "%g", "neighbours kept (%)": "%.1f"}, title))
    return found or [Part(text="These runs kept no features between start and end, so there is no curve of drift.")]


def _forgetting(side: SideBySide, picked: str | None) -> list[Part]:
    found, labels = [], _labels(side)
    for metric, kind in forgetting.MEASURES.items():
        changes = forgetting.change_table(side.records, metric)
        if changes.empty:
            found.append(Part(text=f"These runs measured no {kind} change on a held-out task."))
            continue
        twin = changes.assign(run=changes["run"].map(side.names))[["run", "task", "change", "noise", "images"]]
        twin.columns = pd.Index(["run", "held-out task", "change (points)", "± noise", "test images"])
        formats = {"change (points)": "%+.1f", "± noise": "%.1f"}
        read = "left of zero the run lost accuracy on a task that it did not train on. The thin bars are the noise of the test images; seeds come on top."
        found.append(chart(forgetting.change_bars(changes, labels), read, twin, formats, f"Change on each held-out task: {kind}"))
        wide = changes.assign(run=changes["run"].map(side.names)).pivot(index="run", columns="task", values="change").reset_index()
        read = f"each cell is a change in points; orange is loss, blue is gain. The colours end at ± {forgetting.LIMIT:g} points."
        heat_formats = {title: "%+.1f" for title in wide.columns if title != "run"}
        found.append(chart(forgetting.change_heat(changes, labels), read, wide, heat_formats, f"All runs and held-out tasks: {kind}"))
    return found


def _distance(side: SideBySide, picked: str | None) -> list[Part]:
    pairs = foretelling.drift_pairs(side.records, "delta_lp")
    measures = foretelling.measures_of(pairs)
    if pairs.empty or not measures:
        return [Part(text="No run that moved measured both a change and a distance on a held-out task.")]
    measure = "otdd" if "otdd" in measures else measures[0]
    read = "each mark is one run on one held-out task. Further right its images moved further; above zero it was forgotten (linear probe, sign turned)."
    figure = forgetting.drift_scatter(pairs.assign(method=pairs["method"].map(compare.without_markup)), measure, _labels(side))
    twin = chart(figure, read, forgetting.pair_table(pairs, side.names), {"forgetting (points)": "%.1f"})
    correlations = forgetting.correlation_words(foretelling.correlations(pairs))
    return [Part(text=foretelling.verdict(pairs)), twin, Part("Correlation of forgetting with each distance", table=correlations, csv=csv_text(correlations))]


def _paths(side: SideBySide, picked: str | None) -> list[Part]:
    points = side.alpha_points().dropna(subset=["ID", "mean Delta_ZS"])
    if points.empty:
        return [Part(text="None of these runs measured the models between start and end.")]
    formats = {"alpha": "%g", **FORMATS}
    return [chart(compare.alpha_paths(points, side.names.get(picked or "")), READ_PATHS, points, formats)]


def _differences(side: SideBySide, picked: str | None) -> list[Part]:
    table = side.differences()
    if table.empty:
        return [Part(text="No setting but the seed differs.")]
    return [Part(text="Only settings in which the runs differ; – means that a run has no such setting.", table=table, csv=csv_text(table))]


def _configs(side: SideBySide, picked: str | None) -> list[Part]:
    found = []
    for view in side.views:
        try:
            command = command_line(view.config)
        except UserError as error:  # a method or task that is no longer here
            command = f"# no command line: {error}"
        except KeyError as error:
            command = f"# no command line: this version knows no setting {error}."
        found.append(Part(f"{side.names[view.run_id]} · {view.run_id} · seed {view.config.seed}", code=f"{command}\n\n{config_json(view.config).strip()}"))
    return found


def _versions(side: SideBySide, picked: str | None) -> list[Part]:
    table = pd.DataFrame(versions().items(), columns=["package", "version"])
    return [Part(text="Of the installation that wrote this report.", table=table, csv=csv_text(table))]


def _labels(side: SideBySide) -> dict[str, str]:
    return {run: compare.without_markup(name) for run, name in side.names.items()}


def _with_halves(formats: Mapping[str, str]) -> dict[str, str]:
    return {**formats, **{f"± {title}": form.replace("+", "") for title, form in formats.items()}}


PANELS: Mapping[str, tuple[str, Callable[[SideBySide, str | None], list[Part]]]] = {
    "verdict": ("Which method forgot least?", _verdict),
    "table": ("Methods and measures", _table),
    "planes": ("Trade-offs", _planes),
    "loss": ("Loss curves", _loss),
    "drift": ("Neighbours kept", _kept),
    "forgetting": ("Forgetting on held-out tasks", _forgetting),
    "distance": ("Does distance foretell forgetting?", _distance),
    "alpha": ("Between start and fine-tuned model", _paths),
    "differences": ("What differs in their settings", _differences),
    "configs": ("Configs and command lines", _configs),
    "versions": ("Versions", _versions),
}
"""What a report can hold, in its order: title and maker of each panel."""
