"""A run's scores as tables, the same for the command line and the pages: tasks, drift, neighbours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .foretelling import title_of
from .intervals import bootstrap_mean
from .neighborhoods import get_overlap, measured_tasks
from .types import RunConfig, RunRecord, Score

ACCURACIES = ("zs_accuracy_0", "zs_accuracy", "delta_zs", "error_zs", "lp_accuracy_0", "lp_accuracy", "delta_lp", "error_lp", "noise_lp")
DRIFTS_FIRST = ("otdd", "l2", "cka", "neighbors_lost", "ldifs")
"""Drift measures in the order of their columns; others follow. All are on absolute scales: 0 is no drift."""


def _wide(scores: Sequence[Score], metrics: Sequence[str]) -> pd.DataFrame:
    """Returns one row a task and domain, in the order in which they were measured, one column a metric that is there."""
    places = dict.fromkeys((score.dataset, score.domain) for score in scores if score.metric in metrics)
    values = {(s.dataset, s.domain, s.metric): s.value for s in scores}
    found = [metric for metric in metrics if any(key[2] == metric for key in values)]
    rows = [[*place, *(values.get((*place, metric), float("nan")) for metric in found)] for place in places]
    return pd.DataFrame(rows, columns=["task", "domain", *found])


def task_table(record: RunRecord) -> pd.DataFrame:
    """Returns zero-shot and linear-probe accuracy of every task before and after, in percent, with changes in points.

    ``± ZS`` and ``± LP`` are 1.96 standard errors of the change over test images; ``LP noise`` is what refits of the probe
    make of it by themselves.
    """
    table = _wide(record.scores, ACCURACIES)
    table[table.columns[2:]] *= 100
    for kind in ("zs", "lp"):
        if f"error_{kind}" in table:
            table[f"error_{kind}"] *= 1.96
    titles = {"zs_accuracy_0": "ZS before", "zs_accuracy": "ZS after", "delta_zs": "Delta_ZS", "error_zs": "± ZS"}
    titles |= {"lp_accuracy_0": "LP before", "lp_accuracy": "LP after", "delta_lp": "Delta_LP", "error_lp": "± LP", "noise_lp": "LP noise"}
    return table.rename(columns=titles)


def drift_table(record: RunRecord) -> pd.DataFrame:
    """Returns how far every task's test images moved, by every measure that the run has."""
    there = {s.metric.removeprefix("drift_") for s in record.scores if s.metric.startswith("drift_")} - {"weights"}  # one number a run, not one a task
    names = [*DRIFTS_FIRST, *sorted(there - set(DRIFTS_FIRST))]
    titles = {f"drift_{name}": title_of(name) for name in names}
    return _wide(record.scores, list(titles)).rename(columns=titles)


def otdd_settings(details: Mapping[str, Any]) -> str:
    """Says in one line how a run's OTDD values were computed; what differs between tasks is a range."""
    results = list(details.get("otdd", {}).values())
    if not results:
        return ""

    def span(name: str, digits: int = 0) -> str:
        low, high = (f"{extreme(result[name] for result in results):.{digits}f}" for extreme in (min, max))
        return low if low == high else f"{low} to {high}"

    solvers = " and ".join(sorted({result["solver"] for result in results}))
    return (
        f"halved and un-rooted; n = {span('n_0')} images a side, {span('n_classes')} classes, PCA {span('n_components')} on the start's features "
        f"(keeps {span('variance_kept', 2)} of the variance), shrinkage {span('shrinkage', 1)}, solver {solvers}"
    )


def neighbor_table(run_id: str, config: RunConfig, n_neighbors: int, root: Path) -> pd.DataFrame:
    """Returns the share of neighbours kept on every task with its interval, beside what noise alone keeps, and class purity before and after."""
    rows = []
    for task, domains in measured_tasks(config).items():
        for domain in domains:
            found = get_overlap(run_id, task, domain, n_neighbors, root)
            low, high = bootstrap_mean(found.kept)
            floor = float("nan") if found.floor is None else float(found.floor.mean())
            rows.append([task, domain, float(found.kept.mean()), low, high, floor, float(found.purity_0.mean()), float(found.purity_1.mean())])
    return pd.DataFrame(rows, columns=["task", "domain", "kept", "low", "high", "noise floor", "purity before", "purity after"])
