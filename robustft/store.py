"""The only room that knows the layout of ``cache/``: whole or absent, never half."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .files import disk_error, read_json, replacing, write_json
from .types import RunConfig, RunRecord, Score, StepRecord, UserError

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
FREE_BYTES = 200 * 2**20
"""A run is not started with less free disk than this: it writes weights, a checkpoint and features."""


class RunNotFound(UserError):
    """There is no run of that name."""


def default_root() -> Path:
    """Returns ``$ROBUSTFT_CACHE``, or ``cache/`` beside the package."""
    return Path(os.environ.get("ROBUSTFT_CACHE") or Path(__file__).resolve().parent.parent / "cache")


class RunBusy(UserError):
    """Another process works on the run."""


# --- names and places -------------------------------------------------------------------------------------------------


def run_id_of(config: RunConfig) -> str:
    """Names a run: method, task, seed, and a hash of the whole config, so the same config is the same run."""
    canonical = json.dumps(asdict(config), sort_keys=True, allow_nan=False)
    return f"{config.method}-{config.dataset}-s{config.seed}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def run_folder(run_id: str, root: Path | None = None) -> Path:
    """Returns where a run lies.

    Raises:
        RunNotFound: If the name is none that a run can have; nothing outside the runs folder can be named.
    """
    if not RUN_ID.fullmatch(run_id):
        raise RunNotFound("there is no run of that name; `python -m robustft list runs` names them all.")
    return (root or default_root()) / "runs" / run_id


def check_root(root: Path) -> None:
    """Makes sure that a runs folder can be written and has room.

    Raises:
        UserError: If it cannot, or there is less free than a run writes.
    """
    try:
        (root / "runs").mkdir(parents=True, exist_ok=True)
        probe = root / "runs" / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(root).free
    except OSError as error:
        raise disk_error(error, f"the runs folder {str(root)!r}") from None
    if free < FREE_BYTES:
        raise UserError(f"only {free // 2**20} MB are free in the runs folder; a run needs {FREE_BYTES // 2**20} MB. Free some or choose another --runs-dir.")


# --- a run's life -----------------------------------------------------------------------------------------------------


@contextmanager
def run_lock(run_id: str, root: Path) -> Iterator[None]:
    """Holds a run for one process.

    Raises:
        RunBusy: If another process holds it.
    """
    folder = run_folder(run_id, root)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunBusy(f"run {run_id} is being worked on by another process; watch it on the Runs page or wait for its end.") from None
        yield


def begin_run(config: RunConfig, root: Path) -> str:
    """Makes the folder of a run and writes its config; a run that was begun before keeps its checkpoint and history."""
    run_id = run_id_of(config)
    path = run_folder(run_id, root) / "config.json"
    # Its time is the run's age, so an equal file is left alone. Through text, since JSON knows no tuples.
    if read_json(path) != json.loads(json.dumps(asdict(config))):
        write_json(path, asdict(config))
    return run_id


def clear_leftovers(run_id: str, root: Path) -> None:
    """Removes files that a killed process left half-written; only for the holder of the run's lock, since others may be writing."""
    for leftover in run_folder(run_id, root).rglob(".*.part"):
        leftover.unlink(missing_ok=True)


def write_status(run_id: str, root: Path, **fields: Any) -> None:
    """Says where a run is; adds time, pid and process start, by which others tell whether the writer still lives."""
    process = psutil.Process()
    stamp = {"pid": process.pid, "process_started": process.create_time(), "updated": time.time()}
    write_json(run_folder(run_id, root) / "status.json", {**fields, **stamp})


def finish_run(config: RunConfig, scores: Sequence[Score], *, root: Path | None = None) -> RunRecord:
    """Stores the scores of a run and marks it finished; the empty ``done`` marker comes last.

    Args:
        config: All that determines the run; its hash names it.
        scores: What was measured.
        root: Cache folder.

    Returns:
        The record, equal to what `read_run` gives.

    Raises:
        UserError: If a score is not finite (names it), or the run is finished with other scores: runs never change.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> config = RunConfig("glyphclip", "food", "ft")
        >>> record = finish_run(config, [Score("food", "color", "id_accuracy", 0.5, 10)], root=root)
        >>> read_run(record.run_id, root=root) == record, record.is_finished
        (True, True)

    Source:
        Marker file and hashed name: DomainBed scripts/sweep.py.
    """
    root = root or default_root()
    for score in scores:
        if not np.isfinite(score.value):
            raise UserError(f"the score {score.metric} on {score.dataset} is {score.value}; a run with it is not stored. Look for a diverged model.")
    run_id = begin_run(config, root)
    folder = run_folder(run_id, root)
    rows = [asdict(score) for score in scores]
    stored = read_json(folder / "scores.json") if (folder / "done").exists() else None
    if stored is not None and stored != rows:
        raise UserError(f"run {run_id} is finished with other scores; change its config (its seed, say) or delete it first.")
    write_json(folder / "scores.json", rows)
    with replacing(folder / "done") as marker:
        marker.write_text("")
    return read_run(run_id, root=root)


def read_run(run_id: str, *, root: Path | None = None) -> RunRecord:
    """Returns a run's record, finished or not.

    Args:
        run_id: Its name.
        root: Cache folder.

    Raises:
        RunNotFound: If there is none, or its config cannot be read; the same answer for both.
    """
    folder = run_folder(run_id, root)
    raw = read_json(folder / "config.json")
    try:
        config = RunConfig(**{**raw, "held_out": tuple(raw["held_out"])})
    except (TypeError, KeyError):
        raise RunNotFound(f"there is no run {run_id!r}; `python -m robustft list runs` names them all.") from None
    is_finished = (folder / "done").exists()
    rows = read_json(folder / "scores.json") if is_finished else None
    try:
        scores = tuple(Score(**row) for row in rows or ())
    except TypeError:
        scores = ()
    status = read_json(folder / "status.json")
    return RunRecord(run_id, config, is_finished and bool(scores), scores, status if isinstance(status, dict) else {})


def list_runs(*, root: Path | None = None) -> list[RunRecord]:
    """Returns every readable run, newest first; what is no run is passed over."""
    base = (root or default_root()) / "runs"
    try:
        folders = [path for path in base.iterdir() if RUN_ID.fullmatch(path.name) and (path / "config.json").is_file()]
    except OSError:
        return []
    folders.sort(key=lambda path: _modified(path / "config.json"), reverse=True)
    records = []
    for path in folders:
        try:
            records.append(read_run(path.name, root=root))
        except RunNotFound:
            continue
    return records


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def trash_run(run_id: str, *, root: Path) -> None:
    """Moves a run out of sight; nothing is erased."""
    folder = run_folder(run_id, root)
    if not folder.is_dir():
        raise RunNotFound(f"there is no run {run_id!r}; `python -m robustft list runs` names them all.")
    (root / "trash").mkdir(exist_ok=True)
    os.replace(folder, root / "trash" / f"{run_id}.{time.time_ns()}")


# --- a run's files ----------------------------------------------------------------------------------------------------


def append_history(run_id: str, records: Sequence[StepRecord], root: Path) -> None:
    """Adds steps to a run's history, one JSON line each."""
    lines = "".join(json.dumps(asdict(record), allow_nan=False) + "\n" for record in records)
    try:
        with (run_folder(run_id, root) / "history.jsonl").open("a", encoding="utf-8") as history:
            history.write(lines)
    except OSError as error:
        raise disk_error(error, "the history of the run") from None


def read_history(run_id: str, *, root: Path | None = None) -> list[StepRecord]:
    """Returns a run's steps in order; a torn last line is passed over."""
    try:
        lines = (run_folder(run_id, root) / "history.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        try:
            records.append(StepRecord(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return records


def cut_history(run_id: str, step: int, root: Path) -> None:
    """Drops the steps after a checkpoint, which a resumed run takes again."""
    kept = [record for record in read_history(run_id, root=root) if record.step <= step]
    with replacing(run_folder(run_id, root) / "history.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(asdict(record)) + "\n" for record in kept), encoding="utf-8")


def save_weights(run_id: str, name: str, tensors: Mapping[str, Tensor], root: Path) -> None:
    """Writes tensors of a run (``theta_1`` or ``checkpoint``) as safetensors."""
    with replacing(run_folder(run_id, root) / f"{name}.safetensors") as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary)


def load_weights(run_id: str, name: str, *, root: Path | None = None) -> dict[str, Tensor] | None:
    """Reads tensors of a run, or returns None if they are absent or damaged."""
    try:
        return load_file(run_folder(run_id, root) / f"{name}.safetensors")
    except (OSError, SafetensorError):
        return None


def drop_checkpoint(run_id: str, root: Path) -> None:
    """Removes the checkpoint of a run that has its final weights."""
    (run_folder(run_id, root) / "checkpoint.safetensors").unlink(missing_ok=True)


def tail_log(run_id: str, *, root: Path | None = None, size: int = 20_000) -> str:
    """Returns the end of a run's log."""
    try:
        with (run_folder(run_id, root) / "log.txt").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - size))
            return log.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


# --- content-keyed cache ----------------------------------------------------------------------------------------------


def cached_file(kind: str, key: str, root: Path) -> Path:
    """Returns where a piece of the content cache lies: ``features`` or ``datasets``, by the hash of what determines it."""
    return root / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
