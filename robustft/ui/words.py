"""Words on pages: what others wrote, made harmless; errors as sentences; numbers as a person writes them."""

import logging
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st

from ..store import default_root
from ..types import UserError


@contextmanager
def errors_as_boxes() -> Iterator[None]:
    """Shows what goes wrong inside as one sentence in a box; an unforeseen one's traceback goes to the server's log."""
    try:
        yield
    except (ValueError, LookupError, OSError, subprocess.SubprocessError) as error:
        if not isinstance(error, UserError):
            logging.getLogger("robustft").warning("shown on a page", exc_info=error)
        st.error(plain(words_of(error)), icon=":material/error:")


def words_of(error: BaseException) -> str:
    """Returns one sentence for a page: a user error's own words, less this machine's paths; of any other only its kind."""
    if isinstance(error, UserError):
        return without_paths(str(error), default_root())
    return f"Something went wrong inside robustft ({type(error).__name__}). The server's log has the details."


def plain(text: str) -> str:
    """Escapes text that came from a person or a folder so that Markdown shows it as it is."""
    return "".join("\\" + char if char in r"\`*_{}[]()<>#+-.!|$~:&" else char for char in text)


def without_paths(text: str, root: Path) -> str:
    """Takes this machine's paths out of a text: the cache folder reads ``<runs>``, the code ``<robustft>``, others ``...``."""
    known = {str(root): "<runs>", str(root.resolve()): "<runs>", str(Path(__file__).parent.parent): "<robustft>", sys.prefix: "<python>"}
    for path, word in sorted(known.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(path, word)
    return re.sub(r"(?<![\w<>.~/:])/(?:[^\s/'\",:]+/)+(?=[^\s/'\",:]+)", ".../", text)


def duration(seconds: float) -> str:
    """Writes a time span for a person.

    Example:
        >>> duration(8.2), duration(200), duration(9000)
        ('9 s', '4 min', '2 h 30 min')
    """
    if seconds < 99:
        return f"{int(math.ceil(seconds))} s"
    minutes = int(math.ceil(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def shown(value: Any) -> str:
    """Writes a value as a person would type it, without losing a digit."""
    if value is None:
        return "none"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def size(count: int) -> str:
    """Writes a number of bytes for a person.

    Example:
        >>> size(900), size(34_500_000), size(5_000_000_000)
        ('1 kB', '34 MB', '5.0 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
