"""The straight line of forgetting against a distance, and how far other held-out tasks may turn it."""

import numpy as np
import pandas as pd

from .resampling import MIN_CLUSTERS, is_constant, resample

PLACES = 25
"""Points of the line; its band is curved."""


def trend(pairs: pd.DataFrame, measure: str, *, cluster: str = "task", n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Returns the least-squares line of forgetting on a distance with a 95 % band, from the nearest pair to the furthest.

    The band is the percentile bootstrap of whole clusters that `foretelling.correlations` draws, taken at each place: where the
    line may lie for other held-out tasks, not where single pairs do.

    Args:
        pairs: From `foretelling.drift_pairs`.
        measure: Column with the distance.
        cluster: ``task`` or ``downstream``: what is drawn as a whole.
        n_boot: Draws.
        seed: Of the draws.

    Returns:
        Columns distance, forgetting, low and high. Without rows where there is no line: under 2 pairs or all at one distance.
        Low and high are NaN with under 3 clusters.

    Example:
        Forgetting is twice the distance.

        >>> line = trend(pd.DataFrame({"task": list("xyz"), "forgetting": [2.0, 4.0, 6.0], "l2": [1.0, 2.0, 3.0]}), "l2")
        >>> line.iloc[[0, -1]].round(3).to_numpy().tolist()
        [[1.0, 2.0, 2.0, 2.0], [3.0, 6.0, 6.0, 6.0]]
    """
    rows = pairs.dropna(subset=[measure])
    x, y = rows[measure].to_numpy(dtype=float), rows["forgetting"].to_numpy(dtype=float)
    if is_constant(x):
        return pd.DataFrame(columns=["distance", "forgetting", "low", "high"], dtype=float)
    slope, height = resample(rows[cluster].tolist(), n_boot, seed).line(x, y)
    places = np.linspace(x.min(), x.max(), PLACES)
    lines = height[:, None] + slope[:, None] * (places - x.mean())
    drawn = lines[1:][np.isfinite(lines[1:]).all(1)]
    has_band = len(drawn) and rows[cluster].nunique() >= MIN_CLUSTERS
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0) if has_band else np.full((2, PLACES), np.nan)
    return pd.DataFrame({"distance": places, "forgetting": lines[0], "low": low, "high": high})
