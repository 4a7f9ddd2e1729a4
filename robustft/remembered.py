"""Records of runs, remembered in the process: a page that looks every two seconds reads only the files that changed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from . import store
from .evaluate import summarize
from .notes import NO_NOTE, NOTE_FILE, Note, read_note
from .types import RunRecord

_WATCHED = ("config.json", "done", "scores.json", "status.json", NOTE_FILE)
"""All that a record and its note are made of. Files are replaced and not written over, so an equal stamp is an equal file."""

_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Remembered:
    """A run as it was read.

    Attributes:
        record: What the store holds.
        note: What a person wrote about it.
    """

    record: RunRecord
    note: Note = NO_NOTE

    @cached_property
    def summary(self) -> Mapping[str, float]:
        """The run's headline numbers, counted once; empty until it is finished."""
        return summarize(self.record.scores, self.record.config.dataset)


_known: dict[Path, dict[str, tuple[_Stamp, Remembered]]] = {}


def list_runs(root: Path) -> list[Remembered]:
    """Returns every readable run, newest first, as `store.list_runs` does; files that did not change are not read again.

    Args:
        root: Cache folder.

    Example:
        >>> import tempfile
        >>> list_runs(Path(tempfile.mkdtemp()))
        []
    """
    before = _known.get(root, {})
    now: dict[str, tuple[_Stamp, Remembered]] = {}
    for name in _run_names(root / "runs"):
        stamp = _stamp(root / "runs" / name)
        known = before.get(name)
        if known is not None and known[0] == stamp:
            now[name] = known
        elif stamp[0] is not None and (found := _read(name, root)) is not None:
            now[name] = (stamp, found)
    _known[root] = now  # put in place whole: threads of other visitors see the old or the new, and deleted runs are gone
    newest = sorted(now.values(), key=lambda known: known[0][0] or (0, 0, 0), reverse=True)
    return [found for _, found in newest]


def read_run(run_id: str, root: Path) -> Remembered:
    """Returns one run, read anew; raises `store.RunNotFound` if there is none."""
    return Remembered(store.read_run(run_id, root=root), read_note(run_id, root))


def _read(run_id: str, root: Path) -> Remembered | None:
    try:
        return read_run(run_id, root)
    except store.RunNotFound:
        return None


def _run_names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if store.RUN_ID.fullmatch(name)]
    except OSError:
        return []


def _stamp(folder: Path) -> _Stamp:
    """Returns time, number and size of each watched file; taken before reading, so that a later change is noticed."""
    return tuple(_file_stamp(f"{folder}/{name}") for name in _WATCHED)


def _file_stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
