"""LDIFS drift: how far the activations at several depths moved."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..regularizers.ldifs import ldifs_distance
from ..types import UserError

INPUT = "taps"


def ldifs(taps_0: Sequence[Float[Tensor, "_ _ _"]], taps_1: Sequence[Float[Tensor, "_ _ _"]]) -> float:
    """Share of the largest possible LDIFS distance, averaged over depths, in [0, 1]; comparable between patch sizes.

    Each channel of a tap has unit norm along its T tokens, so the distance is at most 4 / T; it is divided by that bound.

    Args:
        taps_0: Activations before, one tensor a depth: images by tokens by channels.
        taps_1: After, the same images and depths.

    Raises:
        UserError: If the two differ in number or shape, there is none, or one is not finite; names it.

    Example:
        One channel over two tokens, reversed: unit columns (1, 0) and (-1, 0) lie as far apart as they can.

        >>> ldifs([torch.tensor([[[1.0], [0.0]]])], [torch.tensor([[[-2.0], [0.0]]])])
        1.0

    Source:
        Mukhoti et al. 2024, TMLR, arXiv:2308.13320, as the distance; ldifs_code loss/ldifs.py.
        Differs: divided by its bound, tap by tap, since a tower's depths may have different numbers of tokens.
    """
    _check(taps_0, taps_1)
    shares = [ldifs_distance([tap_1], [tap_0]).item() * tap_0.shape[1] / 4 for tap_0, tap_1 in zip(taps_0, taps_1, strict=True)]
    return min(sum(shares) / len(shares), 1.0)


def _check(taps_0: Sequence[Tensor], taps_1: Sequence[Tensor]) -> None:
    shapes_0, shapes_1 = [tuple(tap.shape) for tap in taps_0], [tuple(tap.shape) for tap in taps_1]
    if not shapes_0 or shapes_0 != shapes_1:
        raise UserError(f"taps of shapes {shapes_0} and {shapes_1} cannot be compared; tap the same tower on the same images.")
    for name, taps in (("taps_0", taps_0), ("taps_1", taps_1)):
        for depth, tap in enumerate(taps):
            bad = (~torch.isfinite(tap).flatten(1).all(1)).nonzero().flatten().tolist()
            if bad or not tap.numel():
                what = f"of images {bad[:5]} ({len(bad)} in all) are not finite" if bad else f"hold nothing, their shape is {tuple(tap.shape)}"
                raise UserError(f"{name}[{depth}] {what}; look for a diverged model or a broken image.")
