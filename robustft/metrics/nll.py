"""Negative log-likelihood."""

import numpy as np
from jaxtyping import Float, Int


def nll(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"]) -> float:
    """Mean of minus the log-probability of the true class, in nats; 0 is certain and right, log(c) is knowing nothing.

    Args:
        logits: One row a sample.
        labels: Class of each.

    Example:
        Two classes, equally likely: log 2.

        >>> round(nll(np.zeros((3, 2)), np.array([0, 1, 1])), 4)
        0.6931

    Source:
        Standard; Guo et al. 2017, arXiv:1706.04599, use it to judge calibration.
    """
    return float(-log_softmax(logits)[np.arange(len(labels)), np.asarray(labels)].mean())


def log_softmax(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """Returns log-probabilities, in double precision."""
    shifted = np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
