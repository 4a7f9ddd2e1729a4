"""Nearest-neighbour graphs of features: whom a sample is near, whether they share its class, and who stays when the model changes."""

import faiss
import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .types import KnnGraph, UserError

STORED_NEIGHBORS = 50
"""Neighbours that a stored graph holds; any smaller k is a slice of it."""
ROWS_AT_A_TIME = 4096


def knn_graph(features: Float[np.ndarray, "n d"] | Float[Tensor, "n d"], n_neighbors: int) -> KnnGraph:
    """Finds each sample's nearest others by cosine, exactly; on a GPU where FAISS has one.

    Args:
        features: One row a sample, any scale and precision; rows are normalised inside.
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
    values = np.asarray(features)
    _check(values, n_neighbors)
    unit = np.array(values, dtype=np.float32, order="C")
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    similarities, indices = _search(unit, n_neighbors + 1)
    return _without_self(indices.astype(np.int32), np.clip(similarities, -1, 1))


def _search(unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns cosines and rows of the k nearest, self among them."""
    index: faiss.Index = faiss.IndexFlatIP(unit.shape[1])
    if k <= 2048 and getattr(faiss, "get_num_gpus", int)():  # FAISS on a GPU selects no more than that
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(unit)
    similarities, indices = index.search(unit, k)
    return similarities, indices


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


def nearest(graph: KnnGraph, n_neighbors: int) -> KnnGraph:
    """Returns a graph's first neighbours only.

    Raises:
        UserError: If the graph holds fewer.
    """
    if not 1 <= n_neighbors <= graph.indices.shape[1]:
        raise UserError(f"n_neighbors = {n_neighbors} is not allowed for a graph of {graph.indices.shape[1]} neighbours a sample.")
    return KnnGraph(graph.indices[:, :n_neighbors], graph.similarities[:, :n_neighbors])


# --- two graphs of the same samples -----------------------------------------------------------------------------------


def neighbors_shared(graph: KnnGraph, other: KnnGraph) -> Bool[np.ndarray, "n k"]:
    """Returns for each neighbour in a graph whether it is the same sample's neighbour in another graph too.

    From before to after it tells kept from lost neighbours, from after to before kept from gained ones.

    Raises:
        UserError: If the graphs differ in samples or in neighbours.

    Example:
        Sample 0 keeps neighbour 1, loses 2 and gains 3.

        >>> before = KnnGraph(np.array([[1, 2]]), np.ones((1, 2), np.float32))
        >>> after = KnnGraph(np.array([[3, 1]]), np.ones((1, 2), np.float32))
        >>> neighbors_shared(before, after).tolist(), neighbors_shared(after, before).tolist()
        ([[True, False]], [[False, True]])
    """
    if graph.indices.shape != other.indices.shape:
        raise UserError(f"graphs of shapes {graph.indices.shape} and {other.indices.shape} cannot be compared; use the same samples and n_neighbors.")
    shared = np.empty(graph.indices.shape, bool)
    for begin in range(0, len(shared), ROWS_AT_A_TIME):
        rows = slice(begin, begin + ROWS_AT_A_TIME)
        shared[rows] = (graph.indices[rows, :, None] == other.indices[rows, None, :]).any(2)
    return shared


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
    return neighbors_shared(graph_0, graph_1).mean(1)


# --- graphs and classes -----------------------------------------------------------------------------------------------


def class_purity(graph: KnnGraph, labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Returns the share of each sample's neighbours that are of its own class, in [0, 1]; the rest crosses classes.

    Example:
        Of sample 0's neighbours 1 and 2, the first is of its class.

        >>> graph = KnnGraph(np.array([[1, 2], [0, 2], [0, 1]]), np.ones((3, 2), np.float32))
        >>> class_purity(graph, np.array([7, 7, 8])).tolist()
        [0.5, 0.5, 0.0]
    """
    return (labels[graph.indices] == labels[:, None]).mean(1)


def edges(graph: KnnGraph, *, mutual: bool = False) -> Int[np.ndarray, "m 2"]:
    """Returns the graph's connections, each once with the smaller row first; for drawing.

    Args:
        graph: Of n samples.
        mutual: Only the connections of samples that are each other's neighbours.

    Example:
        0 and 1 name each other; 2 names 1, which does not name it.

        >>> graph = KnnGraph(np.array([[1], [0], [1]]), np.ones((3, 1), np.float32))
        >>> edges(graph).tolist(), edges(graph, mutual=True).tolist()
        ([[0, 1], [1, 2]], [[0, 1]])
    """
    n, k = graph.indices.shape
    ends = np.stack([np.repeat(np.arange(n), k), graph.indices.ravel()], 1)
    pairs, times = np.unique(np.sort(ends, axis=1), axis=0, return_counts=True)
    return pairs[times == 2] if mutual else pairs


def unit_rows(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Returns rows of unit norm in double precision; a zero row stays zero."""
    values = np.asarray(features, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
