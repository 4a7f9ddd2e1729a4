"""L2-SP: stay near the starting weights."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import Batch, Range

NEEDS = frozenset({"theta"})
LAWS = frozenset({"nonnegative", "zero_at_start"})
DECAYS_ANCHORED = False
"""AdamW's decay pulls to zero and would fight the anchor; the loop leaves anchored weights undecayed."""
TITLE = "L2-SP"
SUMMARY = "Fine-tuning with a pull of every weight back to where it started."
PROTECTS = "weights"
COST = "no extra pass; one copy of the weights"
EQUATION = r"\mathcal{L} = \mathrm{CE} + \lambda \sum_p \lVert \theta_p - \theta_{0,p} \rVert_2^2"


def l2_sp(batch: Batch, *, reg_weight: Annotated[float, Range(0.0, 1000.0)] = 0.1) -> Float[Tensor, ""]:
    r"""Squared distance of the tower's weights to their starting values, summed and not halved.

    .. math:: \lambda \sum_p \lVert \theta_p - \theta_{0,p} \rVert_2^2

    Only weights with a counterpart at the start are anchored: the head is free. Zero, with zero gradient, at the start.

    Args:
        batch: Its ``theta`` and ``theta_0``; images and labels are not looked at.
        reg_weight: Strength of the pull; 0 turns it off, and far above 1 the tower hardly moves.

    Returns:
        Scalar >= 0.

    Example:
        Two weights moved by 1 and 2: 0.5 * (1 + 4) = 2.5.

        >>> here, start = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.zeros(2)}
        >>> l2_sp(Batch(torch.ones(1, 1), torch.tensor([0]), theta=here, theta_0=start), reg_weight=0.5)
        tensor(2.5000)

    Source:
        Li et al. 2018, arXiv:1802.01483, eq. 4; coefficient convention of ldifs_code (0.5, no halving).
    """
    return reg_weight * torch.stack([(batch.theta[name] - start).float().square().sum() for name, start in batch.theta_0.items()]).sum()
