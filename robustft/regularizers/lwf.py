"""LwF: keep the zero-shot model's answers, softened."""

from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..types import Batch, Range
from ._answers import both_answers

NEEDS = frozenset({"logits", "logits_0"})
LAWS = frozenset({"nonnegative", "zero_at_start"})
TITLE = "LwF"
SUMMARY = "Fine-tuning with a penalty on answers that drift from the zero-shot model's, small probabilities included."
PROTECTS = "outputs: what the zero-shot head says of the task's own classes"
COST = "one forward pass of the frozen tower a step"
EQUATION = r"\mathcal{L} = \mathrm{CE} + \lambda T^2 \, \mathrm{KL}\left( \sigma(\ell_{\theta_0} / T) \,\Vert\, \sigma(\ell_\theta / T) \right)"


def lwf(batch: Batch, *, reg_weight: Annotated[float, Range(0.0, 1000.0)] = 1.0, temperature: Annotated[float, Range(0.01, 100.0)] = 2.0) -> Float[Tensor, ""]:
    r"""Divergence of the current softened answers from those of the zero-shot model.

    Zero, with zero gradient, where both answer alike, as at a zero-shot head start. The scale of the logits is in them
    already and is not applied again.

    Args:
        batch: Its ``logits`` and ``logits_0``.
        reg_weight: Strength; 0 turns it off.
        temperature: T; above 1 small probabilities count more. The factor T squared keeps the gradient's size.

    Returns:
        Scalar >= 0.

    Example:
        Equal answers: 0.

        >>> import torch
        >>> lwf(Batch(torch.ones(1, 1), torch.tensor([0]), logits=torch.eye(2)[:1], logits_0=torch.eye(2)[:1]))
        tensor(0.)

    Source:
        Li and Hoiem 2017, arXiv:1606.09282, with the zero-shot head as the old task's; T = 2, weight 1.
    """
    here, start = ((logits / temperature).log_softmax(dim=-1) for logits in both_answers(batch))
    return reg_weight * temperature**2 * F.kl_div(here, start, reduction="batchmean", log_target=True)
