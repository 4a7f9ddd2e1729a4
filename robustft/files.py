"""Files that are whole or absent: written beside their final name and moved into place."""

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from .types import UserError


def disk_error(error: OSError | SafetensorError, what: str) -> UserError:
    """Turns an operating-system error, or safetensors' word for one, into a sentence that says what to do."""
    number, words = getattr(error, "errno", None), getattr(error, "strerror", None)
    is_full = number == errno.ENOSPC or "No space left" in str(error)
    reason = "the disk is full" if is_full else (words or "the disk refuses").lower()
    return UserError(f"{what} cannot be written ({reason}); choose another folder with --runs-dir or $ROBUSTFT_CACHE, or free the disk.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file beside the final one to write, and moves it into place only if nothing went wrong."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise disk_error(error, f"the file {path.name!r}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all; refuses NaN, which is no JSON."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads JSON, or returns None if the file is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], note: Mapping[str, Any] | None = None) -> None:
    """Writes named arrays, and a JSON note beside them in the same file."""
    with replacing(path) as temporary:
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, temporary, {"note": json.dumps(note or {})})


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Reads arrays and note, or returns None if the file is absent or damaged."""
    try:
        with safe_open(path, "np") as opened:
            note = json.loads((opened.metadata() or {}).get("note", "{}"))
        return load_file(path), note
    except (OSError, SafetensorError, ValueError):
        return None
