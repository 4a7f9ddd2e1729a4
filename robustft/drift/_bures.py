"""Squared 2-Wasserstein (Bures) distances between Gaussians, all pairs at once, cheap where a class has few samples."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 2048
"""Classes a block times dimensions: a block's matrices of all pairs then take 32 MiB."""


@dataclass(frozen=True)
class Gaussians:
    """Gaussians of classes, each covariance written as ``floor * I + factor @ factor.T``.

    Attributes:
        means: One row a class.
        factors: Orthogonal columns, longest first; columns of zeros fill up classes of lower rank.
        spreads: Squared norms of those columns.
        floors: The smallest eigenvalue of each covariance, or 0.
    """

    means: Float[Tensor, "k d"]
    factors: Float[Tensor, "k d r"]
    spreads: Float[Tensor, "k r"]
    floors: Float[Tensor, "k"]

    def traces(self) -> Float[Tensor, "k"]:
        """Returns the total variance of each class."""
        return self.spreads.sum(1) + self.means.shape[1] * self.floors

    def ranks(self) -> Int[Tensor, "k"]:
        """Returns how many columns of each factor are not zero."""
        return (self.spreads > 0).sum(1)

    def part(self, rows: Int[Tensor, "b"]) -> "Gaussians":
        """Returns some of the classes, with no more columns than they need."""
        width = int(self.ranks()[rows].max())
        return Gaussians(self.means[rows], self.factors[rows, :, :width], self.spreads[rows, :width], self.floors[rows])

    def roots(self) -> Float[Tensor, "k d _"]:
        """Returns matrices R with ``R @ R.T`` equal to the covariances."""
        if not self.floors.any():
            return self.factors
        values, vectors = torch.linalg.eigh(self.factors @ self.factors.mT)
        return vectors * (values.clamp_min(0) + self.floors[:, None]).sqrt()[:, None]


def class_gaussians(points: Float[Tensor, "n d"], classes: Int[Tensor, "n"], shrinkage: float) -> Gaussians:
    """Fits a Gaussian to each class; its covariance S (biased) becomes ``(1 - g) S + g tr(S) / d I`` for a shrinkage g.

    Args:
        points: One row a sample.
        classes: Numbers from 0, each with at least one sample.
        shrinkage: g, in [0, 1].
    """
    d = points.shape[1]
    groups = points[classes.argsort(stable=True)].split(classes.bincount().tolist())
    means = torch.stack([group.mean(0) for group in groups])
    factors = [_factor(group - mean) for group, mean in zip(groups, means, strict=True)]
    width = max(factor.shape[1] for factor in factors)
    stacked = torch.stack([torch.nn.functional.pad(factor, (0, width - factor.shape[1])) for factor in factors])
    spreads = stacked.square().sum(1)
    return Gaussians(means, stacked * (1 - shrinkage) ** 0.5, spreads * (1 - shrinkage), spreads.sum(1) * shrinkage / d)


def _factor(centred: Tensor) -> Tensor:
    """Returns orthogonal columns F, longest first, with F F^T the covariance; from whichever Gram matrix is smaller."""
    n, d = centred.shape
    rows = centred / n**0.5
    if n > d:
        values, vectors = torch.linalg.eigh(rows.mT @ rows)
        factor = vectors * values.clamp_min(0).sqrt()
    else:
        factor = rows.mT @ torch.linalg.eigh(rows @ rows.mT)[1]
    return factor.flip(1)[:, : min(n - 1, d)]  # centring takes one dimension


def bures(
    means_0: Float[Tensor, "k0 d"], covariances_0: Float[Tensor, "k0 d d"], means_1: Float[Tensor, "k1 d"], covariances_1: Float[Tensor, "k1 d d"]
) -> Float[Tensor, "k0 k1"]:
    r"""Squared 2-Wasserstein distance of every Gaussian of one set to every one of another, in double precision.

    .. math:: W_2^2 = \lVert m_0 - m_1 \rVert^2 + \mathrm{tr}\bigl(S_0 + S_1 - 2 (S_0^{1/2} S_1 S_0^{1/2})^{1/2}\bigr)

    Args:
        means_0: One row a Gaussian.
        covariances_0: Symmetric, positive semi-definite; may be singular.
        means_1: The other set.
        covariances_1: The other set.

    Returns:
        Squared distances, >= 0.

    Example:
        Axis-aligned Gaussians differ by their standard deviations: (1 - 3)^2 + (2 - 1)^2 = 5.

        >>> zero = torch.zeros(1, 2)
        >>> bures(zero, torch.diag(torch.tensor([1.0, 4.0]))[None], zero, torch.diag(torch.tensor([9.0, 1.0]))[None]).item()
        5.0

    Source:
        Dowson and Landau 1982; Gelbrich 1990. POT ``ot.gaussian.bures_wasserstein_distance``, squared.
    """
    return squared_distances(_decompose(means_0, covariances_0), _decompose(means_1, covariances_1))


def _decompose(means: Tensor, covariances: Tensor) -> Gaussians:
    covariances = covariances.double()
    values, vectors = torch.linalg.eigh((covariances + covariances.mT) / 2)
    values, vectors = values.flip(1), vectors.flip(2)
    noise = values[:, :1].clamp_min(0) * values.shape[1] * torch.finfo(torch.float64).eps
    floors = torch.where(values[:, -1:] > noise, values[:, -1:], 0.0)
    spreads = torch.where(values - floors > noise, values - floors, 0.0)
    return Gaussians(means.double(), vectors * spreads.sqrt()[:, None], spreads, floors[:, 0])


def squared_distances(gaussians_0: Gaussians, gaussians_1: Gaussians) -> Float[Tensor, "k0 k1"]:
    """Returns what `bures` does, for Gaussians that are decomposed already; block by block, classes of like rank together."""
    size = max(1, BLOCK // gaussians_0.means.shape[1])
    apart = torch.cdist(gaussians_0.means, gaussians_1.means, compute_mode="donot_use_mm_for_euclid_dist").square()
    shapes = gaussians_0.traces()[:, None] + gaussians_1.traces()
    blocks_0, blocks_1 = (gaussians.ranks().argsort().split(size) for gaussians in (gaussians_0, gaussians_1))
    for rows in blocks_0:
        for columns in blocks_1:
            shapes[rows[:, None], columns] -= 2 * _fidelity(gaussians_0.part(rows), gaussians_1.part(columns))
    return apart + shapes.clamp_min(0)


def _fidelity(part_0: Gaussians, part_1: Gaussians) -> Tensor:
    r"""Returns tr (S_0^{1/2} S_1 S_0^{1/2})^{1/2} of all pairs."""
    is_low_rank = part_0.spreads.shape[1] + part_1.spreads.shape[1] < part_0.means.shape[1]
    if is_low_rank and bool(part_0.floors.all() and part_1.floors.all()):
        return _fidelity_above_floor(part_0, part_1)
    products = torch.einsum("adr,bds->abrs", part_0.roots(), part_1.roots())
    is_wide = products.shape[2] < products.shape[3]
    # The squared singular values of R_0^T R_1 are the eigenvalues wanted, whichever roots are taken.
    gram = products @ products.mT if is_wide else products.mT @ products
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum(-1)


def _fidelity_above_floor(part_0: Gaussians, part_1: Gaussians) -> Tensor:
    r"""The same from matrices as small as both ranks together.

    With S = c I + F F^T, the matrix S_0^{1/2} S_1 S_0^{1/2} - c_0 c_1 I is B B^T for B = [c_1^{1/2} F_0, S_0^{1/2} F_1], so
    its eigenvalues that are not 0 are those of B^T B, whose blocks need F_0^T F_1 and the squared norms of columns only.
    """
    width = part_0.spreads.shape[1]
    product = torch.einsum("adr,bds->abrs", part_0.factors, part_1.factors)
    total = width + part_1.spreads.shape[1]
    gram = product.new_zeros(*product.shape[:2], total, total)  # the lower triangle is all that is read
    gram[..., :width, :width] = (part_1.floors[:, None] * part_0.spreads[:, None]).diag_embed()
    stretched = product * (part_0.spreads + part_0.floors[:, None]).sqrt()[:, None, :, None]
    gram[..., width:, :width] = (stretched * part_1.floors.sqrt()[:, None, None]).mT
    gram[..., width:, width:] = product.mT @ product + (part_0.floors[:, None, None] * part_1.spreads).diag_embed()
    floor = part_0.floors[:, None] * part_1.floors
    values = torch.linalg.eigvalsh(gram).clamp_min(0)
    return (values + floor[..., None]).sqrt().sum(-1) + (part_0.means.shape[1] - total) * floor.sqrt()
