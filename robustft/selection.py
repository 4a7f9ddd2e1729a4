"""A study in two parts: strengths are chosen on validation by one fixed rule, then every method is run with its own."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from .intervals import half_interval
from .pipeline import RunView, get_history, get_runs
from .store import run_id_of
from .study import COLUMNS, DRIFTS, Study, comparison
from .types import RunConfig, UserError

ALLOWED_DROP = 0.005
"""Validation accuracy that a strength may cost against plain fine-tuning."""
Report = Callable[[str], None]


def candidates(study: Study) -> dict[str, list[tuple[dict[str, float], list[RunConfig]]]]:
    """Returns for each method with a strength its values, weakest first, each with its runs: the first seed, no held-out task."""

    def runs(method: str, options: Mapping[str, Any]) -> list[RunConfig]:
        full = [study.config(method, dataset, study.seeds[0], options) for dataset in study.datasets]
        return [replace(config, held_out=(), curve=False) for config in full]

    found = {method: [({name: value}, runs(method, {name: value})) for value in values] for method, (name, values) in study.strengths.items()}
    return {"ft": [({}, runs("ft", {}))], **found} if found else {}


def choose(study: Study, root: Path) -> dict[str, dict[str, float]]:
    """Chooses each method's strength: the strongest whose validation accuracy is at most 0.5 points below fine-tuning's.

    The accuracy is that of the training domain's validation images, averaged over the study's tasks; test images, other
    domains and held-out tasks are not looked at. If no value qualifies, the weakest is taken.

    Raises:
        UserError: If a run that the choice needs is not finished.
    """
    views = {view.run_id: view for view in get_runs(root)}
    tried = candidates(study)
    if not tried:
        return {}
    yardstick = _validation(tried.pop("ft")[0][1], views)
    if yardstick is None:
        raise UserError("the plain fine-tuning runs of the study are not finished; run the study again to resume it.")
    chosen = {}
    for method, values in tried.items():
        accuracies = [_validation(configs, views) for _, configs in values]
        within = [options for (options, _), accuracy in zip(values, accuracies, strict=True) if accuracy is not None and accuracy >= yardstick - ALLOWED_DROP]
        chosen[method] = within[-1] if within else values[0][0]
    return chosen


def _validation(configs: Sequence[RunConfig], views: Mapping[str, RunView]) -> float | None:
    """Returns the mean validation accuracy of some runs; None if one of them failed or is not there."""
    found = [views[name].summary.get("val_accuracy") for name in map(run_id_of, configs) if name in views and views[name].state == "finished"]
    return statistics.fmean(v for v in found if v is not None) if len(found) == len(configs) else None


def validation_table(study: Study, root: Path) -> pd.DataFrame:
    """Returns what the choice was made from: method, strength, mean validation, ID and OOD accuracy in percent, and the choice."""
    views, rows, chosen = {view.run_id: view for view in get_runs(root)}, [], choose(study, root)
    for method, values in candidates(study).items():
        for options, configs in values:
            names = [name for name in map(run_id_of, configs) if name in views and views[name].state == "finished"]
            means = {
                key: 100 * statistics.fmean(views[name].summary[f"{key}_accuracy"] for name in names) if names else math.nan for key in ("val", "id", "ood")
            }
            strength = " ".join(f"{key}={value:g}" for key, value in options.items())
            rows.append({"method": method, "strength": strength, **means, "runs": len(names), "chosen": chosen.get(method) == options})
    return pd.DataFrame(rows)


def carry_out(study: Study, root: Path, report: Report) -> None:
    """Works off a study in this process, first the runs that strengths are chosen from; what is finished stays.

    Several processes can share a study: a run that another one holds is passed over and looked at again later.

    Args:
        study: What to run.
        root: Cache folder.
        report: Receives a line for each run.

    Raises:
        Stopped: If the process was asked to stop; the same call goes on where it was.
    """
    _carry_out([config for values in candidates(study).values() for _, configs in values for config in configs], root, report)
    _carry_out(study.configs(choose(study, root)), root, report)


def _carry_out(configs: Sequence[RunConfig], root: Path, report: Report) -> None:
    from .run import run  # torch stays out of processes that only look at studies
    from .store import RunBusy

    waiting, done = list(configs), 0
    while waiting:
        busy = []
        for config in waiting:
            begin = time.monotonic()
            try:
                record = run(config, root=root, report=lambda line: None)
                done += 1
                report(f"{done}/{len(configs)} {record.run_id} {time.monotonic() - begin:.0f} s")
            except RunBusy:
                busy.append(config)
            except UserError as error:
                done += 1
                report(f"{done}/{len(configs)} {run_id_of(config)} failed: {error}")
        waiting = busy
        time.sleep(2 if busy else 0)


def intervals(views: Sequence[RunView], root: Path) -> pd.DataFrame:
    """Returns a row a method: each measure averaged over the tasks, then its mean over seeds with a 95 % interval.

    The interval is Student's t over seeds: it says how far another seed may lead on these tasks, not how far other tasks
    may. Methods without draws have one value and no interval.

    Args:
        views: Finished runs of a study.
        root: Cache folder, for the time of steps.
    """
    table = comparison(views)
    rows = []
    for method, runs in table.groupby("method", sort=False):
        by_seed = runs.groupby("seed")[list(COLUMNS.values())].mean()
        row: dict[str, Any] = {"method": method, "n": len(by_seed), "runs": len(runs)}
        for title in COLUMNS.values():
            row |= {title: by_seed[title].mean(), f"+- {title}": half_interval(by_seed[title].tolist())}
        times = [record.seconds for name in runs["run"] for record in get_history(name, root)[5:]]
        rows.append(row | {"step (ms)": 1000 * statistics.median(times) if times else math.nan})
    return pd.DataFrame(rows)


def as_text(table: pd.DataFrame) -> str:
    """Returns the table for a terminal: mean and half interval in one cell."""

    def cell(row: pd.Series, title: str) -> str:
        digits, half = DRIFTS.get(title, 1), row[f"+- {title}"]
        return f"{row[title]:.{digits}f}" + ("" if math.isnan(half) else f" +- {half:.{digits}f}")

    shown = pd.DataFrame({title: [cell(row, title) for _, row in table.iterrows()] for title in COLUMNS.values()})
    shown.insert(0, "method", table["method"].tolist())
    shown["step (ms)"] = [f"{value:.0f}" for value in table["step (ms)"]]
    return shown.to_string(index=False)
