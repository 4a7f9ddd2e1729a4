"""L1-SP: stay at the starting weights wherever moving does not pay."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import Batch, Range

NEEDS = frozenset({"theta"})
LAWS = frozenset({"nonnegative", "zero_at_start"})
DECAYS_ANCHORED = False
TITLE = "L1-SP"
SUMMARY = "Fine-tuning with a constant pull of every weight back to where it started, so that few weights move."
DEFAULTS = {"reg_weight": 1e-3}
PROTECTS = "weights"
COST = "no extra pass; one copy of the weights"
EQUATION = r"\mathcal{L} = \mathrm{CE} + \lambda \sum_p \lVert \theta_p - \theta_{0,p} \rVert_1"


def l1_sp(batch: Batch, *, reg_weight: Annotated[float, Range(0.0, 1000.0)] = 1e-4) -> Float[Tensor, ""]:
    r"""Absolute distance of the tower's weights to their starting values, summed.

    Only weights with a counterpart at the start are anchored: the head is free. Zero, with zero gradient, at the start.

    Args:
        batch: Its ``theta`` and ``theta_0``; images and labels are not looked at.
        reg_weight: Strength of the pull; 0 turns it off. No published value: ours, 1e-5 to 1e-3 for a sum over all weights.

    Returns:
        Scalar >= 0.

    Example:
        Two weights moved by 1 and -2: 0.5 * (1 + 2) = 1.5.

        >>> here, start = {"w": torch.tensor([1.0, -2.0])}, {"w": torch.zeros(2)}
        >>> l1_sp(Batch(torch.ones(1, 1), torch.tensor([0]), theta=here, theta_0=start), reg_weight=0.5)
        tensor(1.5000)

    Source:
        L1 to the starting point in the Feature Protection study, arXiv:2405.16027; coefficient ours.
    """
    return reg_weight * torch.stack([(batch.theta[name] - start).float().abs().sum() for name, start in batch.theta_0.items()]).sum()
