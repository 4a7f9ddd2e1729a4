"""Points between start and fine-tuned model as a table, and the rule that picks one."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

SLACK = 1.0
"""Points of validation accuracy that the rule gives up for the held-out tasks."""
TITLES = {"alpha": "alpha", "id_accuracy": "ID (%)", "ood_accuracy": "OOD (%)", "val_accuracy": "ID validation (%)", "mean_delta_zs": "mean Delta_ZS (points)"}


def wise_table(points: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns the curve by alpha, all but alpha in percent and points.

    Example:
        >>> wise_table([{"alpha": 1.0, "id_accuracy": 0.5}, {"alpha": 0.0, "id_accuracy": 0.25}])["id_accuracy"].tolist()
        [25.0, 50.0]
    """
    table = pd.DataFrame(list(points)).reindex(columns=list(TITLES)).astype(float).sort_values("alpha").reset_index(drop=True)
    table[table.columns[1:]] *= 100
    return table


def best_alpha(table: pd.DataFrame) -> float:
    """Returns the alpha with the largest mean Delta_ZS among those within `SLACK` of the best validation accuracy; of equals, the most accurate.

    The test accuracies of the downstream task play no part.

    Example:
        Half-way costs half a point of validation accuracy and saves ten points elsewhere; the start costs too much.

        >>> rows = [(0.0, 0.600, 0.0), (0.5, 0.895, -0.02), (1.0, 0.900, -0.12)]
        >>> best_alpha(wise_table([{"alpha": a, "val_accuracy": v, "mean_delta_zs": d} for a, v, d in rows]))
        0.5
    """
    good = table[table["val_accuracy"] >= table["val_accuracy"].max() - SLACK - 1e-9]
    best = good.assign(rounded=good["mean_delta_zs"].round(9)).sort_values(["rounded", "val_accuracy"], ascending=False, kind="stable")
    return float(best["alpha"].iloc[0])
