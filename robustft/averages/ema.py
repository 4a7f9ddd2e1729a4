"""Exponential moving average."""

from typing import Annotated

from ..types import Range


def ema(step: int, steps: int, *, ema_decay: Annotated[float, Range(0.0, 1.0)] = 0.98) -> float:
    """Forgets old weights at a constant rate; the average begins with the start's weights.

    Args:
        step: Updates done, from 1.
        steps: Updates of the run.
        ema_decay: Share that the average so far keeps at each update; 0 keeps the newest weights only.

    Returns:
        Share of the newest weights, in [0, 1].

    Example:
        >>> round(ema(7, 100, ema_decay=0.9), 6)
        0.1

    Source:
        Polyak and Juditsky 1992; seeded with the start it lies on the WiSE-FT curve (arXiv:2109.01903). Decay ours.
    """
    return 1 - ema_decay
