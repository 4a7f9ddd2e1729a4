"""Proxy-FDA: FDA with invented neighbours. Our reconstruction: no code is published."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..types import Batch, Range, TrainData, UserError
from . import fda as plain
from .fda import cosine_table

NEEDS = frozenset({"features_0"})
LAWS = frozenset({"nonnegative"})
TITLE = "Proxy-FDA"
SUMMARY = "FDA with proxies: a small network, trained along, invents features between the batch's own. Our reconstruction."
DEFAULTS = {"sampler": "hard_classes", "reg_weight": 10.0, "proxy_start": 20}
PROTECTS = "neighbourhoods, beyond the images of the batch"
COST = "one forward pass of the frozen tower and a small network a step"
EQUATION = (
    r"\mathcal{L} = \mathrm{CE} + \frac{\lambda}{B} \sum_i \mathcal{L}_{\mathrm{FDA}}^i \left( \{[X^+, P^+], [X^-, P^-]\}, \{[\hat w^+, \hat w^{p+}],"
    r" [\hat w^-, \hat w^{p-}]\} \right), \quad P^\pm = A^\pm X^\pm"
)
MOST_PROXIES = 58
"""Rows of the generator's last layer; pooling them to more proxies would repeat some."""
HINGE = 0.5
"""Spread of proxies, relative to that of the features they are made of, below which they are pushed apart."""
COLLAPSED, COLLAPSE_STEP = 0.1, 500
EPSILON = 1e-12


class Generator(nn.Module):
    """One attention and two convolution layers that mix a set of features into fewer: 23,626 parameters at width 512.

    Args:
        width: Of the features.
    """

    def __init__(self, width: int):
        super().__init__()
        self.reduce = nn.Linear(width, 16)
        self.attention = nn.MultiheadAttention(16, 1, batch_first=True)
        self.conv1, self.conv2 = nn.Conv1d(16, 64, 3, padding=1), nn.Conv1d(64, MOST_PROXIES, 3, padding=1)

    def forward(self, features: Float[Tensor, "n m d"], n_proxies: int) -> Float[Tensor, "n p m"]:
        """Returns mixing weights: each row sums to 1, so a proxy is a convex combination of the set.

        The set is centred and scaled first, which frees the weights from where in the cone it lies and how wide it is.
        """
        centred = features - features.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean((1, 2), keepdim=True) + EPSILON).sqrt()
        hidden = self.reduce(scaled)
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        rows = self.conv2(F.relu(self.conv1(hidden.transpose(1, 2))))
        return F.adaptive_avg_pool1d(rows.transpose(1, 2), n_proxies).transpose(1, 2).softmax(dim=-1)


class Side(NamedTuple):
    """Neighbours (sign 1) or the others (sign -1) of every image, nearest at the start first, with their proxies."""

    sign: int
    features: Float[Tensor, "n m d"]
    weights: Float[Tensor, "n m"]
    proxies: Float[Tensor, "n p d"]
    proxy_weights: Float[Tensor, "n p"]


def proxy_fda(
    batch: Batch,
    memory: Generator,
    *,
    reg_weight: Annotated[float, Range(0.0, 1000.0)] = 1.0,
    n_neighbors: Annotated[int, Range(1, 512)] = 8,
    temperature: Annotated[float, Range(0.001, 10.0)] = 0.1,
    bias: Annotated[float | None, Range(-1000.0, 1000.0)] = None,
    proxy_share: Annotated[float, Range(0.01, 1.0)] = 0.4,
    diversity_weight: Annotated[float, Range(0.0, 100.0)] = 1.0,
    proxy_start: Annotated[int, Range(0, 1_000_000)] = 100,
) -> Float[Tensor, ""]:
    """FDA whose neighbours and non-neighbours are joined by proxies, mixtures of their current features.

    The generator learns along: proxies shall be near the set they stand for, away from the other, and spread out. Its loss
    is added with value zero, and the two gradients are kept apart: the encoder's term sees proxies as given, the
    generator's sees features as given.

    Args:
        batch: Its ``features``, ``features_0`` and ``step``.
        memory: The generator, from `init`.
        reg_weight: Strength of the encoder's term; 0 turns it off. No published value: ours.
        n_neighbors: Neighbours kept an image, above the images a class in the batch. No published value: ours.
        temperature: Scale of the cosines, tau. No published value: ours.
        bias: Threshold times 1 / tau; none calibrates it on the starting features of the run's own batches.
        proxy_share: Proxies a set, as a share of the set; 0.4 is published.
        diversity_weight: Strength of the generator's push for spread. No published value: ours.
        proxy_start: Updates before proxies join the encoder's term; the generator learns from the first. Ours.

    Returns:
        Scalar >= 0: the encoder's term.

    Source:
        Huang et al. 2025, ICML, arXiv:2505.24088. Our reconstruction: layers and sizes as published, the rest ours.
    """
    if bias is None:
        raise UserError("bias = None is not allowed here; calibrate it on the starting features first.")
    assert batch.features_0 is not None
    with torch.autocast(batch.features.device.type, enabled=False):
        sides = make_sides(batch, memory, n_neighbors, proxy_share)
        near, far = sides
        learning = generator_loss(near, far, temperature, bias, diversity_weight) + generator_loss(far, near, temperature, bias, diversity_weight)
        losses = plain.fda_loss(batch.features, batch.features_0, n_neighbors=n_neighbors, temperature=temperature, bias=bias)
        if batch.step >= proxy_start:
            losses = joined_loss(batch.features, losses, sides, temperature, bias)
    # The difference is zero, its gradient is the generator's.
    return reg_weight * losses.mean() + (learning - learning.detach())


def make_sides(batch: Batch, generator: Generator, n_neighbors: int, proxy_share: float) -> tuple[Side, Side]:
    """Splits every image's batch into neighbours and others, and makes proxies of both; no gradient leads to the features.

    Raises:
        UserError: If the batch has too few images for ``n_neighbors``.
    """
    assert batch.features_0 is not None
    n = len(batch.features)
    if not 1 <= n_neighbors < n - 1:
        raise UserError(f"n_neighbors = {n_neighbors} is not allowed for a batch of {n} images; give 1 to {n - 2}, or a larger batch_size.")
    unit = F.normalize(batch.features.detach().float(), dim=-1)
    weights, order = cosine_table(batch.features_0.detach()).fill_diagonal_(-2).sort(dim=1, descending=True, stable=True)
    weights, order = weights[:, :-1].clamp_min(0), order[:, :-1]
    parts = ((1, slice(0, n_neighbors)), (-1, slice(n_neighbors, n - 1)))
    near, far = (_side(sign, unit[order[:, part]], weights[:, part], generator, proxy_share) for sign, part in parts)
    return near, far


def _side(sign: int, features: Tensor, weights: Tensor, generator: Generator, proxy_share: float) -> Side:
    n_proxies = min(MOST_PROXIES, max(1, round(proxy_share * features.shape[1])))
    mixing = generator(features, n_proxies)
    proxies = F.normalize(mixing @ features, dim=-1)
    return Side(sign, features, weights, proxies, (mixing @ weights[..., None]).squeeze(-1))


def joined_loss(features: Float[Tensor, "n d"], real: Float[Tensor, "n"], sides: Sequence[Side], temperature: float, bias: float) -> Float[Tensor, "n"]:
    """Returns each image's FDA term over real and invented others, divided by how many there are; proxies are taken as given.

    Args:
        features: Current features; gradients flow here.
        real: Each image's FDA term over the others of its batch, which is their mean.
        sides: Neighbours and others with their proxies.
        temperature: tau.
        bias: b.
    """
    unit, count = F.normalize(features.float(), dim=-1), len(features) - 1
    total = real * count
    for side in sides:
        cosines = torch.einsum("nd,npd->np", unit, side.proxies.detach())
        total = total + F.softplus(side.sign * side.proxy_weights.detach() * (bias - cosines / temperature)).sum(1)
        count += side.proxies.shape[1]
    return total / count


def generator_loss(side: Side, other: Side, temperature: float, bias: float, diversity_weight: float) -> Float[Tensor, ""]:
    """Returns what the generator minimises for one set: closeness to its own reals, distance from the other's, lack of spread."""
    own, foreign = (side.proxies @ reals.transpose(1, 2) / temperature - bias for reals in (side.features, other.features))
    contrast = torch.cat([F.softplus(-own), F.softplus(foreign)], dim=-1).mean()
    return contrast + diversity_weight * F.relu(HINGE - spread_ratio(side)).mean()


def spread_ratio(side: Side) -> Float[Tensor, "n d"]:
    """Returns the spread of proxies over that of the features they are made of, by image and channel; 0 is collapse.

    A ratio, since features lie in a narrow cone: a hinge on the spread itself would not bite.
    """
    spread, spread_of_reals = ((points.var(1, unbiased=False) + EPSILON).sqrt() for points in (side.proxies, side.features))
    return spread / spread_of_reals


def init(teacher: Any, data: TrainData, options: Mapping[str, Any], seed: int) -> Generator:
    """Makes a generator for the width of the teacher's features.

    Args:
        teacher: The start; its encoder tells the width.
        data: Training images, of which one is looked at.
        options: Not used.
        seed: Of its first weights.
    """
    device = next(teacher.parameters()).device
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        return Generator(teacher.encoder(data.inputs(torch.tensor([0]), device)).shape[1])


calibrate = plain.calibrate


@torch.no_grad()
def health(batch: Batch, memory: Generator, options: Mapping[str, Any]) -> dict[str, float]:
    """Reports what FDA reports, and the proxies' spread relative to real features.

    Raises:
        UserError: If the proxies have collapsed to their mean after 500 updates: it would be FDA under another name.
    """
    sides = make_sides(batch, memory, options["n_neighbors"], options["proxy_share"])
    ratios = [_mean_spread(side) for side in sides]
    # One proxy has no spread to lose.
    least = min((ratio for ratio, side in zip(ratios, sides, strict=True) if side.proxies.shape[1] > 1), default=1.0)
    if batch.step >= COLLAPSE_STEP and least < COLLAPSED:
        raise UserError(f"the proxies have collapsed: their spread is {least:.3f} of the features' at step {batch.step}; raise diversity_weight, or use fda.")
    return {**plain.health(batch, options), "proxy_spread_near": ratios[0], "proxy_spread_far": ratios[1]}


def _mean_spread(side: Side) -> float:
    """Returns the mean spread ratio over channels in which the features vary; a channel that is dead says nothing."""
    varies = side.features.var(1, unbiased=False) > EPSILON
    return spread_ratio(side)[varies].mean().item() if varies.any() else 1.0
