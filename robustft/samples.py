"""The test samples of a task as pages show them: of one domain or of all, with what the models said about each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from . import store
from .analysis import answers_file
from .files import read_arrays
from .sources import domains_of, get_dataset
from .types import Dataset

ALL_DOMAINS = "all domains"
"""Stands for the samples of all domains of a task in one table, domain after domain."""
OUTCOMES = ("right, still right", "became right", "became wrong", "wrong, still wrong")


@dataclass(frozen=True)
class Answers:
    """What a run's models said about each sample, before and after.

    Attributes:
        before: Predicted class, an index into the task's class names; after fine-tuning likewise.
        after: The same of the fine-tuned model.
        confidence_before: Probability of that class, in [0, 1].
        confidence_after: The same of the fine-tuned model.
    """

    before: Int[np.ndarray, "n"]
    after: Int[np.ndarray, "n"]
    confidence_before: Float[np.ndarray, "n"]
    confidence_after: Float[np.ndarray, "n"]


def domains_in(dataset: str, domain: str) -> tuple[str, ...]:
    """Returns the domains that a choice stands for."""
    return domains_of(dataset) if domain == ALL_DOMAINS else (domain,)


def get_samples(dataset: str, domain: str, root: Path) -> Dataset:
    """Returns the test samples of one domain of a task, or of `ALL_DOMAINS`."""
    parts = [get_dataset(dataset, name, "test", root) for name in domains_in(dataset, domain)]
    if len(parts) == 1:
        return parts[0]
    images, labels = (torch.cat([torch.as_tensor(getattr(part, field)) for part in parts]) for field in ("images", "labels"))
    fingerprint = "+".join(part.fingerprint for part in parts)
    return Dataset(dataset, ALL_DOMAINS, "test", images, labels, parts[0].class_names, parts[0].templates, fingerprint)


def row_domains(dataset: str, domain: str, root: Path) -> np.ndarray:
    """Returns the domain of each sample of `get_samples`, as text."""
    names = domains_in(dataset, domain)
    return np.repeat(np.asarray(names, dtype=object), [len(get_dataset(dataset, name, "test", root)) for name in names])


def get_answers(run_id: str, dataset: str, domain: str, root: Path) -> Answers | None:
    """Returns what a finished run answered on the samples of `get_samples`; None if it kept no answers."""
    config = store.read_run(run_id, root=root).config
    found = [read_arrays(answers_file(config, dataset, name, root)) for name in domains_in(dataset, domain)]
    if any(part is None for part in found):
        return None
    arrays = [part[0] for part in found if part is not None]
    try:
        return Answers(**{key: np.concatenate([part[key] for part in arrays]) for key in ("before", "after", "confidence_before", "confidence_after")})
    except KeyError:
        return None


def right_answers(answers: Answers, labels: Int[np.ndarray, "n"]) -> tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Returns whether each sample was right before, and whether it is right after."""
    return answers.before == labels, answers.after == labels


def outcomes(answers: Answers, labels: Int[np.ndarray, "n"]) -> np.ndarray:
    """Returns one of `OUTCOMES` for each sample.

    Example:
        >>> ones = np.ones(4, np.float32)
        >>> answers = Answers(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), ones, ones)
        >>> outcomes(answers, np.zeros(4, int)).tolist() == list(OUTCOMES)
        True
    """
    before, after = right_answers(answers, labels)
    return np.asarray(OUTCOMES, dtype=object)[np.select([before & after, ~before & after, before & ~after], [0, 1, 2], 3)]
