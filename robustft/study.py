"""Studies: sets of runs that are compared, and their table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from .configs import make_config
from .pipeline import RunView, get_runs
from .store import run_id_of
from .types import RunConfig, UserError

COLUMNS = {
    "id_accuracy": "ID",
    "ood_accuracy": "OOD",
    "lp_id_accuracy": "A_LP",
    "mean_delta_lp": "mean Delta_LP",
    "mean_delta_zs": "mean Delta_ZS",
    "worst_delta_zs": "worst Delta_ZS",
    "mean_drift_l2": "L2 drift",
    "mean_drift_neighbors_lost": "neighbours lost",
}
"""Summary entries shown by a study, with their column titles; all but the L2 drift in percent or percentage points."""


@dataclass(frozen=True)
class Study:
    """A set of runs on one downstream task.

    Attributes:
        title: What it is called.
        question: What it answers.
        dataset: Downstream task.
        methods: Method to the options that differ from the shared ones.
        shared: Options of every method that trains.
        seeds: Seeds of every method.
    """

    title: str
    question: str
    dataset: str
    methods: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    model: str = "glyphclip"

    def configs(self) -> list[RunConfig]:
        """Returns the runs of the study, in the order in which they are worked off."""
        made = []
        for seed in self.seeds:
            for method, own in self.methods.items():
                options = {} if method in ("zero_shot", "linear_probe") else {**self.shared, **own}
                made.append(make_config(self.model, self.dataset, method, seed=seed, options=options))
        return made


STUDIES: Mapping[str, Study] = {
    "demo": Study(
        "Demo study",
        "What does plain fine-tuning forget, and which regularizer gives it back?",
        "food",
        {"zero_shot": {}, "ft": {}, "lp_ft": {}, "l2_sp": {}, "ldifs": {}, "fda": {}},
        {"steps": 120, "lr": 1e-3},
    )
}


def find_study(name: str) -> Study:
    """Returns a study; raises `UserError` naming those there are."""
    if name not in STUDIES:
        raise UserError(f"there is no study {name!r}; choose one of {', '.join(STUDIES)}.")
    return STUDIES[name]


def study_runs(study: Study, root: Path) -> list[RunView]:
    """Returns the runs of a study that exist, in its order."""
    views = {view.run_id: view for view in get_runs(root)}
    return [views[run_id] for run_id in map(run_id_of, study.configs()) if run_id in views]


def comparison(views: Sequence[RunView]) -> pd.DataFrame:
    """Returns the table of finished runs: one row each, accuracies in percent and changes in points, from scores on disk."""
    rows = []
    for view in views:
        if view.state != "finished":
            continue
        summary = view.summary
        numbers = {title: summary.get(key, float("nan")) * (1 if key == "mean_drift_l2" else 100) for key, title in COLUMNS.items()}
        rows.append({"method": view.config.method, "task": view.config.dataset, "seed": view.config.seed, **numbers, "run": view.run_id})
    return pd.DataFrame(rows, columns=["method", "task", "seed", *COLUMNS.values(), "run"])


def as_text(table: pd.DataFrame) -> str:
    """Returns the table for a terminal, one decimal a number and two for the drift."""
    shown = table.drop(columns="run").copy()
    for title in COLUMNS.values():
        shown[title] = shown[title].map(lambda value, digits=2 if title == "L2 drift" else 1: f"{value:.{digits}f}")
    return shown.to_string(index=False)
