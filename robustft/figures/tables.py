"""Tables that leave a page: as CSV that a spreadsheet cannot mistake for formulas."""

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
