"""Why a run failed, in words that say what to do: found from its last message and the end of its log."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """What probably went wrong with a run.

    Attributes:
        kind: One word or two for it.
        cause: What happened, in a sentence.
        advice: What to do, in a sentence.
        is_memory: Whether a smaller batch may help.
    """

    kind: str
    cause: str
    advice: str
    is_memory: bool = False


_KNOWN: tuple[tuple[str, Failure], ...] = (
    (
        r"out of memory|cannot allocate memory|memoryerror|std::bad_alloc|not enough memory|alloc_failed",
        Failure("out of memory", "The device had too little memory for a batch.", "Retry with half the batch, or end other programs on the device.", True),
    ),
    (
        r"no space left|disk is full|disk quota|are free in the runs folder",
        Failure("disk full", "The disk of the runs folder is full.", "Free some of it (Home clears the cache of features), then press Resume."),
    ),
    (
        r"not finite|non-finite|is nan\b|is inf\b|loss is nan|diverged",
        Failure(
            "loss not finite",
            "Training diverged: a number was no longer finite.",
            "Resume would meet it again. Duplicate the run with a learning rate ten times smaller, or a weaker regularizer.",
        ),
    ),
    (
        r"no such file|filenotfound|cannot be read|no file\b|not a directory|does not exist|no (?:folder|directory)\b|missing (?:file|folder)",
        Failure("missing file", "A file or folder that the run needs is not there.", "Put it back where the message says, then press Resume."),
    ),
    (
        r"size mismatch|shape|mismatch|does not match|do not match|missing key|unexpected key|must match|dimension",
        Failure(
            "mismatch",
            "Two parts do not fit each other: weights, features or settings are of another shape.",
            "Check that model and task are the ones that the checkpoint was made with; if they changed, delete the run and start it anew.",
        ),
    ),
    (
        r"\bkilled\b|sigkill|signal 9|returncode -9|sigterm",
        Failure("killed", "Something ended the process from outside.", "Press Resume; if it happens again, memory was short: retry with half the batch.", True),
    ),
)
_LOST = Failure(
    "lost",
    "The process ended without a word: the machine was restarted, ran out of memory, or someone ended it.",
    "Resume goes on from the last checkpoint; if it happens again, retry with half the batch.",
    True,
)
_UNKNOWN = Failure("unknown", "The cause is not one that is known here.", "Read the message and the end of the log, then press Resume or change the settings.")


def explain(message: str, log: str = "", *, is_lost: bool = False) -> Failure:
    """Maps what a failed run left to a cause and what to do.

    Args:
        message: Its last message; decides where it says enough.
        log: The end of its log, asked where the message says nothing.
        is_lost: Whether its process ended without a word.

    Example:
        >>> explain("CUDA out of memory. Tried to allocate 2 GiB").kind, explain("", "Killed").kind, explain("", is_lost=True).kind
        ('out of memory', 'killed', 'lost')
    """
    for text in (message, "\n".join(log.splitlines()[-30:])):
        for pattern, failure in _KNOWN:
            if text and re.search(pattern, text, re.IGNORECASE):
                return failure
    return _LOST if is_lost else _UNKNOWN
