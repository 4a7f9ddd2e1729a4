"""The one process that starts, watches and ends jobs; the other half of `jobs`, which has the rows.

A process is known by pid *and* creation time, and by a marker in its environment, before anything is signalled. A job ends
when its whole process group is gone, so that its slot's device is free before the next one starts.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from .detached import HOME, MARKER
from .jobs import Job, active_jobs, claim, finish, is_alive, record_process, take_lock, verdict, waiting

_PASSED = {"PATH", "HOME", "LANG", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE"}
_PASSED_PREFIXES = ("LC_", "CUDA", "NVIDIA", "OMP_", "MKL_", "OPENBLAS", "NUMBA_", "ROBUSTFT_", "HF_HOME", "TORCH_HOME", "XDG_CACHE")
_SECRET = ("TOKEN", "SECRET", "PASSW", "KEY", "CREDENTIAL")  # NVIDIA_API_KEY would have an allowed prefix


@dataclass(frozen=True)
class _Child:
    """A process this supervisor is the parent of. Its pid cannot be given to another before it is waited for."""

    process: subprocess.Popen[bytes]
    process_started: float
    slot: int


def supervise(
    root: Path, *, slots: Sequence[Mapping[str, str]] = ({},), poll_seconds: float = 0.2, grace_seconds: float = 10.0, idle_seconds: float = 60.0
) -> None:
    """Works off the queue until it has been empty for a while, or returns at once if another supervisor does.

    Jobs of a supervisor that died are adopted. SIGTERM or SIGINT ends the supervisor, not its jobs: the next one adopts them.

    Args:
        root: Folder of the queue, made if absent.
        slots: Extra environment of the job in each slot, such as ``{"CUDA_VISIBLE_DEVICES": "0"}``. As many jobs run at once as there are slots.
        poll_seconds: Pause between two looks at the queue.
        grace_seconds: How long a process group has between SIGTERM and SIGKILL.
        idle_seconds: How long to wait for work before ending.

    Raises:
        ValueError: If there are no slots.
    """
    if not slots:
        raise ValueError("a supervisor without slots would start nothing; give one mapping a slot, {} for no extra environment.")
    root.mkdir(parents=True, exist_ok=True)
    Supervisor(root, slots, grace_seconds=grace_seconds).run(poll_seconds=poll_seconds, idle_seconds=idle_seconds)


class Supervisor:
    """Brings every job of one root forward, a step at each look."""

    def __init__(self, root: Path, slots: Sequence[Mapping[str, str]], *, grace_seconds: float) -> None:
        """Knows nothing yet: the first look learns from the rows what runs."""
        self._root = root
        self._slots = slots
        self._grace_seconds = grace_seconds
        # By `Job.marker`, not by number alone: numbers begin anew if the queue's file is moved away while its jobs run.
        self._children: dict[str, _Child] = {}
        self._kill_at: dict[str, float] = {}
        self._complaint = ""

    def run(self, *, poll_seconds: float, idle_seconds: float) -> None:
        """Holds the lock and works until idle or told to end; see `supervise`."""
        with _termination() as received:
            while not received and (lock := take_lock(self._root)) is not None:
                try:
                    self._watch(received, poll_seconds, idle_seconds)
                finally:
                    os.close(lock)
                # A submit may have seen the lock just before it was released and started no other supervisor.
                if not self._is_needed():
                    return

    def look(self) -> bool:
        """Tends what runs, then fills free slots in the order of the queue; returns whether there is anything left to do."""
        jobs = active_jobs(self._root)
        self._reap_unlisted({job.marker for job in jobs})
        busy = {job.slot for job in jobs if job.state != "queued" and self._tend(job)}
        busy |= {child.slot for child in self._children.values()}
        free = [slot for slot in range(len(self._slots)) if slot not in busy]
        for job, slot in zip(waiting(jobs), free, strict=False):
            self._start(job, slot)
        return bool(jobs or self._children)

    def _watch(self, received: list[int], poll_seconds: float, idle_seconds: float) -> None:
        last_busy = time.monotonic()
        while not received:
            if self._safe_look():
                last_busy = time.monotonic()
            elif time.monotonic() - last_busy >= idle_seconds:
                return
            time.sleep(poll_seconds)

    def _safe_look(self) -> bool:
        """Looks, and outlives a queue that is locked, damaged or on a full disk: says so once and tries again next time."""
        try:
            is_busy = self.look()
        except (OSError, ValueError, psutil.Error) as error:
            if str(error) != self._complaint:
                _say(f"will try again: {error}")
            self._complaint = str(error)
            return bool(self._children)
        self._complaint = ""
        return is_busy

    def _is_needed(self) -> bool:
        try:
            return bool(active_jobs(self._root))
        except (OSError, ValueError):
            return False

    def _start(self, job: Job, slot: int) -> None:
        """Claims, starts, writes down the pid, in this order: killed in between, the next supervisor finds the process by its marker."""
        if not claim(self._root, job.job_id, slot):
            return
        try:
            process = _spawn(job, self._slots[slot])
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._refuse(job, error)
            return
        child = _Child(process, psutil.Process(process.pid).create_time(), slot)
        self._children[job.marker] = child
        _say(f"job {job.job_id} started: run {job.run_id}, pid {process.pid}, slot {slot}")
        record_process(self._root, job.job_id, process.pid, child.process_started)

    def _refuse(self, job: Job, error: Exception) -> None:
        line = f"could not start {job.argv[0]}: {error}"
        _say(f"job {job.job_id} failed: {line}")
        with suppress(OSError), (Path(job.folder) / "log.txt").open("a") as log:
            log.write(line + "\n")
        finish(self._root, job.job_id, "failed")

    def _tend(self, job: Job) -> bool:
        """Brings a running or stopping job forward; returns whether it still has its slot."""
        child = self._children.get(job.marker)
        if job.pid is None:
            job = self._with_process(job, child)
        leads = _is_child_running(child) if child else _is_running(job)
        if job.state == "stopping" or not leads:
            members = _members(job, child, leads)
            if members:
                self._press(job, members)
                return True
        if leads:
            return True
        self._conclude(job, child)
        return False

    def _with_process(self, job: Job, child: _Child | None) -> Job:
        """Fills in the process of a job that was started but not written down."""
        found = (child.process.pid, child.process_started) if child else _find_process(job)
        if found is None:
            return job
        record_process(self._root, job.job_id, *found)
        return replace(job, pid=found[0], process_started=found[1])

    def _press(self, job: Job, members: list[psutil.Process]) -> None:
        """SIGTERM the first time, nothing during the grace, then SIGKILL at every look until nobody is left."""
        kill_at = self._kill_at.setdefault(job.marker, 0.0)
        if not kill_at:
            self._kill_at[job.marker] = time.monotonic() + self._grace_seconds
            _send(members, signal.SIGTERM)
        elif time.monotonic() >= kill_at:
            _send(members, signal.SIGKILL)

    def _conclude(self, job: Job, child: _Child | None) -> None:
        returncode = child.process.wait() if child else None  # does not block: it is a zombie by now
        state = verdict(returncode, is_stopping=job.state == "stopping", has_done=(Path(job.folder) / "done").exists())
        finish(self._root, job.job_id, state, returncode)
        _say(f"job {job.job_id} {state}: returncode {returncode}")
        # Forgotten only after `finish`: if that fails, the next look still knows the return code.
        self._children.pop(job.marker, None)
        self._kill_at.pop(job.marker, None)

    def _reap_unlisted(self, listed: set[str]) -> None:
        """Lets go of ended children whose row has gone, with the file it was in."""
        for key, child in list(self._children.items()):
            if key not in listed and child.process.poll() is not None:
                del self._children[key]


def job_environment(parent: Mapping[str, str], slot: Mapping[str, str]) -> dict[str, str]:
    """Returns what a job sees of the environment: an allow-list, nothing named like a secret, then all that its slot adds."""
    passed = {name: value for name, value in parent.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return {name: value for name, value in passed.items() if not any(word in name.upper() for word in _SECRET)} | {"PYTHONUNBUFFERED": "1"} | dict(slot)


def _spawn(job: Job, slot: Mapping[str, str]) -> subprocess.Popen[bytes]:
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    environment = job_environment(os.environ, slot) | {MARKER: job.marker}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            list(job.argv), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, close_fds=True, env=environment, cwd=HOME
        )


def _is_child_running(child: _Child) -> bool:
    """Whether a child has not ended, without reaping it: as a zombie it keeps its pid, which is also its group's, from strangers."""
    if child.process.returncode is not None:
        return False
    return bool(psutil.Process(child.process.pid).status() != psutil.STATUS_ZOMBIE)


def _is_running(job: Job) -> bool:
    """Whether an adopted job's process lives. The marker also counts: a clock set anew shifts every creation time."""
    if job.pid is None:
        return False
    return is_alive(job.pid, job.process_started or 0.0) or _carries_marker(job.pid, job)


def _carries_marker(pid: int, job: Job) -> bool:
    try:
        return bool(psutil.Process(pid).environ().get(MARKER) == job.marker)
    except (psutil.Error, OSError):  # gone, a zombie, or another user's
        return False


def _find_process(job: Job) -> tuple[int, float] | None:
    """Finds a job's process without its pid: a group leader with its marker, or whom its ``status.json`` names."""
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getpgid(pid) == pid and _carries_marker(pid, job):
                return pid, psutil.Process(pid).create_time()
    try:
        status = json.loads((Path(job.folder) / "status.json").read_text())
        pid, process_started = int(status["pid"]), float(status["process_started"])
    except (OSError, ValueError, LookupError, TypeError):  # absent, torn, or something else
        return None
    return (pid, process_started) if is_alive(pid, process_started) else None


def _members(job: Job, child: _Child | None, leads: bool) -> list[psutil.Process]:
    """Returns the living processes of a job's group, leader included, and no stranger's.

    The group's number is the leader's pid. While the leader lives, or is our zombie, that is nobody else's. After that it may
    be, and only processes with the job's marker are taken.
    """
    if job.pid is None:
        return []
    is_ours = leads or (child is not None and child.process.returncode is None)
    members = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if job.pid in (pid, os.getpgid(pid)) and (is_ours or _carries_marker(pid, job)):
                process = psutil.Process(pid)
                members += [process] if process.status() != psutil.STATUS_ZOMBIE else []
    return members


def _send(members: list[psutil.Process], number: signal.Signals) -> None:
    for process in members:
        with suppress(psutil.Error, OSError):  # psutil compares creation times once more before it signals
            process.send_signal(number)


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them. In a thread other than the main one, which gets no signals, does nothing."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda caught, _frame: received.append(caught)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    with suppress(OSError, ValueError):  # a closed terminal must not end the supervisor
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=sys.stderr, flush=True)
