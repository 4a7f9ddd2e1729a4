"""Tables that leave a page: as words for a reader, and as CSV that a spreadsheet cannot mistake for formulas."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(table: pd.DataFrame) -> str:
    """Returns a table as CSV in which no text cell can be taken for a formula by a spreadsheet; numbers stay numbers.

    Example:
        >>> csv_text(pd.DataFrame({"method": ["=1+1", "ft"], "Delta": [-1.5, 2.0]})).splitlines()
        ['method,Delta', "'=1+1,-1.5", 'ft,2.0']
    """
    safe = table.map(lambda value: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value)
    return str(safe.to_csv(index=False, lineterminator="\n"))


def worded(table: pd.DataFrame, formats: Mapping[str, str]) -> pd.DataFrame:
    """Returns a table as text: numbers in their column's format, whole and true values as they are, – where there is none.

    Args:
        table: One row a line.
        formats: Number format by column, as ``"%+.1f"``; other fractions are written with four digits.

    Example:
        >>> worded(pd.DataFrame({"task": ["x", "y"], "change": [-1.25, float("nan")], "n": [384, 500]}), {"change": "%+.1f"}).to_numpy().tolist()
        [['x', '-1.2', '384'], ['y', '–', '500']]
    """

    def word(value: Any, form: str | None) -> str:
        if value is None or (isinstance(value, float) and value != value):
            return "–"
        if isinstance(value, str) or not isinstance(value, float):
            return str(value)
        return (form or "%.4g") % value

    return pd.DataFrame({title: [word(value, formats.get(title)) for value in table[title].tolist()] for title in table.columns})
