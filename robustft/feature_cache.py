"""Features and graphs on disk: memory-mapped tables named by content, kept within a size by clearing what was used longest ago."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .files import read_arrays, replacing, write_arrays
from .store import cached_file
from .types import KnnGraph, UserError, quoted

KINDS = ("features", "graphs")
DEFAULT_GB = 5.0
LEFTOVER_SECONDS = 3600.0


@dataclass(frozen=True)
class CacheUse:
    """How full the cache is: files, their bytes, and the bytes from which on the ones used longest ago are cleared."""

    files: int
    bytes: int
    limit: int


def limit_bytes() -> int:
    """Returns the size that features and graphs may take: ``$ROBUSTFT_FEATURES_GB``, 5 GB if that says nothing.

    Raises:
        UserError: If it is no positive number.
    """
    words = os.environ.get("ROBUSTFT_FEATURES_GB") or str(DEFAULT_GB)
    try:
        gigabytes = float(words)
    except ValueError:
        gigabytes = float("nan")
    if not 0 < gigabytes < 1e6:
        raise UserError(f"ROBUSTFT_FEATURES_GB = {quoted(words)} is not allowed; give a positive number of gigabytes, such as 5.")
    return int(gigabytes * 1e9)


# --- tables -----------------------------------------------------------------------------------------------------------


def read_features(key: str, root: Path) -> Float[np.ndarray, "n d"] | None:
    """Returns the stored features of a key without reading them into memory, or None if they are absent or damaged."""
    path = _features_file(key, root)
    try:
        # Copy-on-write: who changes the array changes no file, and torch takes it without a warning.
        values = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    if values.ndim != 2 or values.dtype != np.float32:
        return None
    _mark_used(path)
    return values


def write_features(key: str, values: Float[np.ndarray, "n d"], root: Path) -> None:
    """Stores features, whole or not at all; two writers of one key store the same, and the last one's file stays."""
    with replacing(_features_file(key, root)) as temporary, temporary.open("wb") as opened:
        np.save(opened, np.ascontiguousarray(values, dtype=np.float32), allow_pickle=False)
    clear_oldest(root)


def read_graph(key: str, root: Path) -> KnnGraph | None:
    """Returns the stored graph of a key, or None if it is absent or damaged."""
    path = _graph_file(key, root)
    stored = read_arrays(path)
    if stored is None or not {"indices", "similarities"} <= stored[0].keys():
        return None
    _mark_used(path)
    return KnnGraph(stored[0]["indices"], stored[0]["similarities"])


def write_graph(key: str, graph: KnnGraph, root: Path) -> None:
    """Stores a graph, whole or not at all."""
    write_arrays(_graph_file(key, root), {"indices": graph.indices, "similarities": graph.similarities})
    clear_oldest(root)


def _features_file(key: str, root: Path) -> Path:
    return cached_file("features", key, root).with_suffix(".npy")


def _graph_file(key: str, root: Path) -> Path:
    return cached_file("graphs", key, root)


def _mark_used(path: Path) -> None:
    """Makes a file the one used last: by its time of change, since many disks keep no time of reading."""
    with suppress(OSError):
        os.utime(path)


# --- size -------------------------------------------------------------------------------------------------------------


def cache_use(root: Path) -> CacheUse:
    """Returns how full the cache is."""
    sizes = [stat.st_size for _, stat in _entries(root)]
    return CacheUse(len(sizes), sum(sizes), limit_bytes())


def clear_oldest(root: Path, limit: int | None = None) -> int:
    """Removes what was used longest ago until the rest fits, and returns how many bytes went; the newest file always stays.

    What a process has mapped stays readable to it: the disk's space is free once it lets go. Removed features are computed
    again when they are asked for.

    Args:
        root: Cache folder.
        limit: Bytes that may stay; `limit_bytes` if None, 0 clears everything.
    """
    allowed = limit_bytes() if limit is None else limit
    entries = sorted(_entries(root), key=lambda entry: entry[1].st_mtime_ns)
    excess, gone = sum(stat.st_size for _, stat in entries) - allowed, 0
    for path, stat in entries if allowed == 0 else entries[:-1]:
        if gone >= excess:
            break
        try:
            path.unlink(missing_ok=True)  # gone is gone, also if another process was quicker
            gone += stat.st_size
        except OSError:
            continue
    _sweep(root)
    return gone


def _entries(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for kind in KINDS:
        with suppress(OSError):
            for entry in os.scandir(root / kind):
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)


def _sweep(root: Path) -> None:
    """Removes what killed writers left half-written, once nobody can be writing it any more."""
    for kind in KINDS:
        for leftover in (root / kind).glob(".*.part"):
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                    leftover.unlink()
