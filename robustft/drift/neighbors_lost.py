"""Neighbours lost: how much of each image's neighbourhood changed."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from ..graph import knn_graph, neighbor_overlap
from ..types import Range


def neighbors_lost(features_0: Float[np.ndarray, "n d"], features_1: Float[np.ndarray, "n d"], *, n_neighbors: Annotated[int, Range(1, 1000)] = 10) -> float:
    """Mean share of an image's nearest others that it no longer has, in [0, 1]; invariant to rotations.

    Args:
        features_0: Before.
        features_1: After, the same images in the same order.
        n_neighbors: Neighbours an image; all the others where there are not so many.

    Example:
        Nothing moved, nothing lost.

        >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> neighbors_lost(x, x, n_neighbors=1)
        0.0

    Source:
        One minus the kNN overlap (recall of neighbours); what FDA sets out to keep, arXiv:2505.24088.
    """
    k = min(n_neighbors, len(features_0) - 1)
    return float(1 - neighbor_overlap(knn_graph(features_0, k), knn_graph(features_1, k)).mean())
