"""How pages ask for UMAPs: a file a request in ``maps/requests``, and a worker process started where none lives.

Files are the only channel. A request is written whole, removed when its maps are stored, and replaced by a word on what
went wrong if they cannot be drawn. If the worker is killed its requests are still there; asking again starts another.

``ROBUSTFT_MAP_WORKER=off`` in the environment: requests are written but no process is started, for a server where
somebody runs ``python -m robustft draw-maps`` by hand, and for tests.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import detached
from .files import read_json, write_json
from .jobs import is_alive

SWITCH = "ROBUSTFT_MAP_WORKER"
ASKED = ("run_id", "dataset", "domain", "moment")
"""What a request names; the moment is empty for the end of the run."""
FAILED = ".failed.json"


# --- asking -----------------------------------------------------------------------------------------------------------


def request(root: Path, run_id: str, dataset: str, domain: str, moment: str = "", *, argv: Sequence[str]) -> None:
    """Asks for the UMAPs of a run on one domain of one task, and sees to it that a worker lives. Asking twice is asking once.

    What was said about an earlier failure is forgotten, so that it is tried again.

    Args:
        root: Cache folder.
        run_id: The run.
        dataset: The task.
        domain: One of its domains.
        moment: What stands for after, see `moments.get_moments`; empty is the end of the run.
        argv: As in `ensure_worker`; not used if ``ROBUSTFT_MAP_WORKER`` is ``off``.

    Raises:
        UserError: If the request cannot be written.
        OSError: If the command cannot be started.
    """
    path = path_of(root, run_id, dataset, domain, moment)
    if not path.exists():
        write_json(path, {"run_id": run_id, "dataset": dataset, "domain": domain, "moment": moment, "asked": time.time(), "tries": 0})
        path.with_suffix(FAILED).unlink(missing_ok=True)
    if os.environ.get(SWITCH) != "off":
        ensure_worker(root, argv)


def state(root: Path, run_id: str, dataset: str, domain: str, moment: str = "") -> tuple[str | None, str]:
    """Returns where a request stands, and a sentence about it.

    Returns:
        ``waiting`` and what the worker does; ``failed`` and why; None and nothing if it was never made, or its maps are stored.
    """
    path = path_of(root, run_id, dataset, domain, moment)
    asked = read_request(path)
    if asked is not None:
        return "waiting", _what_happens(root / "maps", path, asked)
    failure = read_json(path.with_suffix(FAILED))
    return ("failed", str(failure.get("message", ""))) if isinstance(failure, dict) else (None, "")


def ensure_worker(root: Path, argv: Sequence[str]) -> bool:
    """Starts a worker that outlives this process, unless one is at work; returns at once.

    Args:
        root: Cache folder, made if absent.
        argv: Command that calls `map_worker.work` on this root. What it prints is appended to ``<root>/maps/worker.log``.

    Returns:
        Whether one was started. If two callers start one each, the second ends at once.

    Raises:
        OSError: If the command cannot be started.
    """
    return detached.ensure("worker", root / "maps", argv)


def _what_happens(folder: Path, path: Path, asked: Mapping[str, Any]) -> str:
    """Says what the worker is doing about a request, from the word that it leaves in ``worker.json``."""
    told = read_json(folder / "worker.json")
    if not isinstance(told, dict) or not is_alive(told.get("pid", 0), told.get("process_started", 0.0)):
        return "The process that draws maps is not running yet."
    if told.get("stage") == "drawing" and told.get("request") == path.name:
        return "It is being drawn now."
    before = sum(turn(other) < turn(asked) for _, other in requests_in(folder) if other is not None)
    ahead = f"{before} other {'map comes' if before == 1 else 'maps come'} first." if before else "It is next."
    if told.get("stage") == "compiling":
        return f"The process that draws maps has just started and compiles UMAP, which takes about half a minute. {ahead}"
    return ahead


# --- files ------------------------------------------------------------------------------------------------------------


def path_of(root: Path, run_id: str, dataset: str, domain: str, moment: str = "") -> Path:
    """Returns where a request lies; named by a hash, since the words may come from a page's address."""
    return root / "maps" / "requests" / f"{hashlib.sha256(json.dumps([run_id, dataset, domain, *([moment] if moment else [])]).encode()).hexdigest()[:24]}.json"


def read_request(path: Path) -> dict[str, Any] | None:
    """Returns a request, or None if its file is absent or no request."""
    found = read_json(path)
    if isinstance(found, dict):
        found.setdefault("moment", "")  # as an older version asked
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ASKED):
        return None
    return found if isinstance(found.get("tries"), int) and isinstance(found.get("asked"), int | float) else None


def requests_in(folder: Path) -> list[tuple[Path, dict[str, Any] | None]]:
    """Returns the request files in their turn, those first that hold no request."""
    found = [(path, read_request(path)) for path in (folder / "requests").glob("*.json") if not path.name.endswith(FAILED)]
    return sorted(found, key=lambda pair: turn(pair[1]) if pair[1] else (-1, 0.0))


def turn(asked: Mapping[str, Any]) -> tuple[int, float]:
    """Orders requests: one under which the worker died comes after all others, else the oldest comes first."""
    return asked["tries"], asked["asked"]


def take_lock(folder: Path) -> int | None:
    """Returns an open file that makes its owner the worker until it is closed or its process ends; None if there is one."""
    return detached.take_lock(folder / "worker.lock")
