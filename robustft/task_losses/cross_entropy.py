"""Cross-entropy of the head's logits."""

from typing import Annotated

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..types import Batch, Range

NEEDS = frozenset({"logits"})


def cross_entropy(batch: Batch, *, label_smoothing: Annotated[float, Range(0.0, 0.9)] = 0.0) -> Float[Tensor, ""]:
    """Mean negative log-probability of each image's class.

    Args:
        batch: Its ``logits`` and ``labels``.
        label_smoothing: Part of the target that is spread over all classes.

    Returns:
        Scalar >= 0.

    Example:
        Two classes with equal logits: log 2.

        >>> import torch
        >>> cross_entropy(Batch(torch.ones(1, 1), torch.tensor([0]), logits=torch.zeros(1, 2)))
        tensor(0.6931)

    Source:
        Wortsman et al. 2022, arXiv:2109.01903, wise-ft src/models/finetune.py; smoothing: Szegedy et al. 2016.
    """
    assert batch.logits is not None
    return F.cross_entropy(batch.logits, batch.labels, label_smoothing=label_smoothing)
