"""One real run: its scores agree with each other, it never changes, and however it dies it ends with the same numbers."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from robustft import store
from robustft.analysis import answers_file
from robustft.configs import command_line, make_config
from robustft.files import read_arrays
from robustft.pipeline import get_details, get_run, get_wise
from robustft.registry import discover
from robustft.run import STOPPED, Stopped, run
from robustft.sources import get_dataset
from robustft.types import RunRecord, UserError

PROJECT = Path(__file__).parents[1]


def value(record: RunRecord, dataset: str, domain: str, metric: str) -> float:
    (found,) = [s.value for s in record.scores if (s.dataset, s.domain, s.metric) == (dataset, domain, metric)]
    return found


def quiet(_: str) -> None:
    pass


def test_everything_promised_is_measured(finished_run: RunRecord) -> None:
    assert finished_run.is_finished
    pairs = {("food", "color"), ("food", "line"), ("digits", "mnist"), ("digits", "optical")}
    compared = {"zs_accuracy_0", "zs_accuracy", "lp_accuracy_0", "lp_accuracy", "delta_zs", "delta_lp", "error_zs", "error_lp", "noise_lp", "overlap_floor"}
    compared |= {f"drift_{name}" for name, entry in discover("drift").items() if entry.declares("INPUT", "features") != "theta"}
    for dataset, domain in pairs:
        assert compared <= {s.metric for s in finished_run.scores if (s.dataset, s.domain) == (dataset, domain)}
    assert {(s.dataset, s.domain) for s in finished_run.scores} == pairs
    assert all(math.isfinite(s.value) and s.n > 0 for s in finished_run.scores)
    assert all(0 <= s.value <= 1 for s in finished_run.scores if "accuracy" in s.metric)
    assert len({(s.dataset, s.domain, s.metric) for s in finished_run.scores}) == len(finished_run.scores)


def test_what_stands_beside_the_scores_says_how_they_were_measured(finished_run: RunRecord, world_cache: Path) -> None:
    details = get_details(finished_run.run_id, world_cache)
    assert set(details["otdd"]) == {"food color", "food line", "digits mnist", "digits optical"}
    for place, result in details["otdd"].items():
        assert result["value"] == value(finished_run, *place.split(), "drift_otdd") > 0
        assert result["solver"] == "exact" and result["n_components"] == 64 and 0.5 < result["variance_kept"] <= 1
    assert all(distance >= 0 for distance in details["weights"].values()) and max(details["weights"].values()) > 0


def test_answers_of_every_sample_agree_with_the_accuracies(finished_run: RunRecord, world_cache: Path) -> None:
    places = {("food", "color"): ("zs_accuracy_0", "id_accuracy"), ("food", "line"): ("zs_accuracy_0", "ood_accuracy")}
    places |= {("digits", domain): ("zs_accuracy_0", "zs_accuracy") for domain in ("mnist", "optical")}
    for place, metrics in places.items():
        arrays, _ = read_arrays(answers_file(finished_run.config, *place, world_cache))
        labels = np.asarray(get_dataset(*place, "test", world_cache).labels)
        for side, metric in zip(("before", "after"), metrics, strict=True):
            assert (arrays[side] == labels).mean() == pytest.approx(value(finished_run, *place, metric))
            assert ((arrays[f"confidence_{side}"] > 0) & (arrays[f"confidence_{side}"] <= 1)).all()


def test_curve_says_the_change_of_every_task(finished_run: RunRecord, world_cache: Path) -> None:
    for point in get_wise(finished_run.run_id, world_cache):
        assert set(point["changes"]) == {"digits"} and point["mean_delta_zs"] == pytest.approx(point["changes"]["digits"])


def test_noise_floor_lies_between_nothing_and_everything(finished_run: RunRecord) -> None:
    for place in (("food", "color"), ("digits", "mnist")):
        assert 0.2 < value(finished_run, *place, "overlap_floor") < 0.98
        assert 0 <= value(finished_run, *place, "noise_lp") < 0.2


def test_changes_are_differences_of_accuracies(finished_run: RunRecord) -> None:
    for dataset, domain in (("food", "line"), ("digits", "mnist"), ("digits", "optical")):
        for kind in ("zs", "lp"):
            change = value(finished_run, dataset, domain, f"{kind}_accuracy") - value(finished_run, dataset, domain, f"{kind}_accuracy_0")
            assert value(finished_run, dataset, domain, f"delta_{kind}") == change


def test_summary_averages_held_out_tasks_only(finished_run: RunRecord, world_cache: Path) -> None:
    summary = get_run(finished_run.run_id, world_cache).summary
    assert summary["id_accuracy"] == value(finished_run, "food", "color", "id_accuracy")
    assert summary["ood_accuracy"] == value(finished_run, "food", "line", "ood_accuracy")
    changes = [value(finished_run, "digits", domain, "delta_zs") for domain in ("mnist", "optical")]
    assert summary["mean_delta_zs"] == pytest.approx(sum(changes) / 2)


def test_wise_curve_ends_where_the_rows_are(finished_run: RunRecord, world_cache: Path) -> None:
    points = get_wise(finished_run.run_id, world_cache)
    assert [p["alpha"] for p in points] == pytest.approx([i / 10 for i in range(11)])
    start, end = points[0], points[-1]
    assert end["id_accuracy"] == value(finished_run, "food", "color", "id_accuracy")
    assert end["ood_accuracy"] == value(finished_run, "food", "line", "ood_accuracy")
    assert end["val_accuracy"] == value(finished_run, "food", "color", "val_accuracy")
    assert end["mean_delta_zs"] == pytest.approx(get_run(finished_run.run_id, world_cache).summary["mean_delta_zs"])
    assert start["id_accuracy"] == value(finished_run, "food", "color", "zs_accuracy_0")
    assert start["ood_accuracy"] == value(finished_run, "food", "line", "zs_accuracy_0")
    assert start["mean_delta_zs"] == 0


def test_history_and_weights_are_kept_and_the_checkpoint_is_not(finished_run: RunRecord, world_cache: Path) -> None:
    history = store.read_history(finished_run.run_id, root=world_cache)
    assert [r.step for r in history] == [1, 2, 3, 4, 5, 6]
    assert all(r.seconds > 0 and r.grad_norm > 0 and r.reg_loss == 0 for r in history) and history[-1].lr == pytest.approx(0, abs=1e-12)
    folder = store.run_folder(finished_run.run_id, world_cache)
    assert {p.name for p in folder.iterdir()} >= {"config.json", "history.jsonl", "scores.json", "status.json", "theta_1.safetensors", "wise.json", "done"}
    assert not list(folder.glob("checkpoint*")) and not list(folder.glob(".*.part"))


def test_returned_record_is_the_stored_one(finished_run: RunRecord, world_cache: Path) -> None:
    stored = store.read_run(finished_run.run_id, root=world_cache)
    assert stored.status["stage"] == "finished"
    assert finished_run == stored


def test_finished_run_is_returned_at_once(finished_run: RunRecord, world_cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world_cache.rglob("*") if path.is_file() and path.name != ".lock"}
    begin = time.monotonic()
    assert run(finished_run.config, root=world_cache, report=quiet) == store.read_run(finished_run.run_id, root=world_cache)
    assert time.monotonic() - begin < 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


# --- stopping and dying -----------------------------------------------------------------------------------------------


@pytest.fixture
def twin(finished_run: RunRecord, world_cache: Path, tmp_path: Path) -> Path:
    """A cache in which `finished_run` was never begun, but all that does not depend on training is computed."""
    for kind in ("datasets", "features"):
        shutil.copytree(world_cache / kind, tmp_path / kind)
    return tmp_path


def asking_to_stop_at(stage: str) -> Callable[[str], None]:
    """A report that sends SIGTERM to this process when a stage begins."""

    def report(line: str) -> None:
        if line.startswith(stage):
            os.kill(os.getpid(), signal.SIGTERM)

    return report


def assert_same_training(run_id: str, twin: Path, world: Path) -> None:
    weights, expected = store.load_weights(run_id, "theta_1", root=twin), store.load_weights(run_id, "theta_1", root=world)
    assert weights is not None and expected is not None and weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    steps = [[(r.step, r.loss, r.grad_norm, r.lr) for r in store.read_history(run_id, root=root)] for root in (twin, world)]
    assert steps[0] == steps[1]


def assert_same_run(run_id: str, twin: Path, world: Path) -> None:
    assert_same_training(run_id, twin, world)
    resumed, whole = store.read_run(run_id, root=twin), store.read_run(run_id, root=world)
    assert resumed.is_finished and resumed.scores == whole.scores
    assert get_wise(run_id, twin) == get_wise(run_id, world)
    folder = store.run_folder(run_id, twin)
    assert not list(folder.glob("checkpoint*")) and not list(folder.glob(".*.part"))


def wait_for(claim: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize("death", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_killed_run_resumes_to_the_scores_of_an_uninterrupted_one(death: signal.Signals, finished_run: RunRecord, twin: Path, world_cache: Path) -> None:
    words = [sys.executable, *command_line(finished_run.config).split()[1:], "--runs-dir", str(twin)]
    folder = store.run_folder(finished_run.run_id, twin)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": PROJECT}
    with subprocess.Popen(words, **pipes) as first:  # type: ignore[call-overload]
        wait_for((folder / "checkpoint.safetensors").exists, first)
        first.send_signal(death)
        out, err = first.communicate(timeout=60)
    assert not (folder / "theta_1.safetensors").exists(), "the signal came after training; the machine is too fast for this test"
    assert (first.returncode, err) == ((STOPPED if death is signal.SIGTERM else -death), "")
    if death is signal.SIGTERM:
        assert out.splitlines()[-1].startswith("stopped; the same command goes on")
    view = get_run(finished_run.run_id, twin)
    assert view.state == ("stopped" if death is signal.SIGTERM else "lost") and not view.record.scores
    second = subprocess.run(words, capture_output=True, text=True, cwd=PROJECT, timeout=200, check=False)
    assert (second.returncode, second.stderr) == (0, "")
    assert "resuming after step" in second.stdout and second.stdout.splitlines()[-1] == finished_run.run_id
    assert_same_run(finished_run.run_id, twin, world_cache)


def test_run_stopped_in_every_stage_ends_with_the_same_scores(finished_run: RunRecord, twin: Path, world_cache: Path) -> None:
    for stage in ("loading", "training", "measuring", "analysing", "interpolating"):
        with pytest.raises(Stopped):
            run(finished_run.config, root=twin, report=asking_to_stop_at(stage))
        record = store.read_run(finished_run.run_id, root=twin)
        assert (record.is_finished, record.status["stage"]) == (False, "stopped")
    run(finished_run.config, root=twin, report=quiet)
    assert_same_run(finished_run.run_id, twin, world_cache)


def test_signal_handlers_are_given_back(finished_run: RunRecord, world_cache: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(UserError):
        run(make_config("glyphclip", "food", "ft", device="cuda:999"), root=tmp_path, report=quiet)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_run_on_a_device_that_is_not_here_is_refused(tmp_path: Path) -> None:
    config = make_config("glyphclip", "food", "ft", device="cuda:999")
    with pytest.raises(UserError, match="'cuda:999' is not here"):
        run(config, root=tmp_path, report=quiet)
    assert store.list_runs(root=tmp_path) == [], "a device that is not here leaves no failed run behind"


def test_run_has_one_process_at_a_time(tmp_path: Path) -> None:
    config = make_config("glyphclip", "food", "zero_shot")
    with store.run_lock(store.run_id_of(config), tmp_path), pytest.raises(UserError, match="being worked on by another process"):
        run(config, root=tmp_path, report=quiet)


def test_damaged_checkpoint_starts_over(finished_run: RunRecord, twin: Path, world_cache: Path) -> None:
    run_id = store.begin_run(finished_run.config, twin)
    folder = store.run_folder(run_id, twin)
    (folder / "checkpoint.safetensors").write_bytes(b"torn")
    (folder / "history.jsonl").write_text('{"step": 2, "lo')
    with pytest.raises(Stopped):  # measuring again what has the same weights would prove nothing more
        run(finished_run.config, root=twin, report=asking_to_stop_at("measuring"))
    assert_same_training(run_id, twin, world_cache)
