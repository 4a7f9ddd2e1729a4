"""Optimal transport between labelled points: their ground cost, and its solution, exact or by debiased Sinkhorn."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._bures import Gaussians, class_gaussians, squared_distances

PIVOTS = 100_000_000
"""Most pivots of the exact solver, far more than 5,000 samples a side need: it always ends at the optimum."""
ITERATIONS, TOLERANCE = 500, 1e-4
"""Most Sinkhorn iterations, and the mean relative error of the marginals at which they end."""
SAFE_LOG = 50.0
"""Largest logarithm of a scaling that is not yet moved into the potentials."""
BLOCK = 256
"""Rows of a cost that get their classes' distances at a time."""


@dataclass(frozen=True)
class LabelledPoints:
    """One side of the transport: points of equal mass, the class of each, counted from 0, and the Gaussian of each class."""

    points: Float[Tensor, "n d"]
    classes: Int[Tensor, "n"]
    gaussians: Gaussians


def labelled_points(points: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], shrinkage: float) -> LabelledPoints:
    """Returns points with the Gaussians of their classes; each label in use needs two points for a spread."""
    x, classes = torch.from_numpy(points).double(), torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    return LabelledPoints(x, classes, class_gaussians(x, classes, shrinkage))


def ground_cost(side_0: LabelledPoints, side_1: LabelledPoints) -> Float[Tensor, "n m"]:
    """Returns half the squared distance of points plus half that of their classes; one matrix, nothing else of its size."""
    cost = side_0.points @ side_1.points.mT
    half_0, half_1 = (side.points.square().sum(1) / 2 for side in (side_0, side_1))
    cost.neg_().add_(half_0[:, None]).add_(half_1).clamp_(min=0)
    apart = squared_distances(side_0.gaussians, side_1.gaussians) / 2
    for rows, classes in zip(cost.split(BLOCK), side_0.classes.split(BLOCK), strict=True):
        rows += apart[classes][:, side_1.classes]
    return cost


def half_otdd(side_0: LabelledPoints, side_1: LabelledPoints, exact_samples: int, epsilon: float) -> tuple[float, float]:
    """Returns the transport cost, halved and un-rooted, and the absolute regularisation that Sinkhorn used, 0 if exact.

    Args:
        side_0: Before.
        side_1: After, in the same space.
        exact_samples: Largest side that is solved exactly.
        epsilon: Of Sinkhorn, in units of the median cost; of the mean where the median is 0.
    """
    cost = ground_cost(side_0, side_1)
    if max(cost.shape) <= exact_samples:
        return exact(cost), 0.0
    regularisation = epsilon * (_median(cost) or cost.mean().item())
    if regularisation == 0:
        return 0.0, 0.0
    value = entropic(cost, regularisation)
    del cost  # before the next one is made
    for side in (side_0, side_1):
        value -= entropic_self(ground_cost(side, side), regularisation) / 2
    return max(value, 0.0), regularisation


def _median(cost: Tensor) -> float:
    """In single precision: half the memory, and its rounding moves the regularisation by 1e-7."""
    return float(np.median(cost.flatten().float().numpy(), overwrite_input=True))


def exact(cost: Float[Tensor, "n m"]) -> float:
    """Returns the least cost of moving equal masses, by the network simplex."""
    import ot  # seconds to import, and only needed here

    return max(float(ot.emd2([], [], cost.numpy(), numItermax=PIVOTS)), 0.0)


def entropic(cost: Float[Tensor, "n m"], epsilon: float) -> float:
    r"""Returns the entropic transport cost, entropy included, as the value of the dual.

    .. math:: \min_\pi \langle \pi, C \rangle + \epsilon \, \mathrm{KL}(\pi \Vert a \otimes b)
        = \max_{f, g} \bar f + \bar g - \epsilon \, \overline{\exp((f + g - C) / \epsilon) - 1}

    Bars are means. Scalings of a kernel that already holds the best potentials found so far: matrix-vector products
    instead of logarithms of sums, and nothing under- or overflows. Stopped early, the value is a lower bound.

    Args:
        cost: Not negative.
        epsilon: Strength of the entropy, in units of the cost.
    """
    f = cost.min(1).values
    kernel = cost - f[:, None]
    g = kernel.min(0).values
    u, v = _restart(kernel, cost, f, g, epsilon)
    for _ in range(ITERATIONS):
        rows = kernel @ v / len(v)
        if (u * rows - 1).abs().mean() < TOLERANCE:
            break
        u = 1 / rows
        v = len(u) / (kernel.mT @ u)
        if max(u.log().abs().max(), v.log().abs().max()) > SAFE_LOG:
            f, g = f + epsilon * u.log(), g + epsilon * v.log()
            u, v = _restart(kernel, cost, f, g, epsilon)
    return (f + epsilon * u.log()).mean().item() + (g + epsilon * v.log()).mean().item()  # columns are exact: the mean of exp - 1 is 0


def _restart(kernel: Tensor, cost: Tensor, f: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Writes the kernel of the potentials in place, and returns scalings with exact columns."""
    # What lies below exp(-300) counts for nothing, and slows processors down.
    torch.sub(cost, f[:, None], out=kernel).sub_(g).div_(-epsilon).clamp_(min=-300).exp_()
    return torch.ones_like(f), 1 / kernel.mean(0)


def entropic_self(cost: Float[Tensor, "n n"], epsilon: float) -> float:
    """Returns the entropic cost of a set to itself; its two potentials are equal, so few iterations do.

    Args:
        cost: Symmetric, zero on the diagonal; overwritten.
        epsilon: Strength of the entropy, in units of the cost.
    """
    kernel = cost.div_(-epsilon).clamp_(min=-300).exp_()
    u = torch.ones(len(kernel), dtype=kernel.dtype)
    for _ in range(ITERATIONS):
        mass = u * (kernel @ u) / len(u)
        if (mass - 1).abs().mean() < TOLERANCE:
            break
        u = u / mass.sqrt()
    mass = u * (kernel @ u) / len(u)
    return epsilon * (2 * u.log().mean() - mass.mean() + 1).item()
