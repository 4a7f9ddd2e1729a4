"""Top-1 accuracy."""

import numpy as np
from jaxtyping import Float, Int


def accuracy(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n"]) -> float:
    """Share of samples whose largest logit is that of their class, in [0, 1].

    Args:
        logits: One row a sample.
        labels: Class of each.

    Example:
        One of two is right.

        >>> accuracy(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([0, 1]))
        0.5

    Source:
        Standard.
    """
    return float((np.asarray(logits).argmax(1) == np.asarray(labels)).mean())
