"""FDA: keep each image's neighbours, not its place."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..types import Batch, Range, UserError

NEEDS = frozenset({"features_0"})
LAWS = frozenset({"nonnegative"})
TITLE = "FDA"
SUMMARY = "Fine-tuning that keeps who is near whom among the features of a batch."
DEFAULTS = {"sampler": "hard_classes", "reg_weight": 10.0}
PROTECTS = "neighbourhoods: who is near whom"
COST = "one forward pass of the frozen tower a step"
EQUATION = (
    r"\mathcal{L} = \mathrm{CE} + \frac{\lambda}{B} \sum_i \frac{1}{B-1} \sum_{j \neq i} \log\left(1 + \exp\left( w_{ij}"
    r" \left( -\tfrac{\cos(x_i, x_j)}{\tau} + b \right) \right)\right), \quad w_{ij} = \pm\cos(\hat x_i, \hat x_j)"
)


def fda(
    batch: Batch,
    *,
    reg_weight: Annotated[float, Range(0.0, 1000.0)] = 1.0,
    n_neighbors: Annotated[int, Range(1, 512)] = 8,
    temperature: Annotated[float, Range(0.001, 10.0)] = 0.1,
    bias: Annotated[float | None, Range(-1000.0, 1000.0)] = None,
) -> Float[Tensor, ""]:
    """Contrast of each image with its batch: near what it was near at the start, away from the rest.

    Blind to rotations of the feature space, and its gradient at the start is not zero: it sharpens neighbourhoods
    rather than copying distances. Watch the zero-shot accuracy beside it.

    Args:
        batch: Its ``features`` and ``features_0``.
        reg_weight: Strength; 0 turns it off. No published value: ours.
        n_neighbors: Neighbours kept an image, above the images a class in the batch. No published value: ours.
        temperature: Scale of the cosines, tau. No published value: ours.
        bias: Threshold times 1 / tau; none calibrates it on the starting features of the run's own batches.

    Returns:
        Scalar >= 0.

    Source:
        Proxy-FDA, Huang et al. 2025, ICML, arXiv:2505.24088, the FDA term. Values of n_neighbors, temperature and bias ours.
    """
    if bias is None:
        raise UserError("bias = None is not allowed here; calibrate it on the starting features first.")
    assert batch.features_0 is not None
    losses = fda_loss(batch.features, batch.features_0, n_neighbors=n_neighbors, temperature=temperature, bias=bias)
    return reg_weight * losses.mean()


def fda_loss(features: Float[Tensor, "n d"], features_0: Float[Tensor, "n d0"], *, n_neighbors: int, temperature: float, bias: float) -> Float[Tensor, "n"]:
    """Returns each image's FDA term, computed in full precision.

    Args:
        features: Current features; gradients flow here.
        features_0: Starting features of the same images; they give neighbours and weights.
        n_neighbors: Neighbours an image, from 1 to one less than the batch.
        temperature: tau, positive.
        bias: b; pairs are pulled above, or pushed below, a cosine of b * tau.

    Raises:
        UserError: If the batch has too few images for ``n_neighbors``.

    Example:
        Two images with one neighbour each, unchanged, both features equal: w = cos = 1, so each term is
        log(1 + exp(1 * (-1 / 1 + 1))) = log 2.

        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> fda_loss(x, x, n_neighbors=1, temperature=1.0, bias=1.0)
        tensor([0.6931, 0.6931])

    Source:
        arXiv:2505.24088. Differs: negative starting cosines are clamped to zero, since they would turn a push into a pull.
    """
    n = len(features)
    if not 1 <= n_neighbors < n:
        raise UserError(f"n_neighbors = {n_neighbors} is not allowed for a batch of {n} images; give 1 to {n - 1}, or a larger batch_size.")
    with torch.autocast(features.device.type, enabled=False):
        cosines, cosines_0 = cosine_table(features), cosine_table(features_0.detach())
        itself = torch.eye(n, dtype=torch.bool, device=features.device)
        weights = cosines_0.clamp_min(0)
        weights = torch.where(nearest_mask(cosines_0, n_neighbors), weights, -weights)
        terms = F.softplus(weights * (bias - cosines / temperature))
        return terms.masked_fill(itself, 0).sum(1) / (n - 1)


def cosine_table(features: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Returns the cosine of every pair, in full precision."""
    unit = F.normalize(features.float(), dim=-1)
    return unit @ unit.T


def nearest_mask(cosines_0: Float[Tensor, "n n"], n_neighbors: int) -> Bool[Tensor, "n n"]:
    """Marks each row's nearest others."""
    nearest = cosines_0.clone().fill_diagonal_(-2).topk(n_neighbors, dim=1).indices
    return torch.zeros_like(cosines_0, dtype=torch.bool).scatter_(1, nearest, True)


def calibrate(feature_batches: Sequence[Float[Tensor, "n d"]], options: Mapping[str, Any]) -> dict[str, float]:
    """Chooses the bias that puts the threshold between the K-th and the next neighbour of the median image at the start.

    Args:
        feature_batches: Starting features of batches from the run's own sampler.
        options: The run's ``n_neighbors``, ``temperature`` and ``bias``; a bias that is given stays.

    Example:
        Similarities to the others are 1 and 0 for two of three images, and 0 and 0 for the third: the midpoints between
        first and second are 0.5, 0.5 and 0, their median 0.5, and 0.5 / tau = 5.

        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> calibrate([x], {"n_neighbors": 1, "temperature": 0.1, "bias": None})
        {'bias': 5.0}
    """
    if options["bias"] is not None:
        return {}
    k, midpoints = options["n_neighbors"], []
    for features in feature_batches:
        if k + 1 >= len(features):
            raise UserError(f"n_neighbors = {k} leaves nothing to push away in a batch of {len(features)}; give at most {len(features) - 2}.")
        nearest = cosine_table(features).fill_diagonal_(-2).topk(k + 1, dim=1).values
        midpoints.append((nearest[:, k - 1] + nearest[:, k]) / 2)
    return {"bias": round(torch.cat(midpoints).median().item() / options["temperature"], 4)}


def health(batch: Batch, options: Mapping[str, Any]) -> dict[str, float]:
    """Reports the share of starting cosines that the clamp changed, and the share of kept neighbours in the batch."""
    assert batch.features_0 is not None
    cosines, cosines_0 = cosine_table(batch.features.detach()), cosine_table(batch.features_0)
    kept = nearest_mask(cosines, options["n_neighbors"]) & nearest_mask(cosines_0, options["n_neighbors"])
    return {"clamp_rate": (cosines_0 < 0).float().mean().item(), "batch_overlap": kept.sum().item() / (len(kept) * options["n_neighbors"])}
