"""Which method forgot least, and whether the noise of test images and seeds allows to say so."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from .intervals import half_interval
from .types import RunConfig

FIXED = ("method", "task", "seed", "test images", "run")
"""Columns of a table of runs that are no measures."""
STILL = 1e-9
"""Change in points up to which nothing changed."""


# --- means over seeds -------------------------------------------------------------------------------------------------


def recipe_of(config: RunConfig) -> str:
    """Returns all of a config but the seed and the device: runs of one recipe differ by chance only."""
    return repr((config.model, config.dataset, config.method, sorted(config.options.items()), config.held_out))


def recipes(runs: Iterable[str], configs: Mapping[str, RunConfig], names: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the runs of each recipe, by a label: the name of its first run, without the seed where there are several.

    Example:
        >>> configs = {run: RunConfig("m", "food", "ft", seed) for run, seed in (("a", 0), ("b", 1))} | {"c": RunConfig("m", "food", "fda")}
        >>> recipes(configs, configs, {"a": "ft s0", "b": "ft s1", "c": "fda"})
        {'ft': ['a', 'b'], 'fda': ['c']}
    """
    groups: dict[str, list[str]] = {}
    for run in runs:
        groups.setdefault(recipe_of(configs[run]), []).append(run)
    found: dict[str, list[str]] = {}
    for own in groups.values():
        label = names[own[0]].replace(f" s{configs[own[0]].seed}", "") if len(own) > 1 else names[own[0]]
        found[label if label not in found else names[own[0]]] = own
    return found


def over_seeds(table: pd.DataFrame, configs: Mapping[str, RunConfig], names: Mapping[str, str]) -> pd.DataFrame:
    """Returns one row a recipe: means over its seeds, how many there are, and half of each mean's 95 % interval (Student's t).

    Args:
        table: One row a run, with the columns `FIXED` and numbers.
        configs: By run.
        names: Short name of each run.

    Returns:
        Columns method, task, seeds, test images if the table has them, every measure, ``± measure`` for each once there are
        several seeds, and run: the first of the recipe.
    """
    measures, counts = [name for name in table.columns if name not in FIXED], [name for name in table.columns if name == "test images"]
    groups = recipes(table["run"], configs, names)
    rows = []
    for label, runs in groups.items():
        own = table[table["run"].isin(runs)]
        halves = {f"± {name}": half_interval(own[name].tolist()) for name in measures}
        fixed = {"method": label, "task": own["task"].iloc[0], "seeds": len(own), **own[counts].min().to_dict(), "run": runs[0]}
        rows.append(fixed | own[measures].mean().to_dict() | halves)
    several = any(row["seeds"] > 1 for row in rows)
    return pd.DataFrame(rows, columns=["method", "task", "seeds", *counts, *measures, *(f"± {name}" for name in measures if several), "run"])


def cells(means: pd.DataFrame, formats: Mapping[str, str]) -> pd.DataFrame:
    """Returns a table of `over_seeds` for reading: mean and half interval in one cell, – where nothing was measured.

    Args:
        means: From `over_seeds`.
        formats: Number format by measure, as ``"%+.1f"``.

    Example:
        >>> cells(pd.DataFrame({"method": ["ft", "fda"], "ID": [81.24, 80.0], "± ID": [0.91, float("nan")]}), {"ID": "%.1f"}).to_dict("list")
        {'method': ['ft', 'fda'], 'ID': ['81.2 ± 0.9', '80.0']}
    """

    def cell(row: Mapping[str, Any], title: str) -> str:
        form, half = formats[title], row.get(f"± {title}", np.nan)
        return ("–" if np.isnan(row[title]) else form % row[title]) + ("" if np.isnan(half) else f" ± {form.replace('+', '') % half}")

    rows = means.to_dict("records")
    kept = [title for title in means.columns if not title.startswith("± ")]
    return pd.DataFrame({title: [cell(row, title) if title in formats else row[title] for row in rows] for title in kept})


# --- the verdict ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """What a recipe lost on the held-out tasks, in points; below zero is forgetting.

    Attributes:
        label: Its name.
        by_seed: Mean change over the tasks, by seed.
        images: Half a 95 % interval of the mean over test images. Seeds share their images, so more seeds do not make it smaller.
    """

    label: str
    by_seed: Mapping[int, float]
    images: float

    @property
    def mean(self) -> float:
        """Mean change over seeds."""
        return fmean(self.by_seed.values())

    @property
    def noise(self) -> float:
        """Half a 95 % interval over test images, and over seeds if there are several."""
        return float(np.hypot(self.images, np.nan_to_num(half_interval(list(self.by_seed.values())))))

    def __str__(self) -> str:
        return f"{self.label} {self.mean:+.1f} ± {self.noise:.1f}"


def difference(one: Loss, other: Loss) -> tuple[float, float]:
    """Returns how much less one forgot than the other, with half its 95 % interval.

    Seeds that both have are paired: they drew the same batches. Test images count as if each had its own, which errs on the
    side of caution.

    Example:
        Paired by seed the difference is 2 both times, so all noise is the images': hypot(0.3, 0.4).

        >>> difference(Loss("a", {0: -1.0, 1: -3.0}, 0.3), Loss("b", {0: -3.0, 1: -5.0}, 0.4))
        (2.0, 0.5)
    """
    shared = [one.by_seed[seed] - other.by_seed[seed] for seed in one.by_seed if seed in other.by_seed]
    if len(shared) > 1:
        seeds, gap = half_interval(shared), fmean(shared)
    else:
        seeds = float(np.hypot(*(np.nan_to_num(half_interval(list(loss.by_seed.values()))) for loss in (one, other))))
        gap = one.mean - other.mean
    return gap, round(float(np.sqrt(one.images**2 + other.images**2 + seeds**2)), 9)


def shared_tasks(changes: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> set[str]:
    """Returns the held-out tasks that every run measured: means over other ones could not be compared."""
    measured = [set(changes.loc[changes["run"] == run, "task"]) for runs in groups.values() for run in runs]
    return set.intersection(*measured) if measured else set()


def losses(changes: pd.DataFrame, groups: Mapping[str, Sequence[str]], configs: Mapping[str, RunConfig]) -> list[Loss]:
    """Returns what each recipe lost on the held-out tasks that all of them measured, the least forgetful first.

    Args:
        changes: One row a run and task: run, task, change and noise in points, as `figures.forgetting.change_table` makes it.
        groups: From `recipes`.
        configs: By run.
    """
    shared = shared_tasks(changes, groups)
    if not shared:
        return []
    rows = changes[changes["task"].isin(shared)]
    found = []
    for label, runs in groups.items():
        own = {run: rows[rows["run"] == run] for run in runs}
        noise = [float(np.sqrt((part["noise"] ** 2).sum())) / len(part) for part in own.values()]
        found.append(Loss(label, {configs[run].seed: float(part["change"].mean()) for run, part in own.items()}, fmean(noise)))
    return sorted(found, key=lambda loss: -loss.mean)


def unmoved(changes: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the recipes that changed nothing on any held-out task: they cannot forget, and rank with nobody."""
    still = {run for run, own in changes.groupby("run") if own["change"].abs().max() <= STILL}
    return [label for label, runs in groups.items() if set(runs) <= still]


def verdict(
    changes: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    configs: Mapping[str, RunConfig],
    kind: str = "zero-shot",
    accuracy: Mapping[str, float] | None = None,
) -> str:
    r"""Says which method forgot least and whether that is beyond noise, and names those that are not told apart.

    Args:
        changes: As for `losses`.
        groups: From `recipes`.
        configs: By run.
        kind: Which change, in words.
        accuracy: ID accuracy in percent by label; a method that learned nothing forgets nothing, so it is told beside.

    Example:
        >>> changes = pd.DataFrame({"run": ["a", "b"], "task": "digits", "change": [-2.2, -13.0], "noise": [0.8, 0.9]})
        >>> configs = {"a": RunConfig("m", "food", "ldifs"), "b": RunConfig("m", "food", "ft")}
        >>> print(verdict(changes, {"ldifs": ["a"], "ft": ["b"]}, configs).replace(". ", ".\n"))
        ldifs forgot least: mean zero-shot change -2.2 ± 0.8 points on 1 held-out task.
        Next is ft -13.0 ± 0.9; the difference of 10.8 ± 1.2 is beyond the noise of the test images.
        1 seed: noise between seeds comes on top.
    """
    if changes.empty:
        return f"These runs measured no {kind} change on a held-out task."
    still = unmoved(changes, groups)
    moved = {label: runs for label, runs in groups.items() if label not in still}
    ranked = losses(changes, moved, configs)
    tail = f" {_listed(still)} changed nothing and {'is' if len(still) == 1 else 'are'} left out." if still else ""
    if not ranked:
        why = "None of these methods changed a held-out task." if len(still) == len(groups) else "These methods have no held-out task in common."
        return f"{why} Nothing can be ranked."
    told = {loss.label: f"{loss} (ID {accuracy[loss.label]:.1f} %)" if accuracy and loss.label in accuracy else str(loss) for loss in ranked}
    tasks = len(shared_tasks(changes, moved))
    scale = f"on {tasks} held-out task{'s' if tasks != 1 else ''}"
    if len(ranked) == 1:
        return f"Only one method changed anything: mean {kind} change {told[ranked[0].label]} points {scale}. Nothing can be ranked.{tail}"
    return _ranking(ranked, told, kind, scale) + _seed_words(ranked) + tail


def _ranking(ranked: Sequence[Loss], told: Mapping[str, str], kind: str, scale: str) -> str:
    best, gaps = ranked[0], {loss.label: difference(ranked[0], loss) for loss in ranked[1:]}
    apart = [loss for loss in ranked[1:] if gaps[loss.label][0] > gaps[loss.label][1]]
    tied = [best, *(loss for loss in ranked[1:] if loss not in apart)]
    if len(tied) == 1:
        words = f"{best.label} forgot least: mean {kind} change {told[best.label].removeprefix(best.label + ' ')} points {scale}."
    else:
        claim = "forgot least, and are not told apart" if apart else "are not told apart"
        words = f"{_listed([loss.label for loss in tied])} {claim}; mean {kind} change {scale}, in points: {_listed([told[loss.label] for loss in tied])}."
    if not apart:
        return words
    gap, noise = gaps[apart[0].label]
    noun = "noise of the test images" + (" and of the seeds" if all(len(loss.by_seed) > 1 for loss in (best, apart[0])) else "")
    words += f" Next is {told[apart[0].label]}; the difference of {gap:.1f} ± {noise:.1f}" + (f" to {best.label}" if len(tied) > 1 else "")
    words += f" is beyond the {noun}."
    return words + (f" Most was lost by {told[apart[-1].label]}." if len(apart) > 1 else "")


def _seed_words(ranked: Sequence[Loss]) -> str:
    single = [loss.label for loss in ranked if len(loss.by_seed) == 1]
    if not single:
        return ""
    return " 1 seed: noise between seeds comes on top." if len(single) == len(ranked) else f" 1 seed of {_listed(single)}: noise between seeds comes on top."


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
