"""KD: answer as the zero-shot model would, in part."""

from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..types import Batch, Range
from ._answers import both_answers

NEEDS = frozenset({"logits", "logits_0"})
LAWS: frozenset[str] = frozenset()
TITLE = "KD"
SUMMARY = "Fine-tuning whose targets are part label, part answer of the zero-shot model."
DEFAULTS = {"reg_weight": 0.5}
PROTECTS = "outputs: what the zero-shot head says of the task's own classes"
COST = "one forward pass of the frozen tower a step"
EQUATION = r"\mathcal{L} = (1 - \kappa) \, \mathrm{CE}(y, p_\theta) + \kappa \, \mathrm{CE}(p_{\theta_0}, p_\theta)"


def kd(batch: Batch, *, reg_weight: Annotated[float, Range(0.0, 1.0)] = 0.5) -> Float[Tensor, ""]:
    r"""Moves a part of the task loss from the labels to the zero-shot model's answers.

    .. math:: \kappa \left( \mathrm{CE}(p_{\theta_0}, p_\theta) - \mathrm{CE}(y, p_\theta) \right)

    Added to the cross-entropy of the labels this gives the published mixture. It may be negative. It speaks of the task's
    own classes only, and says nothing of other concepts.

    Args:
        batch: Its ``logits``, ``logits_0`` and ``labels``.
        reg_weight: kappa, the part of the answers in the target; 0 is plain fine-tuning, 1 knows no labels.

    Returns:
        Scalar.

    Example:
        Teacher and student both undecided between two classes: both cross-entropies are log 2, their difference is 0.

        >>> import torch
        >>> kd(Batch(torch.ones(1, 1), torch.tensor([0]), logits=torch.zeros(1, 2), logits_0=torch.zeros(1, 2)))
        tensor(0.)

    Source:
        Wortsman et al. 2022, arXiv:2109.01903, eq. 3, temperature 1; as in Feature Protection, arXiv:2405.16027.
    """
    assert batch.logits is not None
    return reg_weight * (distillation_loss(batch) - F.cross_entropy(batch.logits, batch.labels))


def distillation_loss(batch: Batch) -> Float[Tensor, ""]:
    """Returns the cross-entropy of the student's answers under the teacher's; at the start it is the teacher's entropy.

    Raises:
        UserError: If teacher and student answer about different classes.
    """
    logits, logits_0 = both_answers(batch)
    return F.cross_entropy(logits, logits_0.softmax(dim=-1))
