"""Processes that outlive whoever starts them, one of a kind: each is guarded by a lock file that it holds while it lives."""

import fcntl
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent  # where `python -m robustft` finds the package, wherever the server was started
MARKER = "ROBUSTFT_JOB"  # environment variable by which a supervisor knows the processes of a job again


def take_lock(path: Path) -> int | None:
    """Returns an open file that makes its owner the one process of its kind until it is closed or the process ends; None if there is one."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return lock


def ensure(name: str, folder: Path, argv: Sequence[str]) -> bool:
    """Starts a process that outlives this one, unless one of its kind is at work.

    Args:
        name: Of the kind: its lock is ``<folder>/<name>.lock``, and what it prints is appended to ``<folder>/<name>.log``.
        folder: Made if absent.
        argv: Command that takes the lock.

    Returns:
        Whether one was started. If two callers start one each, the second has to end at once.

    Raises:
        OSError: If the command cannot be started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder / f"{name}.lock")
    if lock is None:
        return False
    os.close(lock)
    environment = {key: value for key, value in os.environ.items() if key != MARKER}  # it is no part of the job that called for it
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, close_fds=True, env=environment, cwd=HOME
        )
    threading.Thread(target=process.wait, daemon=True).start()  # or it would stay a zombie of a long-lived web server
    return True
