"""LDIFS: stay near the starting activations at several depths."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..types import Batch, Range, UserError

NEEDS = frozenset({"taps"})
LAWS = frozenset({"nonnegative", "zero_at_start"})
TITLE = "LDIFS"
SUMMARY = "Fine-tuning with a pull of every activation back to the foundation model's."
DEFAULTS = {"reg_weight": 30.0}  # for GlyphCLIP; 10 is the published value for 50 tokens of a ViT
PROTECTS = "points: each image's activations"
COST = "one forward pass of the frozen tower a step"
EQUATION = (
    r"\mathcal{L} = \mathrm{CE} + \lambda \, \mathrm{mean}_{n,l,t,c} \left( \frac{h_l^\theta}{\lVert h_l^\theta \rVert_t}"
    r" - \frac{h_l^{\theta_0}}{\lVert h_l^{\theta_0} \rVert_t} \right)^2"
)


def ldifs(
    batch: Batch,
    *,
    reg_weight: Annotated[float, Range(0.0, 10_000.0)] = 10.0,
    norm_axis: Literal["token", "channel"] = "token",
    pooled_only: bool = False,
) -> Float[Tensor, ""]:
    r"""Squared distance between current and starting activations at five depths.

    Each activation is scaled to unit norm along its tokens, as the published code does, so the value is at most
    ``reg_weight * 4 / T`` for T tokens: a strength does not carry over between patch sizes, nor to the other axis, whose
    bound is ``reg_weight * 4``. Zero, with zero gradient, at the start.

    Args:
        batch: Its ``taps`` and ``taps_0``; with ``pooled_only`` its ``features`` and ``features_0``.
        reg_weight: Strength; 0 turns it off. 10 is the published default for 50 tokens.
        norm_axis: What is scaled to unit norm: each channel over the tokens (published code), or each token over the channels.
        pooled_only: Compare the embeddings alone, an ablation; they have no tokens, so their channels are normalised.

    Returns:
        Scalar >= 0.

    Source:
        Mukhoti et al. 2024, TMLR, arXiv:2308.13320; ldifs_code loss/ldifs.py.
        Differs: taps at 0, 1/4, 1/2, 3/4, 1 of any tower's depth (its stages, if convolutional), and the student's
        taps come from the pass that the task loss uses. Channel axis and pooled embedding are variants of ours.
    """
    if pooled_only:
        assert batch.features_0 is not None
        return reg_weight * ldifs_distance([batch.features[:, None]], [batch.features_0[:, None]], "channel")
    return reg_weight * ldifs_distance(batch.taps, batch.taps_0, norm_axis)


def ldifs_distance(
    taps: Sequence[Float[Tensor, "_ _ _"]], taps_0: Sequence[Float[Tensor, "_ _ _"]], norm_axis: Literal["token", "channel"] = "token"
) -> Float[Tensor, ""]:
    """Returns the squared difference of normalised activations, averaged over images, taps and what was not summed.

    Along tokens the mean is over tokens and channels; along channels the differences are summed over them first.

    Args:
        taps: Current activations, images by tokens by channels.
        taps_0: Activations of the starting tower on the same view; no gradient flows into them.
        norm_axis: The axis that has unit norm.

    Returns:
        Scalar in [0, 4 / T] for T tokens, or [0, 4] for channels.

    Raises:
        UserError: If the two lists do not match in number or shape.

    Example:
        One channel over two tokens, turned by 90 degrees: ((1 - 0)^2 + (0 - 1)^2) / 2 = 1.

        >>> ldifs_distance([torch.tensor([[[1.0], [0.0]]])], [torch.tensor([[[0.0], [1.0]]])])
        tensor(1.)

    Source:
        ldifs_code loss/ldifs.py: dim 1, the token axis, is the one that is normalised.
    """
    if not taps or [t.shape for t in taps] != [t.shape for t in taps_0]:
        raise UserError(f"taps of shapes {[tuple(t.shape) for t in taps]} and {[tuple(t.shape) for t in taps_0]} cannot be compared; tap the same tower.")
    dim = 1 if norm_axis == "token" else 2
    squares = [(_unit(h, dim) - _unit(h_0.detach(), dim)).square() for h, h_0 in zip(taps, taps_0, strict=True)]
    return torch.stack([square.mean() if norm_axis == "token" else square.sum(2).mean() for square in squares]).mean()


def _unit(h: Tensor, dim: int) -> Tensor:
    h = h.float()
    return h / (h.square().sum(dim, keepdim=True).clamp_min(1e-20).sqrt() + 1e-10)
