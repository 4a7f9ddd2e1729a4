"""A task at a glance: what a person sees of it before choosing it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .registry import find
from .sources import domains_of, get_dataset

SAMPLES = 8
"""Pictures in a strip."""


@dataclass(frozen=True)
class TaskCard:
    """What a person sees of a task before choosing it.

    Attributes:
        summary: One sentence.
        class_names: In label order.
        sizes: Samples a split in the first domain.
        strips: A few samples of each domain, the same classes in each; the first domain is the in-distribution one.
        strip_names: Their classes.
    """

    summary: str
    class_names: tuple[str, ...]
    sizes: dict[str, int]
    strips: dict[str, list[np.ndarray]]
    strip_names: list[str]


def task_card(name: str, root: Path) -> TaskCard:
    """Returns the card of a task.

    Args:
        name: As the registry lists it.
        root: Cache folder, where its pictures are drawn to once.
    """
    domains = domains_of(name)
    parts = {split: get_dataset(name, domains[0], split, root) for split in ("train", "val", "test")}
    names = parts["test"].class_names
    classes = np.unique(np.linspace(0, len(names) - 1, SAMPLES).astype(int))
    strips = {}
    for domain in domains:
        data = get_dataset(name, domain, "test", root)
        labels, images = np.asarray(data.labels), np.asarray(data.images)
        strips[domain] = [np.moveaxis(images[np.flatnonzero(labels == label)[0]], 0, -1) for label in classes]
    return TaskCard(find("datasets", name).summary, names, {split: len(data) for split, data in parts.items()}, strips, [names[label] for label in classes])
