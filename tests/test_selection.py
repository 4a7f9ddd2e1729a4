"""How a study chooses strengths: on validation, by one rule, and what it says of seeds."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import psutil
import pytest
from scipy import stats

from robustft import jobs, pipeline, store
from robustft.methods import METHODS
from robustft.pipeline import get_runs
from robustft.selection import as_text, candidates, carry_out, choose, half_interval, intervals, validation_table
from robustft.store import run_id_of
from robustft.study import COLUMNS, STUDIES, Study, study_runs
from robustft.types import RunConfig, Score, UserError

SMALL = Study(
    "Small",
    "?",
    ("food", "digits"),
    {"ft": {}, "l2_sp": {}, "zero_shot": {}},
    {"steps": 2},
    seeds=(0, 1, 2),
    held_out=("food", "digits", "scripts"),
    strengths={"l2_sp": ("reg_weight", (0.01, 0.1, 1.0))},
    curve=False,
)


def finish(config: RunConfig, root: Path, **accuracies: float) -> None:
    """Stores a run as finished with some scores on its downstream task."""
    scores = [Score(config.dataset, "color", f"{name}_accuracy", value, 100) for name, value in accuracies.items()]
    store.finish_run(config, [*scores, Score("scripts", "regular", "delta_zs", -0.1 * (1 + config.seed), 100)], root=root)


def fill(root: Path, validation: Mapping[str, float]) -> None:
    """Finishes every candidate, its validation accuracy the same on both tasks but for a difference that cancels."""
    for method, values in candidates(SMALL).items():
        for options, configs in values:
            level = validation[f"{options['reg_weight']:g}" if options else method]
            for config, shift in zip(configs, (0.1, -0.1), strict=True):
                finish(config, root, val=level + shift, id=0.5, ood=0.4)


def test_runs_of_a_study_are_the_methods_by_seed_and_task() -> None:
    configs = SMALL.configs({"l2_sp": {"reg_weight": 0.1}})
    assert len(configs) == 2 * 2 * 3 + 2, "methods without draws have one seed"
    assert {c.options["reg_weight"] for c in configs if c.method == "l2_sp"} == {0.1}
    assert all(c.dataset not in c.held_out and "scripts" in c.held_out and not c.curve for c in configs)
    assert len(set(map(run_id_of, configs))) == len(configs)


def test_candidates_measure_nothing_but_the_downstream_task() -> None:
    tried = candidates(SMALL)
    assert [options for options, _ in tried["l2_sp"]] == [{"reg_weight": value} for value in (0.01, 0.1, 1.0)]
    assert all(c.held_out == () and c.seed == 0 and not c.curve for values in tried.values() for _, configs in values for c in configs)
    assert candidates(STUDIES["demo"]) == {}


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ({"0.01": 0.80, "0.1": 0.798, "1": 0.60}, 0.1),  # the strongest within half a point of 0.80
        ({"0.01": 0.80, "0.1": 0.60, "1": 0.796}, 1.0),  # strongest, whatever lies between
        ({"0.01": 0.70, "0.1": 0.60, "1": 0.50}, 0.01),  # none qualifies: the weakest
        ({"0.01": 0.90, "0.1": 0.85, "1": 0.794}, 0.1),  # 0.6 points below is too far
    ],
)
def test_strongest_within_half_a_point_is_chosen(validation: dict[str, float], expected: float, tmp_path: Path) -> None:
    fill(tmp_path, {"ft": 0.80, **validation})
    assert choose(SMALL, tmp_path) == {"l2_sp": {"reg_weight": expected}}
    table = validation_table(SMALL, tmp_path)
    assert table.loc[table["chosen"], "strength"].tolist() == [f"reg_weight={expected:g}"]
    assert table["val"].tolist() == pytest.approx([80, *(100 * validation[key] for key in ("0.01", "0.1", "1"))])


def test_choice_waits_for_the_yardstick_and_passes_over_what_failed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the study again"):
        choose(SMALL, tmp_path)
    tried = candidates(SMALL)
    for config in [*tried["ft"][0][1], *tried["l2_sp"][1][1], tried["l2_sp"][2][1][0]]:  # the strongest is finished on one task only
        finish(config, tmp_path, val=0.5, id=0.5, ood=0.4)
    assert choose(SMALL, tmp_path) == {"l2_sp": {"reg_weight": 0.1}}


def test_studies_name_methods_and_their_own_parameters() -> None:
    for study in STUDIES.values():
        assert set(study.methods) <= set(METHODS) and set(study.strengths) <= set(study.methods)
        assert study.configs()
    assert set(STUDIES["methods"].methods) == set(METHODS)
    assert len(STUDIES["methods"].datasets) == len(STUDIES["methods"].seeds) == 3


def test_interval_is_students_over_seeds_of_the_mean_over_tasks(tmp_path: Path) -> None:
    accuracies = {0: (0.5, 0.7), 1: (0.6, 0.8), 2: (0.7, 0.9)}
    for config in SMALL.configs({"l2_sp": {"reg_weight": 0.1}}):
        if config.method == "ft":
            finish(config, tmp_path, val=0.5, ood=0.4, id=accuracies[config.seed][SMALL.datasets.index(config.dataset)])
    views = [view for view in get_runs(tmp_path) if view.state == "finished"]
    (row,) = intervals(views, tmp_path).to_dict("records")
    assert (row["method"], row["n"], row["runs"], row["ID"]) == ("ft", 3, 6, pytest.approx(70.0))
    assert row["+- ID"] == pytest.approx(stats.t.interval(0.95, 2, loc=70, scale=10 / math.sqrt(3))[1] - 70)
    assert row["mean Delta_ZS"] == pytest.approx(-20.0)
    assert "70.0 +- 24.8" in as_text(pd.DataFrame([row]))


def test_one_value_has_no_interval() -> None:
    assert math.isnan(half_interval([1.0]))


def test_study_is_carried_out_resumed_and_shared(world_cache: Path, tmp_path: Path) -> None:
    """Real runs of two methods that train nothing: finished ones are not run again, one that another process holds waits."""
    study = Study("Tiny", "?", ("food",), {"zero_shot": {}, "linear_probe": {}}, held_out=())
    lines: list[str] = []
    carry_out(study, tmp_path, lines.append)
    assert len(lines) == 2 and lines[-1].startswith("2/2 linear_probe-food-s0")
    views = study_runs(study, tmp_path)
    assert [view.state for view in views] == ["finished", "finished"]
    before = [view.record.scores for view in views]
    carry_out(study, tmp_path, lines.append)
    assert [view.record.scores for view in study_runs(study, tmp_path)] == before
    assert set(COLUMNS.values()) <= set(intervals(views, tmp_path).columns)


# --- a study as one job -----------------------------------------------------------------------------------------------


@pytest.fixture
def study_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A study in the queue whose process is this one."""
    monkeypatch.setattr(pipeline, "ensure_supervisor", lambda root: None)
    folder = pipeline.submit_study("methods", tmp_path)
    (job,) = jobs.list_jobs(tmp_path)
    assert job.argv[3:6] == ("study", "methods", "--here") and job.folder == str(folder)
    jobs.claim(tmp_path, job.job_id, 0)
    jobs.record_process(tmp_path, job.job_id, os.getpid(), psutil.Process().create_time())
    return job.job_id


def test_run_of_a_study_in_the_queue_runs_and_can_be_cancelled_with_it(study_job: int, tmp_path: Path) -> None:
    run_id = store.begin_run(SMALL.configs()[0], tmp_path)
    store.write_status(run_id, tmp_path, stage="training", step=1, steps=2)
    view = pipeline.get_run(run_id, tmp_path)
    assert (view.state, view.job_id) == ("running", study_job)
    pipeline.cancel(run_id, tmp_path)
    assert [job.state for job in jobs.list_jobs(tmp_path)] == ["stopping"]


@pytest.mark.parametrize("stage", ["failed", "stopped"])
def test_run_that_ended_inside_a_living_study_is_not_running(stage: str, study_job: int, tmp_path: Path) -> None:
    run_id = store.begin_run(SMALL.configs()[0], tmp_path)
    store.write_status(run_id, tmp_path, stage=stage, step=0, steps=0, message="the task loss is nan at step 3")
    assert pipeline.get_run(run_id, tmp_path).state == stage


def test_submitting_a_study_twice_is_one_job(study_job: int, tmp_path: Path) -> None:
    pipeline.submit_study("methods", tmp_path)
    assert len(jobs.list_jobs(tmp_path)) == 1
