"""WiSE-FT at one alpha, as the end of a run."""

from typing import Annotated

from ..types import Range

ONLY_AT_THE_END = True
"""Before the last update the average is the start, so a run that may end earlier cannot use it."""


def wise(step: int, steps: int, *, alpha: Annotated[float, Range(0.0, 1.0)] = 0.5) -> float:
    """Averages start and end once, after the last update.

    Args:
        step: Updates done, from 1.
        steps: Updates of the run.
        alpha: 0 gives the start, 1 the fine-tuned model.

    Returns:
        Share of the newest weights, in [0, 1]; 0 before the last update.

    Example:
        >>> wise(99, 100, alpha=0.5), wise(100, 100, alpha=0.5)
        (0.0, 0.5)

    Source:
        Wortsman et al. 2022, arXiv:2109.01903: alpha 0.5 with no tuning.
    """
    return alpha if step == steps else 0.0
