"""Unit rows, which every drift measure works on."""

import numpy as np
from jaxtyping import Float


def unit_rows(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Returns rows of unit norm in double precision; a zero row stays zero."""
    values = np.asarray(features, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
