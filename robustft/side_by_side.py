"""The chosen runs of one task side by side: all numbers that Compare and its report show, read once and from one place."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

from . import __version__, ranking
from .alphas import wise_table
from .figures.compare import differing_options
from .figures.forgetting import MEASURES, change_table, run_names
from .moments import get_moments
from .pipeline import RunView, get_history, get_run, get_wise
from .study import DRIFTS, comparison
from .types import RunConfig, RunRecord, StepRecord, UserError

COLUMNS = {
    "id_accuracy": "ID",
    "ood_accuracy": "OOD",
    "lp_id_accuracy": "A_LP",
    "mean_delta_lp": "mean Delta_LP",
    "worst_delta_lp": "worst Delta_LP",
    "mean_delta_zs": "mean Delta_ZS",
    "worst_delta_zs": "worst Delta_ZS",
    "id_ece": "ECE",
    "mean_drift_neighbors_lost": "neighbours lost",
    "mean_drift_l2": "L2 drift",
    "mean_drift_otdd": "OTDD",
}
"""Summary entries in the order of the papers' tables; all but `study.DRIFTS` in percent or percentage points."""
STEP = "step (ms)"
FORMATS = {title: f"%.{DRIFTS[title]}f" if title in DRIFTS else "%+.1f" if "Delta" in title else "%.1f" for title in COLUMNS.values()} | {STEP: "%.0f"}
"""How each measure is written."""
WARM_UP = 5
"""First steps, which also load and compile: they do not count for the time of a step."""


@dataclass(frozen=True)
class SideBySide:
    """Finished runs on one task, with what they measured.

    Attributes:
        views: The runs, in the order in which they are shown.
        names: Short name of each run.
        histories: Steps of the runs that trained by steps.
        runs: One row a run: method, task, seed, test images, every measure, run.
        means: One row a method with equal settings: means over its seeds, as `ranking.over_seeds` makes it.
    """

    views: tuple[RunView, ...]
    names: Mapping[str, str]
    histories: Mapping[str, list[StepRecord]]
    runs: pd.DataFrame
    means: pd.DataFrame
    root: Path

    @property
    def task(self) -> str:
        """What all of them were fine-tuned on."""
        return self.views[0].config.dataset

    @property
    def configs(self) -> dict[str, RunConfig]:
        """What was asked, by run."""
        return {view.run_id: view.config for view in self.views}

    @property
    def records(self) -> list[RunRecord]:
        """The runs as the store holds them."""
        return [view.record for view in self.views]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Runs by method with equal settings."""
        return ranking.recipes(self.runs["run"], self.configs, self.names)

    def row_of(self, run_id: str | None) -> str | None:
        """Names the row of the table that a run is part of."""
        return next((label for label, runs in self.groups.items() if run_id in runs), None)

    def curves(self) -> dict[str, list[StepRecord]]:
        """Returns the steps by short name."""
        return {self.names[run_id]: history for run_id, history in self.histories.items()}

    def verdict(self, metric: str = "delta_zs") -> str:
        """Says which method forgot least, and whether that is beyond noise."""
        accuracy = {label: value for label, value in zip(self.means["method"], self.means["ID"], strict=True) if value == value}
        return ranking.verdict(change_table(self.records, metric), self.groups, self.configs, MEASURES[metric].replace(" ", "-"), accuracy)

    def table(self) -> pd.DataFrame:
        """Returns the papers' table as it is read: mean and interval in one cell; what no run measured is left out."""
        words = ranking.cells(self.means.drop(columns=["task", "run"]).dropna(axis="columns", how="all"), FORMATS)
        return words[[*words.columns.drop("test images"), "test images"]]

    def differences(self) -> pd.DataFrame:
        """Returns the settings in which the methods differ; the seeds of one method are one column."""
        labels = {runs[0]: label for label, runs in self.groups.items()}
        return differing_options({run: self.configs[run] for run in labels}, labels)

    def kept(self, along: str) -> pd.DataFrame:
        """Returns the share of neighbours kept on the training domain's test images, along the ``step`` or the ``alpha`` of each run.

        The first point is the start, which kept all; the last is the finished run, if it measured that. Runs that kept no
        features between them are left out.
        """
        rows: list[dict[str, Any]] = []
        for view in self.views:
            between = [row for row in get_moments(view.run_id, self.root) if str(row["moment"]).startswith(f"{along} ") and row.get("kept") is not None]
            history = self.histories.get(view.run_id)
            if between and (along == "alpha" or history):
                last = 1.0 if along == "alpha" or not history else float(history[-1].step)
                points = [(0.0, 1.0), *((float(row["moment"].split()[1]), row["kept"]) for row in between), (last, _kept_at_the_end(view))]
                rows += [{"run": self.names[view.run_id], along: at, "neighbours kept (%)": 100 * kept} for at, kept in points if kept is not None]
        return pd.DataFrame(rows, columns=["run", along, "neighbours kept (%)"])

    def alpha_points(self) -> pd.DataFrame:
        """Returns the measured points between start and fine-tuned model of each run: run, alpha, ID, OOD, mean Delta_ZS, in percent and points."""
        found = []
        for view in self.views:
            points = get_wise(view.run_id, self.root)
            if points:
                found.append(wise_table(points).assign(run=self.names[view.run_id]))
        titles = {"id_accuracy": "ID", "ood_accuracy": "OOD", "mean_delta_zs": "mean Delta_ZS"}
        whole = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["run", "alpha", *titles])
        return whole.rename(columns=titles)[["run", "alpha", *titles.values()]]

    def badge(self) -> str:
        """Says in one line what a figure of these runs rests on: task, runs, test images, seeds, date, version."""
        seeds = sorted({view.config.seed for view in self.views})
        images = sorted({n for n in self.runs["test images"].tolist() if n})
        days = sorted({day for view in self.views if (day := _day(view.record.status.get("updated")))})
        parts = [self.task, f"{len(self.views)} run{'s' if len(self.views) != 1 else ''}"]
        parts += [f"n = {' to '.join(map(str, dict.fromkeys((images[0], images[-1]))))} test images"] if images else []
        parts += [f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"]
        parts += [f"measured {' to '.join(dict.fromkeys((days[0], days[-1])))}"] if days else []
        return " · ".join([*parts, f"robustft {__version__}"])


def read(views: Sequence[RunView], names: Mapping[str, str], root: Path) -> SideBySide:
    """Reads what a comparison needs of some runs.

    Args:
        views: Finished runs on one task.
        names: Short name of each.
        root: Cache folder.

    Raises:
        UserError: If there is none, one is not finished, or they are on several tasks; says what to do.
    """
    if not views:
        raise UserError("no run is chosen; choose one finished run or more.")
    for view in views:
        if view.state != "finished":
            raise UserError(f"run {view.run_id} is {view.state}; only finished runs can be compared.")
    tasks = sorted({view.config.dataset for view in views})
    if len(tasks) > 1:
        raise UserError(f"the runs are on {len(tasks)} tasks ({', '.join(tasks)}), and only runs on the same task can be compared; name those on one.")
    histories = {view.run_id: history for view in views if (history := get_history(view.run_id, root))}
    runs = comparison(views, COLUMNS)
    runs.insert(3, "test images", [_test_images(view.record) for view in views])
    runs.insert(len(runs.columns) - 1, STEP, [step_ms(histories.get(view.run_id, [])) for view in views])
    means = ranking.over_seeds(runs, {view.run_id: view.config for view in views}, names)
    return SideBySide(tuple(views), names, histories, runs, means, root)


def read_runs(run_ids: Sequence[str], root: Path) -> SideBySide:
    """Reads some runs by name; as `read`, each run once, with names that tell them from each other.

    Raises:
        RunNotFound: If there is no run of a name.
        UserError: As `read`.
    """
    views = [get_run(run_id, root) for run_id in dict.fromkeys(run_ids)]
    return read(views, run_names({view.run_id: view.config for view in views}), root)


def step_ms(history: Sequence[StepRecord]) -> float:
    """Returns the median time of a training step in milliseconds, warm-up left out if more than that was done; NaN if nothing was.

    Example:
        >>> step_ms([StepRecord(step, 1.0, 1.0, 0.0, 0.1, 1.0, seconds) for step, seconds in ((1, 0.1), (2, 0.3))])
        200.0
    """
    times = [record.seconds for record in history[WARM_UP:] or history]
    return 1000 * statistics.median(times) if times else float("nan")


def _test_images(record: RunRecord) -> int:
    """Returns how many images ID accuracy was read on."""
    return next((score.n for score in record.scores if score.metric == "id_accuracy"), 0)


def _kept_at_the_end(view: RunView) -> float | None:
    """Returns the share of neighbours kept on the training domain by the finished run."""
    scores = view.record.scores
    domain = next((score.domain for score in scores if score.metric == "id_accuracy"), None)
    place = (view.config.dataset, domain, "drift_neighbors_lost")
    return next((1 - score.value for score in scores if (score.dataset, score.domain, score.metric) == place), None)


def _day(seconds: Any) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}" if isinstance(seconds, (int, float)) else ""
