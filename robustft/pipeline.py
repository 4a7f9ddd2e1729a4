"""What pages and the command line ask of runs: their true state, submitting, stopping, resuming, histories, estimates."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import jobs, map_requests, notes, remembered, store
from .configs import config_json
from .evaluate import summarize
from .files import read_json, write_json
from .types import RunConfig, RunRecord, StepRecord, UserError

ACTIVE = frozenset({"queued", "running", "stopping"})
ESTIMATE_FORMAT = 2  # raised when what a run measures costs something else
RESUMABLE = frozenset({"stopped", "failed", "lost", "unfinished"})


@dataclass(frozen=True)
class RunView:
    """A run as a page shows it.

    Attributes:
        record: What the store holds.
        state: ``queued``, ``running``, ``stopping``, ``finished``, ``stopped``, ``failed``, ``lost`` or ``unfinished``.
        stage: What its process does: loading, training, measuring, analysing, interpolating.
        done: Steps of the stage that are done.
        total: Steps of the stage.
        message: Why it failed, in one sentence.
        job_id: Number in the queue's book of the job that is or was about it, or of the running study that it is part of.
        place: Place in the queue, 1 is next.
        name: What a person calls it.
        note: What a person says about it.
        numbers: The summary of its scores, where it was counted before.
    """

    record: RunRecord
    state: str
    stage: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    job_id: int | None = None
    place: int | None = None
    name: str = ""
    note: str = ""
    numbers: Mapping[str, float] | None = None

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.record.run_id

    @property
    def config(self) -> RunConfig:
        """What was asked."""
        return self.record.config

    @property
    def summary(self) -> dict[str, float]:
        """The run's headline numbers, empty until it is finished."""
        return dict(self.numbers) if self.numbers is not None else summarize(self.record.scores, self.config.dataset)


def _jobs(root: Path) -> list[jobs.Job]:
    """Returns the queue's book; damage to it is something that a person can mend."""
    try:
        return jobs.list_jobs(root)
    except ValueError as error:
        raise UserError(str(error)) from None


def is_read_only() -> bool:
    """Returns whether pages may only look: ``ROBUSTFT_READ_ONLY=1`` in the environment of the web server, as `make demo` sets it."""
    return os.environ.get("ROBUSTFT_READ_ONLY") == "1"


def _check_writable() -> None:
    if is_read_only():
        raise UserError("this dashboard is read-only; start your own with `make app` to launch, stop or change runs.")


# --- runs and their state ---------------------------------------------------------------------------------------------


def get_runs(root: Path) -> list[RunView]:
    """Returns every run with its true state, newest first."""
    book = _jobs(root)
    latest, places = {job.run_id: job for job in book}, jobs.places(book)
    return [_view(found, latest.get(found.record.run_id), book, places) for found in remembered.list_runs(root)]


def get_run(run_id: str, root: Path) -> RunView:
    """Returns one run with its true state; raises `store.RunNotFound` if there is none."""
    found = remembered.read_run(run_id, root)
    book = _jobs(root)
    return _view(found, {job.run_id: job for job in book}.get(run_id), book, jobs.places(book))


def _view(found: remembered.Remembered, job: jobs.Job | None, book: Sequence[jobs.Job], places: Mapping[int, int]) -> RunView:
    record, status = found.record, found.record.status
    state = _state(record, job)
    if state == "running" and job is None:  # a run of a study, which is one job
        job = next((other for other in book if other.state == "running" and other.pid == status.get("pid")), None)
    place = places.get(job.job_id) if job and state == "queued" else None
    done, total = (value if isinstance(value := status.get(key), int) else 0 for key in ("step", "steps"))
    message = str(status.get("message", "")) if state == "failed" else ""
    stage, job_id = str(status.get("stage", "")), job.job_id if job else None
    return RunView(record, state, stage, done, total, message, job_id, place, found.note.name, found.note.note, found.summary)


def _state(record: RunRecord, job: jobs.Job | None) -> str:
    """Derives a run's state from its marker, the queue and whether the process that wrote its status still lives."""
    if record.is_finished:
        return "finished"
    if job and job.state in ("queued", "stopping"):
        return job.state
    pid, started, stage = (record.status.get(key) for key in ("pid", "process_started", "stage"))
    # A study's process lives on after a run of it has failed.
    if stage not in ("stopped", "failed") and isinstance(pid, int) and isinstance(started, float) and jobs.is_alive(pid, started):
        return "running"
    if job and job.state in ("running", "failed", "lost"):
        # A row may say running for the moment between the start of a process and its first word.
        return job.state
    if stage in ("stopped", "failed"):
        return str(stage)
    if job and job.state == "cancelled":
        return "stopped"
    return "lost" if stage else "unfinished"


def submit(configs: Sequence[RunConfig], root: Path) -> list[str]:
    """Puts runs into the queue and sees to it that somebody works it off; returns their names. Finished runs stay as they are."""
    _check_writable()
    store.check_root(root)
    names = []
    for config in configs:
        run_id = store.begin_run(config, root)
        names.append(run_id)
        if not store.read_run(run_id, root=root).is_finished:
            _enqueue(run_id, root)
    ensure_supervisor(root)
    return names


def _enqueue(run_id: str, root: Path) -> None:
    folder = store.run_folder(run_id, root)
    argv = [sys.executable, "-m", "robustft", "train", "--config", str(folder / "config.json"), "--runs-dir", str(root)]
    try:
        jobs.submit(root, run_id, argv, folder=folder)
    except ValueError as error:  # the queue knows nothing of our kinds of error
        raise UserError(str(error)) from None


def ensure_supervisor(root: Path) -> None:
    """Starts the supervisor of the queue unless there is one; it outlives the caller."""
    jobs.ensure_supervisor(root, [sys.executable, "-m", "robustft", "supervise", "--runs-dir", str(root)])


def resume(run_id: str, root: Path) -> None:
    """Puts a run that did not end back into the queue; it goes on from its last checkpoint."""
    _check_writable()
    view = get_run(run_id, root)
    if view.state not in RESUMABLE:
        raise UserError(f"run {run_id} is {view.state}; only a stopped, failed or lost run can be resumed.")
    store.check_root(root)
    _enqueue(run_id, root)
    ensure_supervisor(root)


def cancel(run_id: str, root: Path) -> None:
    """Asks for a run to stop, and with it the study that it is part of; its last checkpoint is kept."""
    _check_writable()
    view = get_run(run_id, root)
    if view.state not in ACTIVE:
        raise UserError(f"run {run_id} is {view.state}; only a queued or running run can be cancelled.")
    if view.job_id is None:
        raise UserError(f"run {run_id} was started from a terminal; stop it there with Ctrl-C.")
    jobs.cancel(root, view.job_id)
    ensure_supervisor(root)


def move_to_front(run_id: str, root: Path) -> None:
    """Makes a waiting run the next to start."""
    _check_writable()
    view = get_run(run_id, root)
    if view.state != "queued" or view.job_id is None:
        raise UserError(f"run {run_id} is {view.state}; only a queued run can be moved in the queue.")
    jobs.move_to_front(root, view.job_id)
    ensure_supervisor(root)


def set_note(run_id: str, name: str, note: str, root: Path) -> None:
    """Gives a run a name and a note; see `notes.checked` for what they may hold."""
    _check_writable()
    notes.write_note(run_id, name, note, root)


def delete(run_id: str, root: Path) -> None:
    """Moves a run that is not active to the trash."""
    _check_writable()
    view = get_run(run_id, root)
    if view.state in ACTIVE:
        raise UserError(f"run {run_id} is {view.state}; cancel it first.")
    store.trash_run(run_id, root=root)


def get_history(run_id: str, root: Path) -> list[StepRecord]:
    """Returns a run's steps."""
    return store.read_history(run_id, root=root)


def get_log(run_id: str, root: Path) -> str:
    """Returns the end of a run's log."""
    return store.tail_log(run_id, root=root)


def seconds_left(view: RunView, history: Sequence[StepRecord]) -> float | None:
    """Returns the time that a run's training still takes, from its last steps; None before step 10 and outside training."""
    if view.stage != "training" or view.state != "running" or len(history) < 10:
        return None
    return float(np.median([record.seconds for record in history[-30:]])) * (view.total - view.done)


def get_wise(run_id: str, root: Path) -> list[dict[str, Any]]:
    """Returns the points of a finished run's WiSE-FT curve, from alpha 0 to 1; empty if there is none."""
    rows = read_json(store.run_folder(run_id, root) / "wise.json")
    return rows if isinstance(rows, list) else []


def get_details(run_id: str, root: Path) -> dict[str, Any]:
    """Returns what stands beside a finished run's scores, by drift measure: the settings of each value, the distance of each layer."""
    found = read_json(store.run_folder(run_id, root) / "analysis.json")
    return found if isinstance(found, dict) else {}


def estimate(config: RunConfig, root: Path) -> dict[str, float]:
    """Measures a few steps of a config in a process of its own; returns seconds and bytes.

    Raises:
        UserError: If the measurement fails; says why.
    """
    _check_writable()
    store.check_root(root)
    path = root / "estimates" / f"{store.run_id_of(config)}-{ESTIMATE_FORMAT}.json"
    known = read_json(path)
    if isinstance(known, dict):
        return known
    argv = [sys.executable, "-m", "robustft", "estimate", "--config", "-", "--runs-dir", str(root)]
    home = Path(__file__).resolve().parent.parent
    result = subprocess.run(argv, input=config_json(config), capture_output=True, text=True, cwd=home, timeout=600, check=False)
    try:
        measured: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        why = (result.stderr.strip().splitlines() or ["the measuring process died"])[-1].removeprefix("error: ")
        raise UserError(f"the estimate failed: {why}") from None
    write_json(path, measured)
    return measured


def queue_summary(root: Path) -> Mapping[str, int]:
    """Returns how many jobs are running and queued."""
    states = [job.state for job in _jobs(root)]
    return {"running": sum(s in ("running", "stopping") for s in states), "queued": states.count("queued")}


def request_maps(run_id: str, dataset: str, domain: str, root: Path, moment: str = "") -> None:
    """Asks for the UMAPs of a run on one domain of one task, and sees to it that somebody draws them; asking twice is asking once."""
    map_requests.request(root, run_id, dataset, domain, moment, argv=[sys.executable, "-m", "robustft", "draw-maps", "--runs-dir", str(root)])


def maps_state(run_id: str, dataset: str, domain: str, root: Path, moment: str = "") -> tuple[str | None, str]:
    """Returns where such a request stands, ``waiting``, ``failed`` or None, and a sentence about it. See `map_requests.state`."""
    return map_requests.state(root, run_id, dataset, domain, moment)


def submit_study(name: str, root: Path) -> Path:
    """Puts a whole study into the queue as one job, which spares each of its runs the start of a process; returns its folder."""
    _check_writable()
    store.check_root(root)
    folder = root / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "done").unlink(missing_ok=True)
    argv = [sys.executable, "-m", "robustft", "study", name, "--here", "--runs-dir", str(root), "--marker", str(folder / "done")]
    jobs.submit(root, f"study-{name}", argv, folder=folder)
    ensure_supervisor(root)
    return folder
