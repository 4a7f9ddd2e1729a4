"""How far to trust a two-dimensional picture of features: which true neighbours it keeps, and which it invents."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from .types import UserError

ALL_JUDGED, SOME_JUDGED = 5_000, 2_000
"""A picture of up to so many samples is judged by all of them, a larger one by a seeded draw of so many, each against all others."""

_CELLS = 2**20  # cosines held at a time
_TIE = 1e-6  # cosines in single precision are no better than this


def errors_of(features: Float[np.ndarray, "n d"], positions: Float[np.ndarray, "n 2"], n_neighbors: int = 10) -> tuple[float, float]:
    """Returns `neighbors_shown` and `trustworthiness` of a picture from one pass over the cosines."""
    ranks = _true_ranks(features, positions, n_neighbors)
    return _share_shown(ranks), _trust(ranks, len(features))


def neighbors_shown(features: Float[np.ndarray, "n d"], positions: Float[np.ndarray, "n 2"], n_neighbors: int = 10) -> float:
    """Returns the share of true neighbours that are also neighbours in the picture, in [0, 1]: the map's own honesty.

    Neighbours by cosine of the features, by distance in the picture. One that is as near as the last true neighbour counts
    as true. Above 5,000 samples a seeded draw of 2,000 of them is judged, each among all others.

    Args:
        features: One row a sample.
        positions: Its place in the picture.
        n_neighbors: Neighbours a sample; all others if there are fewer.

    Raises:
        UserError: If places and samples differ in number, or no neighbour is asked for.

    Example:
        Directions at 0, 10, 40 and 90 degrees, drawn on a line with the last two exchanged. Nearest in the picture are 1,
        0, 3 and 1; that is true of the first two only.

        >>> angles = np.radians([0, 10, 40, 90])
        >>> line = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0], [4.0, 0.0]])
        >>> neighbors_shown(np.stack([np.cos(angles), np.sin(angles)], 1), line, 1)
        0.5
    """
    return _share_shown(_true_ranks(features, positions, n_neighbors))


def trustworthiness(features: Float[np.ndarray, "n d"], positions: Float[np.ndarray, "n 2"], n_neighbors: int = 10) -> float:
    r"""Returns how rarely the picture invents neighbours, weighted by how far off they truly are: 1 if it never does.

    .. math:: 1 - \frac{2}{n k (2n - 3k - 1)} \sum_i \sum_{j \in \text{picture}_k(i)} \max(0, r(i, j) - k)

    with r the rank of j among the others by cosine from i. At chance about 0.5. Above 5,000 samples i runs over a seeded
    draw of 2,000 of them; the ranks are still among all, so this is the same quantity with a little noise.

    Args:
        features: One row a sample.
        positions: Its place in the picture.
        n_neighbors: k; above what the formula allows, just below half the samples, that is taken.

    Source:
        Venna and Kaski 2001; ``sklearn.manifold.trustworthiness`` with ``metric="cosine"``.
        Differs: among equally near ones the order is free, so a tie is no error.
    """
    return _trust(_true_ranks(features, positions, n_neighbors), len(features))


def _true_ranks(features: np.ndarray, positions: np.ndarray, n_neighbors: int) -> Int[np.ndarray, "m k"]:
    """Returns for each judged sample the true ranks, from 1, of its nearest in the picture: how many others are nearer, plus one."""
    n = len(features)
    if len(positions) != n or n_neighbors < 1:
        raise UserError(f"{len(positions)} places of {n} samples and {n_neighbors} neighbours do not go together; give a place a sample and at least 1.")
    rows, unit = _judged(n), np.array(features, np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    seen = _nearest_places(positions, rows, min(n_neighbors, n - 1))
    ranks = np.ones(seen.shape, np.int64)
    step = max(64, _CELLS // n)
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        cosines = unit[rows[part]] @ unit.T
        cosines[np.arange(len(cosines)), rows[part]] = -np.inf
        for place in range(seen.shape[1]):
            least = np.take_along_axis(cosines, seen[part, place, None], 1) + _TIE
            ranks[part, place] += np.count_nonzero(cosines > least, axis=1)
    return ranks


def _judged(n: int) -> np.ndarray:
    return np.arange(n) if n <= ALL_JUDGED else np.random.default_rng(0).choice(n, SOME_JUDGED, replace=False)


def _nearest_places(positions: np.ndarray, rows: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Returns the nearest others of some places, nearest first; self is dropped wherever ties have put it."""
    found = cKDTree(positions).query(positions[rows], k=np.arange(1, n_neighbors + 2))[1]
    is_self = found == rows[:, None]
    is_self[~is_self.any(1), -1] = True
    return found[~is_self].reshape(len(rows), n_neighbors)


def _share_shown(ranks: np.ndarray) -> float:
    return float((ranks <= ranks.shape[1]).mean()) if ranks.size else 1.0


def _trust(ranks: np.ndarray, n: int) -> float:
    k = min(ranks.shape[1], (n - 1) // 2)
    if k == 0:
        return 1.0
    excess = np.maximum(ranks[:, :k] - k, 0).sum()
    return float(1 - excess * 2 / (len(ranks) * k * (2 * n - 3 * k - 1)))
