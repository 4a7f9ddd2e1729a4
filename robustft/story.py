"""What finished runs on one task tell, in five steps for somebody who has never seen a feature space; every number is read from the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from . import alphas, ranking
from .figures.forgetting import change_noise, change_table, noise
from .foretelling import correlations, drift_pairs, verdict
from .methods import METHODS
from .pipeline import RunView, get_wise
from .side_by_side import SideBySide
from .types import RunRecord

PLAIN = "ft"
"""Method without any protection: what the others are held against."""
NEIGHBORHOODS, WISE, FORGETTING = "pages/3_Neighborhoods.py", "pages/4_WiSE-FT.py", "pages/5_Forgetting.py"
PRETRAINED_ON = {
    "glyphclip": "GlyphCLIP was pre-trained on these same classes with their names, on most of the same glyphs drawn anew: this is no test of unseen classes."
}
"""What a foundation model had seen, where it is known: without it zero-shot accuracy is read as more than it is."""


@dataclass(frozen=True)
class Link:
    """A page where a step's number stands, or what belongs to it.

    Attributes:
        label: What it says.
        page: File below the app.
        query: What must stand in that page's address.
    """

    label: str
    page: str
    query: Mapping[str, str]


@dataclass(frozen=True)
class Step:
    """One step of the story.

    Attributes:
        title: What it is about.
        sentence: What happened, for somebody who is new to this.
        number: The one number of the step, with its unit.
        meaning: What the number is.
        caution: How far it may be off, and what it does not say.
        links: Where to look closer.
        chart: ``knowledge``, ``changes``, ``curve`` or ``distance``.
        runs: Runs that the step's chart shows, where it does not show all.
    """

    title: str
    sentence: str
    number: str
    meaning: str
    caution: str
    links: Sequence[Link]
    chart: str
    runs: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Cast:
    """Who is in the story: the plain run, the one whose regularizer forgot least, those it is not told apart from, and of how many it is the best."""

    plain: RunView
    best: RunView
    like_best: Sequence[str]
    rivals: int


def cast_of(side: SideBySide) -> Cast | None:
    """Returns the runs that the story is about; None if there is no plain run, or none with a regularizer to hold against it."""
    changes = change_table(side.records, "delta_zs")
    moved = {label: runs for label, runs in side.groups.items() if label not in ranking.unmoved(changes, side.groups)}
    protected = {label: runs for label, runs in moved.items() if METHODS[side.configs[runs[0]].method].regularizer}
    ranked = ranking.losses(changes, protected, side.configs)
    views = {view.run_id: view for view in side.views}
    plain = next((view for view in side.views if view.config.method == PLAIN), None)
    if plain is None or not ranked or side.row_of(plain.run_id) not in moved:
        return None
    alike = [loss.label for loss in ranked[1:] if (gap := ranking.difference(ranked[0], loss))[0] <= gap[1]]
    return Cast(plain, views[protected[ranked[0].label][0]], alike, len(ranked))


def tell(side: SideBySide) -> list[Step]:
    """Returns the five steps, or four where no curve was measured; none if these runs do not make a story."""
    cast = cast_of(side)
    if cast is None:
        return []
    return [_before(cast), _moved(side, cast), _protected(side, cast), *_between(side, cast), _cost(side, cast)]


def knowledge(record: RunRecord) -> pd.DataFrame:
    """Returns what the foundation model knew of each task: zero-shot accuracy and its noise, mean over domains, in percent."""
    scores = [score for score in record.scores if score.metric == "zs_accuracy_0"]
    rows = [(score.dataset, 100 * score.value, (100 * noise(score.value, score.n)) ** 2, score.n) for score in scores]
    means = pd.DataFrame(rows, columns=["task", "accuracy (%)", "variance", "n"]).groupby("task", sort=False)
    parts = {"variance": ("variance", "sum"), "parts": ("variance", "size"), "test images": ("n", "sum")}
    table = means.agg(**{"accuracy (%)": ("accuracy (%)", "mean"), **parts}).reset_index()
    return table.assign(**{"±": np.sqrt(table["variance"]) / table["parts"]})[["task", "accuracy (%)", "±", "test images"]]


# --- the steps --------------------------------------------------------------------------------------------------------


def _before(cast: Cast) -> Step:
    known = knowledge(cast.plain.record)
    mean, off = known["accuracy (%)"].mean(), float(np.sqrt((known["±"] ** 2).sum())) / len(known)
    words = (
        f"Before it is fine-tuned, the model already names pictures of {len(known)} tasks, given nothing but the names of the classes. "
        "It learned that in its pre-training. This is what can be lost."
    )
    caution = f"± {off:.1f} points from the number of test images ({known['test images'].sum():,}). {PRETRAINED_ON.get(cast.plain.config.model, '')}"
    links = [_forgetting("What fine-tuning did to these tasks", cast.plain.run_id)]
    return Step("The model before", words, f"{mean:.0f} %", "right on average over all tasks (zero-shot)", caution.strip(), links, "knowledge")


def _moved(side: SideBySide, cast: Cast) -> Step:
    scores, task = _values(cast.plain.record), cast.plain.config.dataset
    mean, off = _mean_change(cast.plain)
    fate = "it gets worse" if mean < -off else "it gets better" if mean > off else "no change can be told from noise"
    words = (
        f"Plain fine-tuning teaches it {task}: {100 * scores['id_accuracy']:.0f} % right there now.{_neighbors_words(cast.plain)} "
        f"On the other tasks, which it was not fine-tuned on, {fate}."
    )
    caution = f"± {off:.1f} points from the number of test images.{_seed_words(side, cast.plain)}"
    return Step("Plain fine-tuning", words, f"{mean:+.1f} points", "mean zero-shot change on the other tasks", caution, _links([cast.plain.run_id]), "changes",
                [cast.plain.run_id])  # fmt: skip


def _protected(side: SideBySide, cast: Cast) -> Step:
    scores, (mean, off) = _values(cast.best.record), _mean_change(cast.best)
    picked = f" It is the best of {cast.rivals} on these same test images, which flatters it." if cast.rivals > 1 else ""
    alike = f" It is not told apart from {' and '.join(cast.like_best)}." if cast.like_best else ""
    no_ranking = " One seed is no ranking of methods." if len({view.config.seed for view in side.views}) == 1 else ""
    words = (
        f"{_again(cast)}, but with a leash on how far the model may move ({side.names[cast.best.run_id]}): it {_learned(cast)} "
        f"({100 * scores['id_accuracy']:.0f} % right) and {_lost(cast)}."
    )
    caution = f"± {off:.1f} points from the number of test images.{picked}{alike}{_seed_words(side, cast.best)}{no_ranking}"
    runs = [cast.plain.run_id, cast.best.run_id]
    title = "The same, with protection"
    return Step(title, words, f"{mean:+.1f} points", "mean zero-shot change on the other tasks", caution, _links(runs), "changes", runs)


def _between(side: SideBySide, cast: Cast) -> list[Step]:
    points = get_wise(cast.plain.run_id, side.root)
    if not points:
        return []
    table = alphas.wise_table(points)
    best = alphas.best_alpha(table)
    here, end = (table.loc[table["alpha"] == alpha].iloc[0] for alpha in (best, 1.0))
    titles = {"id_accuracy": ("{:.0f} %", "right on the task"), "ood_accuracy": ("{:.0f} %", "right on it in another style"),
              "mean_delta_zs": ("{:+.1f} points", "on the other tasks")}  # fmt: skip
    told = [f"{form.format(here[name])} {what} (fine-tuned: {form.format(end[name])})" for name, (form, what) in titles.items() if here[name] == here[name]]
    words = f"The model before and the model after can be mixed, like two colours. With {100 * best:.0f} % of the fine-tuned one: {', '.join(told)}."
    n = next(score.n for score in cast.plain.record.scores if score.metric == "id_accuracy")
    caution = (
        f"The rule: of the mixes within {alphas.SLACK:g} point of the best on validation images, the one that lost least on the other tasks. That loss is "
        f"read on the same test images as this chart, which flatters it a little. Accuracy on the task: ± {100 * noise(here['id_accuracy'] / 100, n):.1f} "
        f"points from {n} test images.{_seed_words(side, cast.plain)}"
    )
    links = [Link("See this number on WiSE-FT", WISE, {"run": cast.plain.run_id, "alpha": f"{best:g}"})]
    return [Step("A slider between both", words, f"{best:g}", "alpha that the rule picks", caution, links, "curve", [cast.plain.run_id])]


def _cost(side: SideBySide, cast: Cast) -> Step:
    changes = change_table([cast.plain.record], "delta_zs")
    worst = changes.loc[changes["change"].idxmin()]
    pairs = drift_pairs(side.records, "delta_zs")
    words = (
        f"Plain fine-tuning hurts {worst['task']} most. Could one have told from how far its pictures moved in feature space (OTDD)? {_foretold(pairs, cast)}"
    )
    caution = (
        f"± {worst['noise']:.1f} points from {worst['images']} test images; the worst of {len(changes)} tasks is low by chance alone, too. "
        f"OTDD was measured after training, with labels, on the same images: it goes along with forgetting, it did not forecast it. "
        f"{verdict(pairs)}{_seed_words(side, cast.plain)}"
    )
    links = [Link("See this number on Forgetting", FORGETTING, {"runs": cast.plain.run_id, "measure": "otdd"})]
    title = "What it costs, and whether it could be foreseen"
    return Step(title, words, f"{worst['change']:+.1f} points", f"plain fine-tuning on {worst['task']}", caution, links, "distance")


# --- words ------------------------------------------------------------------------------------------------------------


def _links(runs: Sequence[str]) -> list[Link]:
    return [_forgetting("See this number on Forgetting", *runs), Link("See what moved on Neighborhoods", NEIGHBORHOODS, {"run": runs[-1]})]


def _forgetting(label: str, *runs: str) -> Link:
    return Link(label, FORGETTING, {"runs": ",".join(runs)})


def _seed_words(side: SideBySide, view: RunView) -> str:
    """Says how many draws of the training a run stands for."""
    seeds = len(side.groups[side.row_of(view.run_id) or ""])
    if seeds == 1:
        return " One seed: another draw of the training may differ by more."
    return f" This is seed {view.config.seed}, one of {seeds}; the others differ."


def _neighbors_words(view: RunView) -> str:
    """Says what moved on the trained task: of ten nearest pictures, how many stayed, beside what a mere change of crop leaves."""
    scores = _values(view.record)
    if "drift_neighbors_lost" not in scores or "overlap_floor" not in scores:
        return ""
    kept, floor = 10 * (1 - scores["drift_neighbors_lost"]), 10 * scores["overlap_floor"]
    return f" Its picture of the world shifted: of the ten pictures most like a given one, {kept:.1f} stayed (two crops of one picture share {floor:.1f})."


def _again(cast: Cast) -> str:
    """Says whether the two runs share all settings that both methods have."""
    ours, theirs = cast.plain.config.options, cast.best.config.options
    differ = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    return f"Nearly the same training (another {' and '.join(differ)})" if differ else "The same training"


def _learned(cast: Cast) -> str:
    """Says how ID accuracy with protection stands to the one without, beyond the noise of the test images."""
    (plain, n), (best, _) = (next((s.value, s.n) for s in view.record.scores if s.metric == "id_accuracy") for view in (cast.plain, cast.best))
    if abs(best - plain) <= change_noise(plain, best, n):
        return "learns as much, as far as the test can tell"
    return "learns more" if best > plain else "learns less"


def _lost(cast: Cast) -> str:
    """Says how what was lost with protection stands to what was lost without."""
    (plain, off_0), (best, off_1) = _mean_change(cast.plain), _mean_change(cast.best)
    if best - plain <= np.hypot(off_0, off_1):
        return "what it loses cannot be told from that"
    return "loses far less" if abs(best) < abs(plain) / 2 else "loses less"


def _foretold(pairs: pd.DataFrame, cast: Cast) -> str:
    """Says whether more distance went with more forgetting: over all runs, and among the tasks of the plain run, where no run stands for strength."""
    if "otdd" not in pairs:
        return "These runs did not measure the distance."
    pairs = pairs[["run", "method", "downstream", "seed", "task", "forgetting", "otdd"]]
    whole, own = (correlations(rows).iloc[0] for rows in (pairs, pairs[pairs["run"] == cast.plain.run_id]))
    over_all = {1: "where pictures moved further, more was forgotten", -1: "where pictures moved further, less was forgotten"}.get(
        _sign(whole), "no link shows"
    )
    within = {1: "the link holds", -1: "the link is reversed"}.get(_sign(own), "it may be chance")
    tasks = f"Among the {own['tasks']:.0f} tasks of plain fine-tuning alone {within}: {_correlation(own)}."
    return f"Over all runs, {over_all}: rank correlation {_correlation(whole)}. But a run that moves everything more also forgets more. {tasks}"


def _sign(row: pd.Series) -> int:
    """Returns 1 or -1 where an interval leaves out 0, else 0."""
    return 1 if row["spearman_low"] > 0 else -1 if row["spearman_high"] < 0 else 0


def _correlation(row: pd.Series) -> str:
    if not np.isfinite(row[["spearman_low", "spearman_high"]].astype(float)).all():
        return "too few tasks to say how strong"
    return f"{row['spearman']:.2f} (95 % interval {row['spearman_low']:.2f} to {row['spearman_high']:.2f})"


# --- numbers ----------------------------------------------------------------------------------------------------------


def _mean_change(view: RunView) -> tuple[float, float]:
    """Returns the mean zero-shot change over held-out tasks, and its noise, in points."""
    table = change_table([view.record], "delta_zs")
    return float(table["change"].mean()), float(np.sqrt((table["noise"] ** 2).sum())) / len(table)


def _values(record: RunRecord) -> dict[str, float]:
    """Returns a run's scores on its own task, those of the first domain where there are several."""
    return {score.metric: score.value for score in reversed(record.scores) if score.dataset == record.config.dataset}
