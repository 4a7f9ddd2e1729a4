"""The queue of jobs: rows in one SQLite file that pages write and one supervisor process works off.

A job is an argv and a folder; what it computes is not known here. Pages only add rows and mark them. `supervisor` starts
and ends the processes, one supervisor for one root, so closing a page or restarting the web server harms no job.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from . import detached

STATES = ("queued", "running", "stopping", "done", "cancelled", "failed", "lost")
ENDED = frozenset(STATES[3:])
BUSY_SECONDS = 10.0
_CLOCK_TOLERANCE = 1.0

_SCHEMA = """CREATE TABLE IF NOT EXISTS jobs (
    job_id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, argv TEXT NOT NULL, folder TEXT NOT NULL, state TEXT NOT NULL, slot INTEGER,
    pid INTEGER, process_started REAL, submitted REAL NOT NULL, started REAL, ended REAL, returncode INTEGER, priority INTEGER NOT NULL DEFAULT 0)"""
_ADDED = "ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0"  # what files of before this column lack
_ACTIVE = "state IN ('queued', 'running', 'stopping')"


@dataclass(frozen=True)
class Job:
    """One row of the queue. Times are seconds since the epoch.

    Attributes:
        job_id: Number in order of submission.
        run_id: Name of what the job makes; at most one job of a name is queued, running or stopping.
        argv: Program and arguments, never seen by a shell.
        folder: Absolute; holds ``log.txt`` and, once the job has finished its work, ``done``.
        state: One of `STATES`. ``lost`` means ended without a word: killed, or gone while nobody watched.
        slot: Which of the supervisor's slots it has or had.
        pid: Process, at the same time its group and session.
        process_started: The process's creation time, which tells it from a later one of the same pid.
        submitted: When the row was added.
        started: When it left the queue for a slot.
        ended: When it reached one of `ENDED`.
        returncode: As in `subprocess`; None also if the process was adopted, since only a parent learns it.
        priority: A higher one starts first; among equals the one submitted first.
    """

    job_id: int
    run_id: str
    argv: tuple[str, ...]
    folder: str
    state: str
    slot: int | None
    pid: int | None
    process_started: float | None
    submitted: float
    started: float | None
    ended: float | None
    returncode: int | None
    priority: int = 0

    @property
    def marker(self) -> str:
        """Value of `detached.MARKER` in the environment of its processes: the number, and the time should numbers begin anew with a new file."""
        return f"{self.job_id}@{self.submitted!r}"


def submit(root: Path, run_id: str, argv: Sequence[str], *, folder: Path, most: int = 200) -> Job:
    """Adds a job to the queue, or returns the queued, running or stopping one of the same ``run_id``.

    Args:
        root: Folder of the queue, made if absent.
        run_id: Name of what the job makes.
        argv: Program and arguments, passed verbatim.
        folder: Where the job's log and results go; made when it starts.
        most: Longest queue allowed. Running jobs do not count.

    Returns:
        The job as it stands in the queue. It waits there until a supervisor runs: see `ensure_supervisor`.

    Raises:
        ValueError: If ``argv`` cannot be run as it is, or the queue is full. Names the argument or the number.
        OSError: If the queue cannot be written now.
    """
    _check_argv(argv)
    root.mkdir(parents=True, exist_ok=True)
    with _transaction(root) as database:
        same = _read(database, f"run_id = ? AND {_ACTIVE}", run_id)
        if same:
            return same[0]
        count = len(_read(database, "state = 'queued'"))
        if count >= most:
            raise ValueError(f"{count} jobs are waiting and {most} are allowed; cancel some or wait until some have run.")
        row = (run_id, json.dumps(list(argv)), str(folder.absolute()), time.time())
        added = database.execute("INSERT INTO jobs (run_id, argv, folder, state, submitted) VALUES (?, ?, ?, 'queued', ?)", row)
        return _read(database, "job_id = ?", added.lastrowid)[0]


def cancel(root: Path, job_id: int) -> Job:
    """Ends a queued job at once and marks a running one ``stopping``, for the supervisor to end; leaves an ended one unchanged.

    Raises:
        LookupError: If there is no such job. Names it.
        OSError: If the queue cannot be written now.
    """
    if not _path(root).exists():
        raise _missing(job_id)
    with _transaction(root) as database:
        database.execute("UPDATE jobs SET state = 'cancelled', ended = ? WHERE job_id = ? AND state = 'queued'", (time.time(), job_id))
        database.execute("UPDATE jobs SET state = 'stopping' WHERE job_id = ? AND state = 'running'", (job_id,))
        found = _read(database, "job_id = ?", job_id)
    if not found:
        raise _missing(job_id)
    return found[0]


def list_jobs(root: Path) -> list[Job]:
    """Returns all jobs, ended ones too, in order of submission; none if there is no queue yet.

    Raises:
        ValueError: If the file is damaged. Says what to do.
        OSError: If it cannot be read now.
    """
    return _select(root, "TRUE")


def active_jobs(root: Path) -> list[Job]:
    """Returns the queued, running and stopping jobs, in order of submission; see `waiting` for the order of their start."""
    return _select(root, _ACTIVE)


def waiting(book: Sequence[Job]) -> list[Job]:
    """Returns the queued jobs among some, the next to start first."""
    return sorted((job for job in book if job.state == "queued"), key=lambda job: (-job.priority, job.job_id))


def places(book: Sequence[Job]) -> dict[int, int]:
    """Returns the place of every waiting job by its number, 1 for the next to start."""
    return {job.job_id: place for place, job in enumerate(waiting(book), start=1)}


def move_to_front(root: Path, job_id: int) -> Job:
    """Makes a queued job the next to start; leaves one that is not waiting unchanged.

    Raises:
        LookupError: If there is no such job. Names it.
        OSError: If the queue cannot be written now.
    """
    if not _path(root).exists():
        raise _missing(job_id)
    with _transaction(root) as database:
        first = max((job.priority for job in _read(database, "state = 'queued' AND job_id <> ?", job_id)), default=-1) + 1
        database.execute("UPDATE jobs SET priority = ? WHERE job_id = ? AND state = 'queued'", (first, job_id))
        found = _read(database, "job_id = ?", job_id)
    if not found:
        raise _missing(job_id)
    return found[0]


def claim(root: Path, job_id: int, slot: int) -> bool:
    """Gives a queued job a slot before its process exists; False if it was cancelled meanwhile."""
    with _transaction(root) as database:
        change = "UPDATE jobs SET state = 'running', slot = ?, started = ? WHERE job_id = ? AND state = 'queued'"
        return database.execute(change, (slot, time.time(), job_id)).rowcount == 1


def record_process(root: Path, job_id: int, pid: int, process_started: float) -> None:
    """Writes down which process a claimed job is. The state stays: it may be ``stopping`` by now."""
    with _transaction(root) as database:
        database.execute("UPDATE jobs SET pid = ?, process_started = ? WHERE job_id = ?", (pid, process_started, job_id))


def finish(root: Path, job_id: int, state: str, returncode: int | None = None) -> None:
    """Writes down how a job ended."""
    assert state in ENDED, state
    with _transaction(root) as database:
        database.execute("UPDATE jobs SET state = ?, returncode = ?, ended = ? WHERE job_id = ?", (state, returncode, time.time(), job_id))


def verdict(returncode: int | None, *, is_stopping: bool, has_done: bool) -> str:
    """Returns the state in which an ended process leaves its job.

    Args:
        returncode: As in `subprocess`, negative for a signal; None if unknown, because the process was adopted.
        is_stopping: Whether it was asked to end.
        has_done: Whether its folder has the ``done`` file; decides only where the return code is unknown.

    Example:
        >>> verdict(143, is_stopping=True, has_done=False), verdict(143, is_stopping=False, has_done=False)
        ('cancelled', 'failed')
    """
    if returncode == 0 or (returncode is None and has_done):
        return "done"
    if is_stopping:
        return "cancelled"
    return "lost" if returncode is None or returncode < 0 else "failed"


def is_alive(pid: int, process_started: float) -> bool:
    """Returns whether a process runs and is the one that began then, not a later one that got its pid. A zombie is dead.

    Args:
        pid: Process number.
        process_started: ``psutil.Process(pid).create_time()`` as taken before; may be off by one second.
    """
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - process_started) <= _CLOCK_TOLERANCE and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError, OverflowError):  # the last two: no possible pid
        return False


def take_lock(root: Path) -> int | None:
    """Returns an open file that makes its owner the supervisor until it is closed or its process ends; None if there is one."""
    return detached.take_lock(root / "supervisor.lock")


def ensure_supervisor(root: Path, argv: Sequence[str]) -> bool:
    """Starts a supervisor that outlives this process, unless one is at work; returns whether one was started.

    Call it after `submit` *and* after `cancel`: a row alone moves nothing.

    Args:
        root: Folder of the queue, made if absent.
        argv: Command that calls `supervisor.supervise` on this root. What it prints is appended to ``<root>/supervisor.log``.

    Raises:
        OSError: If the command cannot be started.
    """
    return detached.ensure("supervisor", root, argv)


def _check_argv(argv: Sequence[str]) -> None:
    if isinstance(argv, str) or not argv:
        raise ValueError(f"argv is {argv!r}; give a list of the program and its arguments.")
    if bad := [argument for argument in argv if "\0" in argument]:
        raise ValueError(f"argv has {bad[0]!r}; only text without NUL can be passed to a program.")


def _missing(job_id: int) -> LookupError:
    return LookupError(f"there is no job {job_id} in this queue; choose one that list_jobs returns.")


def _path(root: Path) -> Path:
    return root / "jobs.sqlite"


@contextmanager
def _database(root: Path) -> Iterator[sqlite3.Connection]:
    """Opens the queue for a moment. Nobody keeps it open, so a damaged file can be moved away under a live supervisor."""
    try:
        with closing(sqlite3.connect(_path(root), timeout=BUSY_SECONDS, isolation_level=None)) as database:
            database.row_factory = sqlite3.Row
            with suppress(sqlite3.OperationalError):  # busy: someone else is switching it on, and it works without
                database.execute("PRAGMA journal_mode = WAL")
            database.execute(_SCHEMA)
            if not _has_priority(database):
                with suppress(sqlite3.OperationalError):  # a file that cannot be written can still be read, or another process was faster
                    database.execute(_ADDED)
            yield database
    except (sqlite3.Error, json.JSONDecodeError) as error:
        raise _explained(error) from error


@contextmanager
def _transaction(root: Path) -> Iterator[sqlite3.Connection]:
    with _database(root) as database, database:
        database.execute("BEGIN IMMEDIATE")
        yield database


def _explained(error: Exception) -> Exception:
    """Puts an error into words. Pages show them, so they name the file and not where it lies."""
    is_foreign = str(error).startswith(("no such", "table jobs", "Could not decode"))  # by text: error codes came with Python 3.11
    if isinstance(error, sqlite3.OperationalError) and not is_foreign:  # it will pass
        return OSError(f"the queue, jobs.sqlite, cannot be used now ({error}); try again, then look at disk space and permissions.")
    return ValueError(
        f"jobs.sqlite is damaged ({error}); move it out of the runs folder, together with its -wal and -shm files. "
        "Runs are safe in their folders, only the queue begins anew."
    )


def _select(root: Path, condition: str) -> list[Job]:
    if not _path(root).exists():
        return []
    with _database(root) as database:
        return _read(database, condition)


def _has_priority(database: sqlite3.Connection) -> bool:
    return any(row["name"] == "priority" for row in database.execute("PRAGMA table_info(jobs)"))


def _read(database: sqlite3.Connection, condition: str, *values: object) -> list[Job]:
    columns = ", ".join(field.name for field in fields(Job) if field.name != "priority" or _has_priority(database))
    rows = database.execute(f"SELECT {columns} FROM jobs WHERE {condition} ORDER BY job_id", values)
    return [Job(**{**dict(row), "argv": tuple(json.loads(row["argv"]))}) for row in rows]
