"""What every measure on features asks of its tables, and their blocks: a table of 50,000 rows is never copied whole."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from ..graph import unit_rows
from ..types import UserError

BLOCK = 4096
"""Rows in double precision at a time."""


def check_table(name: str, features: np.ndarray) -> None:
    """Refuses what is no table of finite numbers.

    Raises:
        UserError: Names the shape, or the rows that are not finite.
    """
    if features.ndim != 2:
        raise UserError(f"{name} of shape {features.shape} are not a table; give one row a sample.")
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise UserError(f"{name} of rows {bad[:5].tolist()} ({len(bad)} in all) are not finite; look for a diverged model or a broken image.")


def check_pair(features_0: np.ndarray, features_1: np.ndarray) -> None:
    """Refuses two tables that are not encodings of the same images.

    Raises:
        UserError: If one is no table of finite numbers, there is no row, or the numbers of rows differ.
    """
    check_table("features_0", features_0)
    check_table("features_1", features_1)
    if not len(features_0) == len(features_1) > 0:
        raise UserError(f"features of {len(features_0)} and {len(features_1)} images cannot be compared; encode the same images twice, at least one.")


def check_widths(features_0: np.ndarray, features_1: np.ndarray) -> None:
    """Refuses two tables that do not lie in one space.

    Raises:
        UserError: Names both widths.
    """
    if features_0.shape[1] != features_1.shape[1]:
        raise UserError(f"features of {features_0.shape[1]} and {features_1.shape[1]} numbers an image have no distance; use two models of one width.")


def unit_blocks(features: Float[np.ndarray, "n d"]) -> Iterator[Float[np.ndarray, "b d"]]:
    """Yields the rows of a table at unit norm in double precision, some thousand at a time."""
    for start in range(0, len(features), BLOCK):
        yield unit_rows(features[start : start + BLOCK])
