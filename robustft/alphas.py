"""Points between start and fine-tuned model as tables, and the rule that picks one."""

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


def task_changes(points: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns the zero-shot change of each held-out task in points: a row an alpha, a column a task, the most forgotten at alpha 1 first.

    Without columns if no change of a single task was stored, as by older versions.

    Example:
        >>> rows = [{"alpha": 0.0, "changes": {"a": 0.0, "b": 0.0}}, {"alpha": 1.0, "changes": {"a": 0.01, "b": -0.2}}]
        >>> task_changes(rows).to_dict("index")
        {0.0: {'b': 0.0, 'a': 0.0}, 1.0: {'b': -20.0, 'a': 1.0}}
    """
    stored = {float(point["alpha"]): found for point in points if isinstance(found := point.get("changes"), Mapping)}
    # What is left of an interpolation's rounding is no change.
    table = (pd.DataFrame.from_dict(stored, orient="index", dtype=float).sort_index() * 100).round(9) + 0.0
    return table if table.empty else table[table.iloc[-1].sort_values(kind="stable").index]


def nearest_alpha(table: pd.DataFrame, alpha: float) -> float:
    """Returns the alpha of a curve that is nearest to another; of two as near, the smaller.

    Example:
        >>> nearest_alpha(wise_table([{"alpha": 0.0}, {"alpha": 0.5}, {"alpha": 1.0}]), 0.3)
        0.5
    """
    return float(table["alpha"].iloc[(table["alpha"] - alpha).abs().argmin()])


def best_rows(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns what the rule chooses for each run: its best alpha, and the point of its curve there.

    Args:
        tables: From `wise_table`, by name of the run.

    Example:
        >>> rows = [{"alpha": 0.0, "val_accuracy": 0.5, "mean_delta_zs": 0.0}, {"alpha": 1.0, "val_accuracy": 0.9, "mean_delta_zs": -0.1}]
        >>> best_rows({"ft": wise_table(rows)})[["run", "alpha", "val_accuracy"]].to_numpy().tolist()
        [['ft', 1.0, 90.0]]
    """
    rows = [table[table["alpha"] == best_alpha(table)].iloc[[0]].assign(run=name) for name, table in tables.items()]
    return pd.concat(rows, ignore_index=True)[["run", *TITLES]]
