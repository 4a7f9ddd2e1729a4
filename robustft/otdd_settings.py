"""Whether OTDD values that stand beside each other were computed alike: their solvers, their images, their dimensions."""

from collections.abc import Iterable, Mapping
from typing import Any

MOST_UNLIKE = 2.0
"""How many times more images than another a value may come from before that is said."""


def held_out_settings(details: Mapping[str, Any], downstream: str) -> list[Mapping[str, Any]]:
    """Returns the settings of a run's OTDD values on its held-out tasks.

    Args:
        details: From `pipeline.get_details`.
        downstream: The task that the run was fine-tuned on.

    Example:
        >>> held_out_settings({"otdd": {"food color": {"solver": "exact"}, "digits mnist": {"solver": "sinkhorn"}}}, "food")
        [{'solver': 'sinkhorn'}]
    """
    found = details.get("otdd")
    if not isinstance(found, Mapping):
        return []
    return [value for place, value in found.items() if isinstance(value, Mapping) and str(place).partition(" ")[0] != downstream]


def unlike_settings(settings: Iterable[Mapping[str, Any]]) -> str:
    """Says in one sentence how the settings of OTDD values differ; empty if they are alike.

    Example:
        >>> unlike_settings([{"solver": "exact", "n_0": 384, "n_components": 64}, {"solver": "exact", "n_0": 500, "n_components": 64}])
        ''
        >>> unlike_settings([{"solver": "exact", "n_0": 384}, {"solver": "sinkhorn", "n_0": 4000}])
        'These OTDD values were not all computed alike: 1 exact and 1 by Sinkhorn, which comes out lower; from 384 to 4,000 images.'
    """
    rows = list(settings)
    solvers = [row["solver"] for row in rows if "solver" in row]
    sizes = [row["n_0"] for row in rows if row.get("n_0")]
    parts = []
    if len(set(solvers)) > 1:
        exact = solvers.count("exact")
        parts.append(f"{exact:,} exact and {len(solvers) - exact:,} by Sinkhorn, which comes out lower")
    if sizes and max(sizes) > MOST_UNLIKE * min(sizes):
        parts.append(f"from {min(sizes):,} to {max(sizes):,} images")
    for name, words in (("n_components", "dimensions"), ("shrinkage", "shrinkage")):
        values = sorted({row[name] for row in rows if name in row})
        if len(values) > 1:
            parts.append(f"{words} {', '.join(f'{value:g}' for value in values)}")
    return f"These OTDD values were not all computed alike: {'; '.join(parts)}." if parts else ""
