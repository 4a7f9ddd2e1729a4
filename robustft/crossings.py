"""Which classes lie beside each other, and where a class's neighbours went when the model changed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from .types import KnnGraph


def class_mixing(graph: KnnGraph, labels: Int[np.ndarray, "n"], n_classes: int) -> Float[np.ndarray, "c c"]:
    """Returns, for the samples of each class (row), which share of their neighbours is of each class (column); a row sums to 1.

    A class without samples has a row of zeros.

    Example:
        Samples 0 and 1 are of class 0 and have each other and sample 2, of class 1, as neighbours.

        >>> graph = KnnGraph(np.array([[1, 2], [0, 2], [0, 1]]), np.ones((3, 2), np.float32))
        >>> class_mixing(graph, np.array([0, 0, 1]), 2).tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    pairs = labels[:, None].astype(np.int64) * n_classes + labels[graph.indices]
    counts = np.bincount(pairs.ravel(), minlength=n_classes * n_classes).reshape(n_classes, n_classes).astype(float)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def class_moves(before: Float[np.ndarray, "c c"], after: Float[np.ndarray, "c c"], names: Sequence[str]) -> pd.DataFrame:
    """Returns for each class which other class it came nearer to and which it left, in points of its neighbours.

    Args:
        before: From `class_mixing`.
        after: The same with the changed model.
        names: Of the classes.

    Returns:
        Columns class, nearer to, nearer by (points), away from, away by (points); ``–`` and 0 where no share rose or fell.

    Example:
        Of tea's neighbours, a half were bread before; now they are pie.

        >>> mixing = (np.array([[0.5, 0.5, 0.0], [0, 1, 0], [0, 0, 1]]), np.array([[0.5, 0.0, 0.5], [0, 1, 0], [0, 0, 1]]))
        >>> class_moves(*mixing, ["tea", "bread", "pie"]).to_dict("records")[0]
        {'class': 'tea', 'nearer to': 'pie', 'nearer by (points)': 50.0, 'away from': 'bread', 'away by (points)': -50.0}
    """
    change = np.asarray(100 * (after - before), dtype=float)
    np.fill_diagonal(change, 0)  # its own class is told by purity
    rows = []
    for name, row in zip(names, change, strict=True):
        near, far = int(row.argmax()), int(row.argmin())
        rows.append((name, names[near] if row[near] > 0 else "–", max(float(row[near]), 0.0), names[far] if row[far] < 0 else "–", min(float(row[far]), 0.0)))
    return pd.DataFrame(rows, columns=["class", "nearer to", "nearer by (points)", "away from", "away by (points)"])
