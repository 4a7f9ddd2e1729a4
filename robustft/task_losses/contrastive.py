"""The contrastive loss that pre-trained the model, as task loss: FLYP."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..types import Batch

NEEDS = frozenset({"captions"})


def contrastive(batch: Batch, *, soft_labels: bool = False) -> Float[Tensor, ""]:
    r"""Symmetric cross-entropy between images and captions of their classes.

    .. math:: \tfrac{1}{2} \left[ \mathrm{CE}(s Z_I Z_T^\top, \mathrm{diag}) + \mathrm{CE}(s Z_T Z_I^\top, \mathrm{diag}) \right]

    Args:
        batch: Its ``features`` and ``captions``; the latter carry the scale.
        soft_labels: Share the target evenly among images of one class, instead of counting them as wrong; for tasks with
            fewer classes than a batch has images. It matters as far as captions of one class differ.

    Returns:
        Scalar >= 0; with soft labels at least log of the number of images a class.

    Example:
        Two images and captions that fit, scale 1: each row is log(1 + exp(0 - 1)).

        >>> contrastive(Batch(torch.eye(2), torch.tensor([0, 1]), captions=torch.eye(2)))
        tensor(0.3133)

    Source:
        FLYP, Goyal et al. 2023, CVPR, arXiv:2212.00638; code: duplicates of a class count as negatives.
    """
    assert batch.captions is not None
    similarities = F.normalize(batch.features.float(), dim=-1) @ batch.captions.T
    if soft_labels:
        same = (batch.labels[:, None] == batch.labels[None, :]).float()
        target = same / same.sum(1, keepdim=True)
    else:
        target = torch.eye(len(similarities), device=similarities.device)
    return (F.cross_entropy(similarities, target) + F.cross_entropy(similarities.T, target)) / 2
