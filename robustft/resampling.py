"""Correlations and lines over resamples of whole clusters, pooled or within groups, and the interval of their draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .types import UserError

MIN_CLUSTERS = 3
"""With fewer there is no bootstrap: an interval from one or two would look exact and say nothing."""


@dataclass(frozen=True)
class Resamples:
    """The sample itself (first) and draws of its clusters with replacement, all points of a cluster together.

    Attributes:
        counts: How often each cluster is in each draw.
        cluster: Of each point.
    """

    counts: Float[np.ndarray, "b c"]
    cluster: Int[np.ndarray, "n"]

    def pearson(self, x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], group: Int[np.ndarray, "n"]) -> Float[np.ndarray, "b"]:
        """Returns Pearson's correlation in each draw, both variables centred within each group of the draw; NaN where one is constant."""
        x, y = _standard(x), _standard(y)
        size = np.maximum(self._totals(np.ones(len(x)), group), 1)

        def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return (self._totals(a * b, group) - self._totals(a, group) * self._totals(b, group) / size).sum(1)

        return _ratio(covariance(x, y), covariance(x, x), covariance(y, y))

    def spearman(self, x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], group: Int[np.ndarray, "n"]) -> Float[np.ndarray, "b"]:
        """Returns Spearman's correlation in each draw, ranks taken anew within each group of the draw; NaN where a variable is constant.

        A rank is the share of the group below a point, with half of those equal to it: with one group the usual mid-ranks on
        another scale, with several a scale that large groups do not rule.
        """
        ranks_x, ranks_y = self._ranks(x, group), self._ranks(y, group)
        often = self.counts[:, self.cluster]
        return _ratio(*(np.einsum("bn,bn,bn->b", often, a, b) for a, b in ((ranks_x, ranks_y), (ranks_x, ranks_x), (ranks_y, ranks_y))))

    def line(self, x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "b"], Float[np.ndarray, "b"]]:
        """Returns slope and height at the mean of x of the least-squares line in each draw; NaN where x is constant.

        The height belongs to the mean over the sample itself, the same for all draws: lines of draws can then be added up.
        """
        one, spread = np.zeros(len(x), dtype=int), float(x.std()) if len(x) else 0.0
        z = _standard(x)
        n, to_x, to_y, to_xx, to_xy = (self._totals(values, one)[:, 0] for values in (np.ones(len(x)), z, y, z * z, z * y))
        n = np.maximum(n, 1)
        varies = to_xx / n - (to_x / n) ** 2
        is_defined = varies > 1e-9
        slope = np.where(is_defined, (to_xy / n - to_x * to_y / n**2) / np.where(is_defined, varies, 1), np.nan)
        return slope / (spread or 1.0), to_y / n - slope * to_x / n

    def _totals(self, values: Float[np.ndarray, "n"], group: Int[np.ndarray, "n"]) -> Float[np.ndarray, "b g"]:
        """Returns the sum of each group in each draw."""
        shape = self.counts.shape[1], group.max(initial=0) + 1
        cells = np.bincount(self.cluster * shape[1] + group, weights=values, minlength=shape[0] * shape[1])
        return self.counts @ cells.reshape(shape)

    def _ranks(self, values: Float[np.ndarray, "n"], group: Int[np.ndarray, "n"]) -> Float[np.ndarray, "b n"]:
        """Returns the rank of each point in each draw as a share, less 1/2, so that every group has mean 0."""
        below = np.zeros((self.counts.shape[1], len(values)))
        for cell in np.unique(np.stack([group, self.cluster]), axis=1).T:
            here = group == cell[0]
            known = np.sort(values[here & (self.cluster == cell[1])])
            below[cell[1], here] = (np.searchsorted(known, values[here]) + np.searchsorted(known, values[here], "right")) / 2
        # How many of a draw lie below a point is the sum over its clusters: no draw needs sorting.
        # Not a matrix product: threads cost more than they save on this shape, the more so beside a training run.
        ranks = np.einsum("bc,cn->bn", self.counts, below)
        ranks /= np.maximum(self._totals(np.ones(len(values)), group), 1)[:, group]
        ranks -= 0.5
        return ranks


def resample(labels: Sequence[str], n_boot: int, seed: int) -> Resamples:
    """Draws clusters; points in another order give the same draws.

    Raises:
        UserError: If there is no draw.

    Example:
        Two clusters: the sample holds each once, every draw two in all.

        >>> resample(["x", "y", "x"], 50, 0).counts[0].tolist(), set(resample(["x", "y", "x"], 50, 0).counts.sum(1).tolist())
        ([1.0, 1.0], {2.0})
    """
    if n_boot < 1:
        raise UserError(f"n_boot = {n_boot} is not allowed; give 1 draw or more.")
    names, cluster = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    k = len(names)
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=n_boot) if k else np.zeros((n_boot, 0))
    return Resamples(np.vstack([np.ones(k), drawn]), cluster)


def interval(draws: Float[np.ndarray, "b"], n_clusters: int) -> tuple[float, float]:
    """Returns the 2.5 and 97.5 % quantiles of the draws after the first, which is the sample; NaN without estimate or with too few clusters.

    Draws in which the statistic is undefined are left out.

    Example:
        >>> interval(np.array([0.5, *np.linspace(0, 1, 101)]), 9)
        (0.025, 0.975)
    """
    defined = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(draws[0]) or n_clusters < MIN_CLUSTERS or not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, (0.025, 0.975)).tolist()
    return low, high


def is_constant(values: Float[np.ndarray, "n"]) -> bool:
    """Returns whether all values are equal, but for rounding."""
    return not len(values) or bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _standard(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Returns values of mean 0 and deviation 1, so that sums of squares lose no digits; zeros where all are equal."""
    return np.zeros(len(values)) if is_constant(values) else (values - values.mean()) / values.std()


def _ratio(xy: Float[np.ndarray, "b"], xx: Float[np.ndarray, "b"], yy: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
    """Returns the correlation from sums of products; what rounding leaves of a constant is no spread."""
    is_defined = np.minimum(xx, yy) > 1e-9
    return np.where(is_defined, xy / np.sqrt(np.where(is_defined, xx * yy, 1)), np.nan).clip(-1, 1)
