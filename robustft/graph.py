"""Nearest-neighbour graphs of features, and how much of one survives in another."""

import faiss
import numpy as np
from jaxtyping import Float
from torch import Tensor

from .types import KnnGraph, UserError


def knn_graph(features: Float[np.ndarray, "n d"] | Float[Tensor, "n d"], n_neighbors: int) -> KnnGraph:
    """Finds each sample's nearest others by cosine, exactly.

    Args:
        features: One row a sample, any scale; rows are normalised inside.
        n_neighbors: Neighbours a sample, at least 1 and below the number of samples.

    Returns:
        Indices and cosines, nearest first, self excluded (also among duplicates).

    Raises:
        UserError: If there are too few samples, or a row is not finite; names the number or the rows.

    Example:
        Three directions at 0, 10 and 90 degrees: the middle one's nearest is the first.

        >>> angles = np.radians([0, 10, 90])
        >>> knn_graph(np.stack([np.cos(angles), np.sin(angles)], 1), 1).indices.tolist()
        [[1], [0], [1]]
    """
    values = np.ascontiguousarray(np.asarray(features), dtype=np.float32)
    _check(values, n_neighbors)
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    similarities, indices = index.search(unit, n_neighbors + 1)
    return _without_self(indices, np.clip(similarities, -1, 1))


def _check(values: np.ndarray, n_neighbors: int) -> None:
    if values.ndim != 2:
        raise UserError(f"features of shape {values.shape} are not a table; give one row a sample.")
    if not 1 <= n_neighbors < len(values):
        raise UserError(f"n_neighbors = {n_neighbors} is not allowed for {len(values)} samples; give 1 to {len(values) - 1}.")
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise UserError(f"features of rows {bad[:5].tolist()} ({len(bad)} in all) are not finite; look for a diverged model or a broken image.")


def _without_self(indices: np.ndarray, similarities: np.ndarray) -> KnnGraph:
    """Drops each row's own index; where duplicates pushed it out of sight, drops the last."""
    n, width = indices.shape
    is_self = indices == np.arange(n)[:, None]
    is_self[~is_self.any(1), -1] = True
    keep = ~is_self
    return KnnGraph(indices[keep].reshape(n, width - 1), similarities[keep].reshape(n, width - 1))


def neighbor_overlap(graph_0: KnnGraph, graph_1: KnnGraph) -> Float[np.ndarray, "n"]:
    """Returns the share of each sample's neighbours in the first graph that it still has in the second, in [0, 1].

    Raises:
        UserError: If the graphs differ in samples or in neighbours.

    Example:
        Sample 0 keeps one of its two neighbours.

        >>> a = KnnGraph(np.array([[1, 2]]), np.ones((1, 2), np.float32))
        >>> b = KnnGraph(np.array([[3, 1]]), np.ones((1, 2), np.float32))
        >>> neighbor_overlap(a, b)
        array([0.5])
    """
    if graph_0.indices.shape != graph_1.indices.shape:
        raise UserError(f"graphs of shapes {graph_0.indices.shape} and {graph_1.indices.shape} cannot be compared; use the same samples and n_neighbors.")
    return (graph_0.indices[:, :, None] == graph_1.indices[:, None, :]).any(2).mean(1)


def unit_rows(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Returns rows of unit norm in double precision; a zero row stays zero."""
    values = np.asarray(features, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
