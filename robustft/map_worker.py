"""The one process that draws UMAPs for a cache folder; the other half of `map_requests`, which has the files.

UMAP compiles for seconds in every new process, so one stays warm and draws all of them, at low priority, on few threads and
without a GPU. It holds a lock while it lives.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from .files import write_json
from .map_requests import ASKED, FAILED, requests_in, take_lock
from .types import UserError

MOST_TRIES = 3
"""A request under which the process died so often is given up."""

_THREADS = max(1, (os.cpu_count() or 1) // 4)

Draw = Callable[[Mapping[str, str]], None]


class _ToldToEnd(BaseException):
    """Ends a map amid its drawing, past all that catches errors."""


def compile_umap() -> None:
    """Imports and compiles all that maps need."""
    from .maps import warm_up

    warm_up()


def work(root: Path, draw: Draw, *, warm_up: Callable[[], None] = compile_umap, idle_seconds: float = 600.0, poll_seconds: float = 0.25) -> None:
    """Makes this process the worker: draws what is asked for, oldest request first, until nobody has asked for a while; returns at once if another worker does.

    Ends too when its folder or lock file has vanished, and at once on SIGTERM or SIGINT, leaving no half file: what it was
    drawing is still asked for, and the next worker draws it.

    Args:
        root: Cache folder, made if absent.
        draw: Draws and stores the maps of one request, a mapping of ``run_id``, ``dataset`` and ``domain``. The sentence of a
            `UserError` becomes the request's failure; of another error only its kind, with the traceback in the log.
        warm_up: Compiles what ``draw`` needs, once.
        idle_seconds: How long to wait for a request before ending.
        poll_seconds: Pause between two looks.
    """
    folder = root / "maps"
    folder.mkdir(parents=True, exist_ok=True)
    worker = _Worker(folder, draw, warm_up)
    with suppress(_ToldToEnd):
        _end_on_signals()
        while worker.take_lock():
            # A request may have seen the lock just before it was released and started no other worker.
            if not (worker.run(idle_seconds, poll_seconds) and worker.is_needed()):
                return


class _Worker:
    """Holds the lock of one folder and serves its requests one by one."""

    def __init__(self, folder: Path, draw: Draw, warm_up: Callable[[], None]) -> None:
        """Compiles nothing yet: another worker may be at work."""
        self._folder = folder
        self._draw = draw
        self._warm_up = warm_up
        self._is_warm = False
        self._lock = -1
        self._complaint = ""

    def take_lock(self) -> bool:
        """Takes the lock; tries twice, since whoever asks whether a worker lives holds it for a moment."""
        lock = take_lock(self._folder)
        if lock is None:
            time.sleep(0.2)
            lock = take_lock(self._folder)
        self._lock = -1 if lock is None else lock
        return lock is not None

    def run(self, idle_seconds: float, poll_seconds: float) -> bool:
        """Works until idle, then lets go of the lock; returns False if the place of work has vanished."""
        try:
            _be_modest()
            if not requests_in(self._folder):
                self._warm()
            last_busy = time.monotonic()
            while time.monotonic() - last_busy < idle_seconds:
                if not self._is_in_place():
                    return False
                if self._safe_look():
                    last_busy = time.monotonic()
                else:
                    time.sleep(poll_seconds)
            return True
        finally:
            os.close(self._lock)

    def is_needed(self) -> bool:
        return bool(requests_in(self._folder)) and not self._complaint

    def _is_in_place(self) -> bool:
        """Whether the lock file is still the one that is held: nothing may be written where the folder was removed or moved."""
        try:
            return os.path.samestat(os.fstat(self._lock), os.stat(self._folder / "worker.lock"))
        except OSError:
            return False

    def _safe_look(self) -> bool:
        """Serves the first request, and outlives a full disk: says so once and tries again at the next look."""
        try:
            for path, asked in requests_in(self._folder)[:1]:
                self._serve(path, asked)
                self._complaint = ""
                return True
        except (OSError, UserError) as error:
            if str(error) != self._complaint:
                _say(f"will try again: {error}")
            self._complaint = str(error)
        return False

    def _serve(self, path: Path, asked: dict[str, Any] | None) -> None:
        if asked is None:
            self._fail(path, "The request's file was damaged.")
        elif asked["tries"] >= MOST_TRIES:
            self._fail(path, f"The process that draws maps died {MOST_TRIES} times while it drew this one; maps/worker.log may tell why.")
        else:
            write_json(path, {**asked, "tries": asked["tries"] + 1})  # before the attempt: who is killed cannot count
            try:
                self._attempt(path, {key: asked[key] for key in ASKED})
            except _ToldToEnd:
                if path.exists():
                    write_json(path, asked)  # being told to end is no fault of the request's
                raise

    def _attempt(self, path: Path, asked: Mapping[str, str]) -> None:
        begun, words = time.monotonic(), " ".join(ascii(word) for word in asked.values() if word)
        try:
            self._warm()
            self._tell("drawing", path.name)
            self._draw(asked)
        except UserError as error:
            _say(f"failed {words}: {error}")
            self._fail(path, str(error))
        except Exception as error:
            _say(f"failed {words}:\n{traceback.format_exc()}")
            self._fail(path, f"Something went wrong inside robustft ({type(error).__name__}); maps/worker.log has the details.")
        else:
            _say(f"drew {words} in {time.monotonic() - begun:.1f} s")
            path.unlink(missing_ok=True)
        self._tell("waiting")

    def _warm(self) -> None:
        if not self._is_warm:
            begun = time.monotonic()
            self._tell("compiling")
            self._warm_up()
            _limit_threads()
            self._is_warm = True
            _say(f"ready after {time.monotonic() - begun:.1f} s")
            self._tell("waiting")

    def _fail(self, path: Path, message: str) -> None:
        if self._is_in_place():
            write_json(path.with_suffix(FAILED), {"message": message, "failed": time.time()})
            path.unlink(missing_ok=True)

    def _tell(self, stage: str, request: str = "") -> None:
        """Says what happens, for `map_requests.state`."""
        if self._is_in_place():
            process = psutil.Process()
            write_json(self._folder / "worker.json", {"stage": stage, "request": request, "pid": process.pid, "process_started": process.create_time()})


def _be_modest() -> None:
    """Leaves the machine to pages and training: a map needs no GPU, and would hold its memory while it waits."""
    os.nice(max(0, 5 - os.nice(0)))
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["NUMBA_NUM_THREADS"] = str(_THREADS)


def _limit_threads() -> None:
    """Limits the libraries under numpy, FAISS and torch, which are loaded by now."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(_THREADS)


def _end_on_signals() -> None:
    """Makes the first SIGTERM or SIGINT raise `_ToldToEnd`; another one must not cut off the tidying up."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise _ToldToEnd

    for number in numbers:
        signal.signal(number, end)


def _say(line: str) -> None:
    with suppress(OSError, ValueError):  # a closed terminal must not end the worker
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=sys.stderr, flush=True)
