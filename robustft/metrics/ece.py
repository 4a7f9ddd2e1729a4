"""Expected calibration error."""

from typing import Annotated

import numpy as np
from jaxtyping import Float, Int

from ..types import Range
from .nll import log_softmax


def ece(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"], *, n_bins: Annotated[int, Range(1, 1000)] = 15) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence, in [0, 1]; 0 means that 80 % sure is right 80 % of the time.

    Args:
        logits: One row a sample.
        labels: Class of each.
        n_bins: Bins of equal width over [0, 1]; each weighs as many samples as fall into it.

    Example:
        Two answers, both 50 % sure, one of them right.

        >>> ece(np.zeros((2, 2)), np.array([0, 1]))
        0.0

    Source:
        Guo et al. 2017, arXiv:1706.04599, eq. 3; 15 bins as there.
    """
    probabilities = np.exp(log_softmax(logits))
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == np.asarray(labels)
    # The upper edge of a bin belongs to it.
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(bins))
