"""L2 drift: how far each image moved."""

import numpy as np
from jaxtyping import Float

from ._rows import check_pair, check_widths, unit_blocks


def l2(features_0: Float[np.ndarray, "n d"], features_1: Float[np.ndarray, "n d"]) -> float:
    """Mean distance between an image's two unit features, in [0, 2]; not invariant to rotations of the space.

    Args:
        features_0: Before.
        features_1: After, the same images in the same order.

    Raises:
        UserError: If there is no image, or the images or widths differ, or a row is not finite; names them.

    Example:
        One image turned by 180 degrees, one left in place: (2 + 0) / 2 = 1.

        >>> l2(np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[-1.0, 0.0], [0.0, 1.0]]))
        1.0

    Source:
        Proxy-FDA, arXiv:2505.24088, as the distance that OTDD is compared with.
    """
    check_pair(features_0, features_1)
    check_widths(features_0, features_1)
    moved = [np.linalg.norm(block_1 - block_0, axis=1) for block_0, block_1 in zip(unit_blocks(features_0), unit_blocks(features_1), strict=True)]
    return float(np.concatenate(moved).mean())
