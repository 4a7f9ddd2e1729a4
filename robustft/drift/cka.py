"""CKA drift: how much of the features' similarity structure changed."""

import numpy as np
from jaxtyping import Float

from ._rows import check_pair, unit_blocks

CONSTANT = 1e-24
"""Variance of unit features that is rounding and nothing else."""


def cka(features_0: Float[np.ndarray, "n d"], features_1: Float[np.ndarray, "n e"]) -> float:
    r"""One minus linear CKA, in [0, 1]: 0 if features are the same up to a rotation and one scale.

    .. math:: 1 - \frac{\lVert X^\top Y \rVert_F^2}{\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}

    Rows are scaled to unit norm first, as in every other measure here, and then centred. Where all images have one and
    the same feature there is no structure to compare: the answer is 0 if that holds on both sides, and 1 on one.

    Args:
        features_0: Before.
        features_1: After, the same images in the same order; the width may be another.

    Raises:
        UserError: If there is no image, or the images differ, or a row is not finite; names them.

    Example:
        Centred, the features are (1, -1, 0, 0) on the first axis and (0, 0, 1, -1) on the second. The second model has the
        first axis alone: ||X^T Y||^2 = 4, ||X^T X|| = 8 ** 0.5 and ||Y^T Y|| = 2, so CKA is 4 / (2 * 8 ** 0.5).

        >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(cka(x, x * np.array([1.0, 0.0])), 6), round(1 - 1 / 2**0.5, 6)
        (0.292893, 0.292893)

    Source:
        Kornblith et al. 2019, arXiv:1905.00414, linear CKA in its feature form.
        Differs: unit rows; products of features, d x d, and never of images, n x n.
    """
    check_pair(features_0, features_1)
    scatter_0, cross, scatter_1 = _scatters(features_0, features_1)
    is_constant = [np.trace(scatter) <= CONSTANT * len(features_0) for scatter in (scatter_0, scatter_1)]
    if any(is_constant):
        return 0.0 if all(is_constant) else 1.0
    similarity = np.square(cross).sum() / (np.linalg.norm(scatter_0) * np.linalg.norm(scatter_1))
    return float(np.clip(1 - similarity, 0, 1))


def _scatters(features_0: np.ndarray, features_1: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns X^T X, X^T Y and Y^T Y of the centred unit rows."""
    mean_0, mean_1 = (sum(block.sum(0) for block in unit_blocks(features)) / len(features) for features in (features_0, features_1))
    widths = features_0.shape[1], features_1.shape[1]
    scatter_0, cross, scatter_1 = np.zeros((widths[0], widths[0])), np.zeros(widths), np.zeros((widths[1], widths[1]))
    for block_0, block_1 in zip(unit_blocks(features_0), unit_blocks(features_1), strict=True):
        x, y = block_0 - mean_0, block_1 - mean_1  # centred before the product: afterwards digits would cancel
        scatter_0 += x.T @ x
        cross += x.T @ y
        scatter_1 += y.T @ y
    return scatter_0, cross, scatter_1
