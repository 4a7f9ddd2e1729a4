"""What finished runs on one task tell, in five steps for somebody who has never seen a feature space; every number is read from the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from . import alphas, ranking
from .figures.forgetting import change_noise, change_table, noise
from .foretelling import drift_pairs, verdict
from .pipeline import RunView, get_wise
from .side_by_side import SideBySide
from .types import RunRecord

PLAIN = "ft"
"""Method without any protection: what the others are held against."""
NEIGHBORHOODS, WISE, FORGETTING = "pages/3_Neighborhoods.py", "pages/4_WiSE-FT.py", "pages/5_Forgetting.py"


@dataclass(frozen=True)
class Step:
    """One step of the story.

    Attributes:
        title: What it is about.
        sentence: What happened, for somebody who is new to this.
        number: The one number of the step, with its unit.
        meaning: What the number is.
        caution: How far it may be off, and what it does not say.
        page: Where it comes from.
        query: What must stand in that page's address.
        runs: Runs whose changes the step's chart shows.
    """

    title: str
    sentence: str
    number: str
    meaning: str
    caution: str
    page: str
    query: Mapping[str, str]
    runs: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Cast:
    """Who is in the story: the plain run, the one that forgot least of those that train, and those it is not told apart from."""

    plain: RunView
    best: RunView
    like_best: Sequence[str]


def cast_of(side: SideBySide) -> Cast | None:
    """Returns the runs that the story is about; None if there is no plain run, or nothing to hold against it."""
    changes = change_table(side.records, "delta_zs")
    moved = {label: runs for label, runs in side.groups.items() if label not in ranking.unmoved(changes, side.groups)}
    ranked = ranking.losses(changes, moved, side.configs)
    views = {view.run_id: view for view in side.views}
    plain = next((view for view in side.views if view.config.method == PLAIN), None)
    if plain is None or not ranked or plain.run_id in moved[ranked[0].label]:
        return None
    alike = [loss.label for loss in ranked[1:] if (gap := ranking.difference(ranked[0], loss))[0] <= gap[1]]
    return Cast(plain, views[moved[ranked[0].label][0]], alike)


def tell(side: SideBySide) -> list[Step]:
    """Returns the five steps; none if these runs do not make a story."""
    cast = cast_of(side)
    if cast is None:
        return []
    return [_before(side, cast), _moved(cast), _protected(side, cast), _between(side, cast), _cost(side, cast)]


def knowledge(record: RunRecord) -> pd.DataFrame:
    """Returns what the foundation model knew of each task: zero-shot accuracy and its noise, mean over domains, in percent."""
    scores = [score for score in record.scores if score.metric == "zs_accuracy_0"]
    rows = [(score.dataset, 100 * score.value, (100 * noise(score.value, score.n)) ** 2) for score in scores]
    means = pd.DataFrame(rows, columns=["task", "accuracy (%)", "variance"]).groupby("task", sort=False)
    table = means.agg(**{"accuracy (%)": ("accuracy (%)", "mean"), "variance": ("variance", "sum"), "parts": ("variance", "size")}).reset_index()
    return table.assign(**{"±": np.sqrt(table["variance"]) / table["parts"]})[["task", "accuracy (%)", "±"]]


def _before(side: SideBySide, cast: Cast) -> Step:
    known = knowledge(cast.plain.record)
    mean, off = known["accuracy (%)"].mean(), float(np.sqrt((known["±"] ** 2).sum())) / len(known)
    words = (
        f"Before anything is trained, the model already recognises {len(known)} kinds of pictures, from nothing but the names of the classes. "
        "This is what can be lost."
    )
    caution = f"± {off:.1f} points from the number of test images. Chance would be a few percent."
    return Step("The model before", words, f"{mean:.0f} %", "right on average over all tasks, never trained on one of them", caution, FORGETTING, {})


def _moved(cast: Cast) -> Step:
    scores, task = _values(cast.plain.record), cast.plain.config.dataset
    mean, off = _mean_change(cast.plain)
    words = (
        f"Plain fine-tuning teaches it {task}: {100 * scores['id_accuracy']:.0f} % right there now. But its picture of the world shifts as it learns: "
        "on the tasks that nobody trained, it gets worse."
    )
    caution = f"± {off:.1f} points from the number of test images; one seed, so another draw of the training may differ by more."
    query = {"run": cast.plain.run_id}
    return Step("Plain fine-tuning", words, f"{mean:+.1f} points", "mean change on the other tasks", caution, NEIGHBORHOODS, query, [cast.plain.run_id])


def _protected(side: SideBySide, cast: Cast) -> Step:
    scores, (mean, off) = _values(cast.best.record), _mean_change(cast.best)
    alike = f" It is not told apart from {' and '.join(cast.like_best)}." if cast.like_best else ""
    words = (
        f"The same training, but with a leash on how far the model may move ({side.names[cast.best.run_id]}): it {_learned(cast)} "
        f"({100 * scores['id_accuracy']:.0f} % right) and {_lost(cast)}."
    )
    caution = f"± {off:.1f} points from the number of test images.{alike} One seed is no ranking of methods."
    runs = [cast.plain.run_id, cast.best.run_id]
    return Step("The same, with protection", words, f"{mean:+.1f} points", "mean change on the other tasks", caution, NEIGHBORHOODS, {"run": runs[1]}, runs)


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


def _between(side: SideBySide, cast: Cast) -> Step:
    table = alphas.wise_table(get_wise(cast.plain.run_id, side.root))
    best = alphas.best_alpha(table)
    here, end = (table.loc[table["alpha"] == alpha].iloc[0] for alpha in (best, 1.0))
    words = (
        "The model before and the model after can be mixed, like two colours. A mix keeps what was learned and much of what was known: at this share of the "
        f"fine-tuned weights, {here['id_accuracy']:.0f} % are right on the task and {here['ood_accuracy']:.0f} % on pictures in another style "
        f"(fine-tuned: {end['id_accuracy']:.0f} and {end['ood_accuracy']:.0f} %)."
    )
    caution = f"Chosen on validation images, never on the test: within {alphas.SLACK:g} point of the best there, the least forgetful mix."
    query = {"run": cast.plain.run_id, "alpha": f"{best:g}"}
    return Step("A slider between both", words, f"{best:g}", "alpha to ship, by the rule", caution, WISE, query)


def _cost(side: SideBySide, cast: Cast) -> Step:
    worst = min(((s.value, s.dataset) for s in _task_changes(cast.plain)), key=lambda pair: pair[0])
    pairs = drift_pairs(side.records, "delta_zs")
    words = (
        f"Where it hurts most is {worst[1]}. Can one see it coming, without labels of those tasks? The further a task's pictures move in feature space "
        f"(measured by optimal transport, OTDD, or by plain distance, L2), the more is forgotten. {verdict(pairs)}"
    )
    caution = "The worst of many tasks is low by chance alone, too. A correlation is no cause."
    return Step("What it costs, and whether it could be foreseen", words, f"{100 * worst[0]:+.1f} points", f"plain fine-tuning on {worst[1]}", caution,
                FORGETTING, {"measure": "otdd"})  # fmt: skip


@dataclass(frozen=True)
class _Change:
    dataset: str
    value: float


def _task_changes(view: RunView) -> list[_Change]:
    table = change_table([view.record], "delta_zs")
    return [_Change(str(row.task), float(row.change) / 100) for row in table.itertuples()]


def _mean_change(view: RunView) -> tuple[float, float]:
    """Returns the mean zero-shot change over held-out tasks, and its noise, in points."""
    table = change_table([view.record], "delta_zs")
    return float(table["change"].mean()), float(np.sqrt((table["noise"] ** 2).sum())) / len(table)


def _values(record: RunRecord) -> dict[str, float]:
    return {score.metric: score.value for score in record.scores if score.dataset == record.config.dataset}
