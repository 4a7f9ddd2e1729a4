"""How far a mean may be off: bootstrap over samples, Student's t over seeds, and paired errors of a change."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from .seeds import seed_of

DRAWS = 1000
DRAWS_AT_A_TIME = 50


def bootstrap_mean(values: Float[np.ndarray, "n"], *, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a mean over 1,000 draws of the samples with replacement.

    Example:
        A constant has no spread.

        >>> bootstrap_mean(np.full(9, 0.5))
        (0.5, 0.5)

    Source:
        Efron 1979; percentile interval.
    """
    values, rng, means = np.asarray(values, dtype=np.float64), np.random.default_rng(seed_of("bootstrap", seed)), []
    for _ in range(0, DRAWS, DRAWS_AT_A_TIME):
        means.append(values[rng.integers(0, len(values), (DRAWS_AT_A_TIME, len(values)))].mean(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def paired_error(before: Float[np.ndarray, "n"], after: Float[np.ndarray, "n"]) -> float:
    """Returns the standard error of the mean of after minus before, both read on the same samples.

    Example:
        Of four samples one is lost and one won: differences 0, 0, 1, -1 with standard deviation sqrt(2/3), over the root of 4.

        >>> round(paired_error(np.array([1.0, 1.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.0])), 4)
        0.4082
    """
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0


def half_interval(values: Sequence[float]) -> float:
    """Returns half the width of Student's 95 % interval of a mean; NaN for one value.

    Example:
        Three values with standard deviation 1: 4.303 / sqrt(3).

        >>> round(half_interval([1.0, 2.0, 3.0]), 3)
        2.484
    """
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
