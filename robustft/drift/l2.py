"""L2 drift: how far each image moved."""

import numpy as np
from jaxtyping import Float

from ..graph import unit_rows


def l2(features_0: Float[np.ndarray, "n d"], features_1: Float[np.ndarray, "n d"]) -> float:
    """Mean distance between an image's two unit features, in [0, 2]; not invariant to rotations of the space.

    Args:
        features_0: Before.
        features_1: After, the same images in the same order.

    Example:
        One image turned by 180 degrees, one left in place: (2 + 0) / 2 = 1.

        >>> l2(np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[-1.0, 0.0], [0.0, 1.0]]))
        1.0

    Source:
        Proxy-FDA, arXiv:2505.24088, as the distance that OTDD is compared with.
    """
    return float(np.linalg.norm(unit_rows(features_0) - unit_rows(features_1), axis=1).mean())
