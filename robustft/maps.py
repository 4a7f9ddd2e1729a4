"""Two-dimensional pictures of features before and after fine-tuning, and how far to trust each of them."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from .graph import knn_graph, unit_rows
from .trust import errors_of
from .types import UserError

MAP_NEIGHBORS = 15
"""Neighbours that UMAP tries to keep together, each sample itself among them."""

SHOWN_NEIGHBORS = 10
"""Neighbours by which a picture is judged."""

SEED = 0
_CHUNK = 4_096
_FLAT = 1e-12  # variance of unit rows below which only rounding is left


@dataclass(frozen=True)
class MapPair:
    """Pictures of the same samples before and after a run, with their own error.

    Attributes:
        kind: ``UMAP`` or ``PCA``.
        before: Places by the foundation model's features.
        after: Places by the fine-tuned model's, turned onto ``before``.
        shown: Share of true 10-neighbours that each picture keeps, in [0, 1].
        trustworthiness: Of each picture, 1 if no false neighbour is among its 10 nearest.
        parameters: What the pictures were made with. JSON values only.
    """

    kind: str
    before: Float[np.ndarray, "n 2"]
    after: Float[np.ndarray, "n 2"]
    shown: tuple[float, float]
    trustworthiness: tuple[float, float]
    parameters: Mapping[str, Any]


def pca_pair(before: Float[np.ndarray, "n _"], after: Float[np.ndarray, "n _"]) -> MapPair:
    """Returns the PCA pictures of features before and after; quick enough for a page.

    Raises:
        UserError: If the two are not of the same samples, or a row is not finite.
    """
    _check_pair(before, after)
    return _judged_pair("PCA", (before, after), (pca_map(before), pca_map(after)), {})


def umap_pair(before: Float[np.ndarray, "n _"], after: Float[np.ndarray, "n _"], map_0: Float[np.ndarray, "n 2"] | None = None) -> MapPair:
    """Returns the UMAPs of features before and after, the second started from the first. See `umap_map`.

    Where nothing moved the second is the first: a fresh fit would show movement that there is not.

    Args:
        before: The foundation model's features.
        after: The fine-tuned model's, of the same samples.
        map_0: The first map, if it is known: all runs share it.

    Raises:
        UserError: If the samples differ or are too few, or a row is not finite.
    """
    _check_pair(before, after)
    map_0 = umap_map(before, seed=SEED) if map_0 is None else map_0
    if len(map_0) != len(before):
        raise UserError(f"the first map has {len(map_0)} places for {len(before)} samples; give the one of these samples, or None.")
    map_1 = map_0 if np.array_equal(before, after) else umap_map(after, map_0, SEED)
    return _judged_pair("UMAP", (before, after), (map_0, map_1), umap_parameters(len(before)))


def arrays_of(pair: MapPair) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns a pair as named arrays and a JSON note, for one file; `pair_of` reads them."""
    note = {"kind": pair.kind, "shown": list(pair.shown), "trustworthiness": list(pair.trustworthiness), "parameters": dict(pair.parameters)}
    return {"before": pair.before, "after": pair.after}, note


def pair_of(arrays: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> MapPair:
    """Returns the pair that `arrays_of` took apart.

    Raises:
        UserError: If something is missing, as in a file of another version.
    """
    try:
        errors = (tuple(map(float, note["shown"])), tuple(map(float, note["trustworthiness"])))
        return MapPair(str(note["kind"]), arrays["before"], arrays["after"], *errors, dict(note["parameters"]))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError):
        raise UserError("a stored pair of maps lacks its arrays or its errors; delete the file, and the maps are made anew.") from None


def _judged_pair(kind: str, features: tuple[np.ndarray, np.ndarray], maps: tuple[np.ndarray, np.ndarray], parameters: Mapping[str, Any]) -> MapPair:
    (shown_0, trust_0), (shown_1, trust_1) = (errors_of(values, places, SHOWN_NEIGHBORS) for values, places in zip(features, maps, strict=True))
    told = {"metric": "cosine", "judged_neighbors": SHOWN_NEIGHBORS, **parameters}
    return MapPair(kind, maps[0], align(maps[1], maps[0]), (shown_0, shown_1), (trust_0, trust_1), told)


# --- pictures ---------------------------------------------------------------------------------------------------------


def pca_map(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Returns the two directions of largest variance of unit features; quick, and blind to curved structure.

    From the covariance matrix, a chunk of rows at a time, so memory does not grow with the samples. Where there is no
    second direction, or no first, that coordinate is 0.

    Raises:
        UserError: If a row is not finite.

    Example:
        Points on a line stay in order.

        >>> line = np.stack([np.ones(3), np.array([-1.0, 0.0, 1.0]), np.zeros(3)], 1)
        >>> np.argsort(np.abs(pca_map(line)[:, 0] - pca_map(line)[0, 0])).tolist()
        [0, 1, 2]
    """
    _check(features)
    n, d = features.shape
    mean = sum(chunk.sum(0) for _, chunk in _unit_chunks(features)) / n
    covariance = sum((chunk - mean).T @ (chunk - mean) for _, chunk in _unit_chunks(features)) / n
    variances, axes = eigh(covariance, subset_by_index=(max(0, d - 2), d - 1))
    # An axis and its opposite are the same axis: make the largest entry positive, so that pictures do not flip.
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])]) * (variances > _FLAT)
    places = np.zeros((n, 2), np.float32)
    for rows, chunk in _unit_chunks(features):
        places[rows, : axes.shape[1]] = (chunk - mean) @ axes[:, ::-1]
    return places


def umap_map(features: Float[np.ndarray, "n d"], start: Float[np.ndarray, "n 2"] | None = None, seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Returns a UMAP of unit features from an exact FAISS graph; started from another map, the two can be compared.

    The first call in a process compiles for seconds: meant for the maps' own worker, never for the web process. The same
    seed gives the same bits.

    Args:
        features: One row a sample.
        start: Places of the same samples in the map to compare with; None for the PCA map.
        seed: Source of UMAP's draws.

    Raises:
        UserError: If there are fewer samples than UMAP needs, or a row is not finite.

    Source:
        McInnes et al. 2018, arXiv:1802.03426, umap-learn.
        Differs: fewer epochs at a lower learning rate, see `umap_schedule`.
    """
    if len(features) <= MAP_NEIGHBORS + 1:
        raise UserError(f"{len(features)} samples are too few for a UMAP; give at least {MAP_NEIGHBORS + 2}, or look at the PCA map.")
    graph = _knn_with_self(features)
    places = _without_ties(pca_map(features) if start is None else start, seed)
    n_epochs, learning_rate = umap_schedule(len(features), is_started=start is not None)
    import umap

    options: dict[str, Any] = {"n_neighbors": MAP_NEIGHBORS, "metric": "cosine", "precomputed_knn": graph, "random_state": seed, "n_jobs": 1}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn")  # it says that new points cannot be placed, which nobody asks for
        reducer = umap.UMAP(init=places, n_epochs=n_epochs, learning_rate=learning_rate, **options)
        return reducer.fit_transform(np.asarray(features, np.float32)).astype(np.float32)


def umap_schedule(n: int, *, is_started: bool) -> tuple[int, float]:
    """Returns epochs and learning rate of a map of n samples.

    Measured against umap-learn's own 500 epochs at rate 1: a rate that falls to zero from a lower value leaves less noise
    in the places, so that fewer epochs keep as many neighbours. Small sets can afford more of them.
    """
    return (300, 0.25) if not is_started else (200 if n <= 2_000 else 100, 0.15)


def umap_parameters(n: int) -> dict[str, Any]:
    """Returns what a pair of UMAPs of n samples is made with, before and after where they differ."""
    (epochs_0, rate_0), (epochs_1, rate_1) = (umap_schedule(n, is_started=is_started) for is_started in (False, True))
    schedule = {"n_epochs": [epochs_0, epochs_1], "learning_rate": [rate_0, rate_1]}
    return {"n_neighbors": MAP_NEIGHBORS, "seed": SEED, "umap-learn": metadata.version("umap-learn"), **schedule}


def warm_up() -> None:
    """Compiles all that maps need, on a few random points: about half a minute where nothing of it is on disk yet."""
    features = np.random.default_rng(0).normal(size=(2, 60, 8)).astype(np.float32)
    umap_pair(*features)


def _knn_with_self(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the graph as umap-learn wants it: self first, cosine distances, short of 2, where it cuts edges and leaves NaN."""
    graph = knn_graph(features, MAP_NEIGHBORS - 1)
    own = np.arange(len(graph.indices))[:, None]
    distances = np.clip(1 - graph.similarities, 0, 1.999)
    return np.hstack([own, graph.indices]).astype(np.int32), np.hstack([np.zeros_like(distances[:, :1]), distances]).astype(np.float32)


def _without_ties(start: np.ndarray, seed: int) -> np.ndarray:
    """Shakes places a little: UMAP cannot part two that are one, and divides by the extent of each axis."""
    extent = float(np.ptp(start, 0).max()) or 1.0
    return (start + np.random.default_rng(seed).normal(scale=1e-4 * extent, size=start.shape)).astype(np.float32)


def align(positions: Float[np.ndarray, "n 2"], onto: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Turns, flips, scales and shifts a map onto another of the same samples; neighbours in the picture do not change.

    Source:
        Orthogonal Procrustes, as in ``scipy.spatial.procrustes``.
        Differs: both get one size. The scale of least squares would shrink a map the more the less the two agree.
    """
    a, b = (places.astype(np.float64) - places.mean(0, dtype=np.float64) for places in (positions, onto))
    u, _, vt = np.linalg.svd(a.T @ b)
    size, wanted = np.linalg.norm(a), np.linalg.norm(b)
    scale = wanted / size if size > 0 and wanted > 0 else 1.0
    return (scale * a @ (u @ vt) + onto.mean(0, dtype=np.float64)).astype(np.float32)


# --- rows -------------------------------------------------------------------------------------------------------------


def _unit_chunks(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields unit rows in double precision, a few thousand at a time."""
    for first in range(0, len(features), _CHUNK):
        rows = slice(first, first + _CHUNK)
        yield rows, unit_rows(features[rows])


def _check(features: np.ndarray) -> None:
    if not len(features):
        raise UserError("there are no samples to draw; choose another task or domain.")
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise UserError(f"features of rows {bad[:5].tolist()} ({len(bad)} in all) are not finite; look for a diverged model or a broken image.")


def _check_pair(before: np.ndarray, after: np.ndarray) -> None:
    if len(before) != len(after):
        raise UserError(f"{len(before)} samples before and {len(after)} after cannot be compared; give the features of the same samples.")
