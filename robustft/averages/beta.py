"""Beta moving average, of CLIPood."""

from functools import lru_cache
from typing import Annotated

import numpy as np
from jaxtyping import Float
from scipy.stats import beta as beta_distribution

from ..types import Range


def beta(step: int, steps: int, *, beta: Annotated[float, Range(0.01, 10.0)] = 0.5) -> float:
    r"""Weighs all weights of a run by a Beta density over its time: below 1, start and end count most.

    .. math:: \bar\theta = \frac{\sum_i \beta_i \theta_i}{\sum_i \beta_i}, \quad \beta_i = \mathrm{Beta}\left( \tfrac{i + 1/2}{N + 1}; \beta, \beta \right)

    with the start at i = 0 and the last update at i = N.

    Args:
        step: i, from 1.
        steps: N, updates of the run.
        beta: Both parameters of the density. 0.5 for shifted domains, 0.1 where new classes come.

    Returns:
        Share of the newest weights, in [0, 1]: its own weight over all weights up to it.

    Example:
        With beta 1 all count the same: after two updates the newest is one of three.

        >>> round(beta(2, 10, beta=1.0), 4)
        0.3333

    Source:
        CLIPood, Shu et al. 2023, arXiv:2302.00864, Beta moving average; code: 0.5.
    """
    weights = beta_weights(steps, beta)
    return float(weights[step] / weights[: step + 1].sum())


@lru_cache(maxsize=4)
def beta_weights(steps: int, beta: float) -> Float[np.ndarray, "n"]:
    """Returns the density at the middle of each of the ``steps + 1`` stretches of the run."""
    return beta_distribution.pdf((np.arange(steps + 1) + 0.5) / (steps + 1), beta, beta)
