"""Two-dimensional pictures of features, and how far to trust them."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from .graph import knn_graph, unit_rows
from .types import UserError

MAP_NEIGHBORS = 15


def pca_map(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Returns the two directions of largest variance of unit features; quick, and blind to curved structure.

    Example:
        Points on a line stay in order.

        >>> line = np.stack([np.ones(3), np.array([-1.0, 0.0, 1.0]), np.zeros(3)], 1)
        >>> np.argsort(np.abs(pca_map(line)[:, 0] - pca_map(line)[0, 0])).tolist()
        [0, 1, 2]
    """
    unit = unit_rows(features)
    centred = unit - unit.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # An axis and its opposite are the same axis: make the largest entry positive, so that pictures do not flip.
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(1)])[:, None]
    return (centred @ axes.T).astype(np.float32)


def umap_map(features: Float[np.ndarray, "n d"], start: Float[np.ndarray, "n 2"] | None = None, seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Returns a UMAP of unit features from an exact FAISS graph; started from another map, the two can be compared.

    Slow in its first call (compiles); meant for a job, never for the web process.

    Args:
        features: One row a sample.
        start: Positions of the same samples in the map to compare with, or None.
        seed: Source of UMAP's draws.

    Raises:
        UserError: If there are fewer samples than UMAP needs.

    Source:
        McInnes et al. 2018, arXiv:1802.03426, umap-learn.
    """
    if len(features) <= MAP_NEIGHBORS + 1:
        raise UserError(f"{len(features)} samples are too few for a UMAP; give at least {MAP_NEIGHBORS + 2}, or look at the PCA map.")
    import umap

    options: dict[str, Any] = {"init": "pca" if start is None else np.asarray(start, np.float32), "n_epochs": 300 if start is None else 150}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_jobs value")  # a seed allows one job only; umap-learn says so each time
        reducer = umap.UMAP(metric="cosine", n_neighbors=MAP_NEIGHBORS, random_state=seed, precomputed_knn=_knn_with_self(features), **options)
        return reducer.fit_transform(unit_rows(features).astype(np.float32)).astype(np.float32)


def _knn_with_self(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the graph as umap-learn wants it: self first, cosine distances."""
    graph = knn_graph(features, MAP_NEIGHBORS - 1)
    own = np.arange(len(graph.indices))[:, None]
    distances = np.clip(1 - graph.similarities, 0, None)
    return np.hstack([own, graph.indices]).astype(np.int32), np.hstack([np.zeros_like(distances[:, :1]), distances]).astype(np.float32)


def align(positions: Float[np.ndarray, "n 2"], onto: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Turns, flips, scales and shifts a map onto another of the same samples; neighbours in the picture do not change.

    Source:
        Orthogonal Procrustes, as in ``scipy.spatial.procrustes``.
    """
    a, b = positions - positions.mean(0), onto - onto.mean(0)
    u, singular, vt = np.linalg.svd(a.T @ b)
    scale = singular.sum() / max(float((a**2).sum()), 1e-12)
    return (scale * a @ (u @ vt) + onto.mean(0)).astype(np.float32)


def neighbors_shown(features: Float[np.ndarray, "n d"], positions: Float[np.ndarray, "n 2"], n_neighbors: int = 10) -> float:
    """Returns the share of true neighbours that are also neighbours in the picture, in [0, 1]: the map's own honesty."""
    from scipy.spatial import cKDTree

    n = len(positions)
    true = knn_graph(features, min(n_neighbors, n - 1)).indices
    seen = cKDTree(positions).query(positions, k=true.shape[1] + 1)[1][:, 1:]
    return float((true[:, :, None] == seen[:, None, :]).any(2).mean())
