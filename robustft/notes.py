"""A name and a note that a person gives a run: one small file in the run's folder, which changes nothing of the run."""

import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

from . import store
from .files import read_json, write_json
from .types import UserError, quoted

NOTE_FILE = "notes.json"
NAME_CHARS = 60
NOTE_CHARS = 1000
_REFUSED = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
_TURNING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they make text read otherwise than it is


@dataclass(frozen=True)
class Note:
    """What a person calls a run and says about it.

    Attributes:
        name: One line of at most `NAME_CHARS` characters.
        note: Lines of at most `NOTE_CHARS` characters together.
    """

    name: str = ""
    note: str = ""


NO_NOTE = Note()


def checked(name: str, note: str) -> Note:
    """Returns both without blanks around them.

    Raises:
        UserError: If one is too long or holds a control character; says which and what is allowed.

    Example:
        >>> checked("  best so far ", "seed 3 diverged")
        Note(name='best so far', note='seed 3 diverged')
    """
    found = Note(name.strip(), note.replace("\r\n", "\n").strip())
    for what, text, most, allowed in (("name", found.name, NAME_CHARS, ""), ("note", found.note, NOTE_CHARS, "\n\t")):
        if len(text) > most:
            raise UserError(f"the {what} has {len(text):,} characters; at most {most:,} are allowed. Shorten it.")
        strange = next((char for char in text if char not in allowed and (unicodedata.category(char) in _REFUSED or char in _TURNING)), None)
        if strange is not None:
            raise UserError(f"the {what} holds the character {quoted(strange)}; only characters that can be seen are allowed. Take it out.")
    return found


def read_note(run_id: str, root: Path) -> Note:
    """Returns what stands in a run's folder; nothing if the file is absent, damaged or holds what `checked` refuses."""
    raw = read_json(store.run_folder(run_id, root) / NOTE_FILE)
    if not isinstance(raw, dict):
        return NO_NOTE
    try:
        return checked(str(raw.get("name", "")), str(raw.get("note", "")))
    except UserError:
        return NO_NOTE


def write_note(run_id: str, name: str, note: str, root: Path) -> Note:
    """Writes name and note into a run's folder, whole or not at all, and returns them.

    Raises:
        UserError: If `checked` refuses them, or there is no such run.
    """
    found = checked(name, note)
    folder = store.run_folder(run_id, root)
    if not (folder / "config.json").is_file():
        raise store.RunNotFound(f"there is no run {run_id!r}; `python -m robustft list runs` names them all.")
    write_json(folder / NOTE_FILE, asdict(found))
    return found
