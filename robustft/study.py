"""Studies: sets of runs that are compared, and their table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from .configs import make_config
from .methods import METHODS
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
    "mean_drift_otdd": "OTDD",
    "mean_drift_neighbors_lost": "neighbours lost",
}
"""Summary entries shown by a study, with their column titles; all but `DRIFTS` in percent or percentage points."""
DRIFTS = {"L2 drift": 2, "OTDD": 3}
"""Columns that have no unit, with the digits that they are shown with."""


@dataclass(frozen=True)
class Study:
    """A set of runs that are compared.

    Attributes:
        title: What it is called.
        question: What it answers.
        datasets: Downstream tasks.
        methods: Method to the options that differ from the shared ones.
        shared: Options of every method that trains.
        seeds: Seeds of every method that trains; the others have no draws.
        held_out: Tasks on which forgetting is measured, the downstream one always left out; None takes all.
        strengths: Method to its strength setting and the values to choose among, from weakest to strongest protection.
        curve: Whether WiSE-FT curves are measured.
    """

    title: str
    question: str
    datasets: tuple[str, ...]
    methods: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    held_out: tuple[str, ...] | None = None
    strengths: Mapping[str, tuple[str, tuple[float, ...]]] = field(default_factory=dict)
    curve: bool = True
    model: str = "glyphclip"

    def configs(self, chosen: Mapping[str, Mapping[str, Any]] | None = None) -> list[RunConfig]:
        """Returns the runs of the study, in the order in which they are worked off: seed by seed.

        Args:
            chosen: Strengths that were chosen, as options of their methods.
        """
        return [
            self.config(method, dataset, seed, (chosen or {}).get(method, {}))
            for seed in self.seeds
            for dataset in self.datasets
            for method in self.methods
            if METHODS[method].parts or seed == self.seeds[0]
        ]

    def config(self, method: str, dataset: str, seed: int, options: Mapping[str, Any]) -> RunConfig:
        """Returns one run of the study."""
        given = {**self.shared, **self.methods[method], **options} if METHODS[method].parts else {}
        held_out = None if self.held_out is None else [name for name in self.held_out if name != dataset]
        return make_config(self.model, dataset, method, seed=seed, options=given, held_out=held_out, curve=self.curve)


STUDIES: Mapping[str, Study] = {
    "demo": Study(
        "Demo study",
        "What does plain fine-tuning forget, and which regularizer gives it back?",
        ("food",),
        {"zero_shot": {}, "ft": {}, "lp_ft": {}, "l2_sp": {}, "ldifs": {}, "fda": {"sampler": "class_balanced"}},
        {"steps": 120, "lr": 1e-3},
    ),
    "methods": Study(
        "Methods study",
        "What does each method keep of the foundation model, and what does that cost on the new task?",
        ("food", "animals", "digits"),
        {name: {} for name in METHODS},
        {"steps": 60, "lr": 1e-3, "sampler": "hard_classes"},  # every method sees the batches that FDA asks for
        seeds=(0, 1, 2),
        held_out=("food", "animals", "faces", "digits", "scripts"),
        strengths={
            "l1_sp": ("reg_weight", (1e-4, 1e-3, 1e-2)),
            "l2_sp": ("reg_weight", (0.01, 0.1, 1.0)),
            "ewc": ("reg_weight", (0.02, 0.2, 2.0)),
            "kd": ("reg_weight", (0.2, 0.5, 0.8)),
            "lwf": ("reg_weight", (0.1, 1.0, 10.0)),
            "ldifs": ("reg_weight", (3.0, 30.0, 300.0)),
            "fda": ("reg_weight", (1.0, 10.0, 100.0)),
            "proxy_fda": ("reg_weight", (1.0, 10.0, 100.0)),
            "lora": ("lr", (1e-2, 3e-3, 1e-3)),
            "wise_ft": ("alpha", (0.8, 0.5, 0.2)),
            "ema": ("ema_decay", (0.9, 0.97, 0.99)),
        },
        curve=False,
    ),
}


def find_study(name: str) -> Study:
    """Returns a study; raises `UserError` naming those there are."""
    if name not in STUDIES:
        raise UserError(f"there is no study {name!r}; choose one of {', '.join(STUDIES)}.")
    return STUDIES[name]


def study_runs(study: Study, root: Path, chosen: Mapping[str, Mapping[str, Any]] | None = None) -> list[RunView]:
    """Returns the runs of a study that exist, in its order."""
    views = {view.run_id: view for view in get_runs(root)}
    return [views[run_id] for run_id in map(run_id_of, study.configs(chosen)) if run_id in views]


def progress_line(views: Sequence[RunView]) -> str:
    """Says in one line where each run of a study is."""
    return "  ".join(f"{view.config.method}:{view.state if view.state != 'running' else f'{view.stage} {view.done}/{view.total}'}" for view in views)


def comparison(views: Sequence[RunView], columns: Mapping[str, str] = COLUMNS) -> pd.DataFrame:
    """Returns the table of finished runs: one row each, accuracies in percent and changes in points, from scores on disk.

    Args:
        views: Runs; those that are not finished are left out.
        columns: Entries of a run's summary with their titles.
    """
    rows = []
    for view in views:
        if view.state != "finished":
            continue
        summary = view.summary
        numbers = {title: summary.get(key, float("nan")) * (1 if title in DRIFTS else 100) for key, title in columns.items()}
        rows.append({"method": view.config.method, "task": view.config.dataset, "seed": view.config.seed, **numbers, "run": view.run_id})
    return pd.DataFrame(rows, columns=["method", "task", "seed", *columns.values(), "run"])


def as_text(table: pd.DataFrame) -> str:
    """Returns the table for a terminal, one decimal a number and more for drift."""
    shown = table.drop(columns="run").copy()
    for title in COLUMNS.values():
        digits = DRIFTS.get(title, 1)
        shown[title] = [f"{value:.{digits}f}" for value in shown[title]]
    return shown.to_string(index=False)
