"""OTDD: how far a labelled dataset's features moved, whichever image moved where inside its class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from ..graph import unit_rows
from ..registry import parse_value, read_params
from ..seeds import seed_of
from ..types import Range, UserError
from ._rows import check_table, check_widths
from ._transport import half_otdd, labelled_points

INPUT = "labelled"


@dataclass(frozen=True)
class OtddResult:
    """An OTDD and what it was computed with.

    Attributes:
        value: The distance, halved and un-rooted.
        n_0: Samples of the first set that were used.
        n_1: Samples of the second.
        n_classes: Classes of the first set that were used.
        n_components: Dimensions left by PCA.
        variance_kept: Share of the first set's variance in them.
        shrinkage: Share of each covariance that was made round.
        solver: ``exact`` or ``sinkhorn``.
        epsilon: Absolute regularisation of Sinkhorn; 0 if exact.
        skipped: Samples of both sets left out because their class has no second one.
    """

    value: float
    n_0: int
    n_1: int
    n_classes: int
    n_components: int
    variance_kept: float
    shrinkage: float
    solver: Literal["exact", "sinkhorn"]
    epsilon: float
    skipped: int


def otdd(
    features_0: Float[np.ndarray, "n d"],
    labels_0: Int[np.ndarray, "n"],
    features_1: Float[np.ndarray, "m d"],
    labels_1: Int[np.ndarray, "m"],
    *,
    n_components: Annotated[int, Range(1, 4096)] = 64,
    shrinkage: Annotated[float, Range(0.0, 1.0)] = 0.1,
    exact_samples: Annotated[int, Range(0, 5000)] = 2000,
    max_samples: Annotated[int, Range(2, 5000)] = 5000,
    epsilon: Annotated[float, Range(0.001, 10.0)] = 0.05,
    seed: int = 0,
) -> float:
    r"""Optimal transport dataset distance, halved and un-rooted: least mean cost of moving one labelled set onto the other.

    .. math:: \min_\pi \sum_{ij} \pi_{ij} \tfrac12 \bigl( \lVert x_i - x'_j \rVert^2 + W_2^2(\alpha_{y_i}, \alpha_{y'_j}) \bigr)

    W_2 is the distance of the two classes' Gaussians. Features have unit norm; PCA is fitted on the first set alone. Zero if
    nothing moved, or if images changed places inside their class; moving all points by v costs the square of v's length.
    Not invariant to rotations of one side. Symmetric only where PCA keeps every dimension. Classes of one sample are left out.

    For two encodings of the same images without shrinkage, at most the mean squared distance of an image's two features.

    Args:
        features_0: Before; one row a sample, any scale.
        labels_0: Class of each sample.
        features_1: After, or another dataset, in the same space.
        labels_1: Their classes; where they equal the first ones, the two are taken for the same images.
        n_components: Dimensions that PCA leaves, at most the features' own and one less than the first set's samples.
        shrinkage: Share g of each class's covariance S that is made round: (1 - g) S + g tr(S) / d I.
        exact_samples: Largest side that is solved exactly; above, debiased Sinkhorn. 0 means always Sinkhorn.
        max_samples: Samples a side at most; above, a draw that keeps the classes' shares.
        epsilon: Regularisation of Sinkhorn, in units of the median cost.
        seed: Source of the draw.

    Returns:
        The distance, >= 0, in squared units of unit features. Debiased Sinkhorn lies below the exact value, by 18 to 29
        percent on synthetic sets of 5,000 samples: compare values of one solver, number of samples and PCA only.

    Raises:
        UserError: If an option lies outside its range, a row is not finite, widths or numbers of labels do not match, or
            a side has no class with two samples; names them.

    Example:
        One class at +1 and -1 collapses to +1. Points: half of 0 and of 4, on average 1. Gaussians: their means lie 1
        apart and so do their deviations, half of 2 is 1.

        >>> before, after, labels = np.array([[1.0], [-1.0]]), np.array([[1.0], [1.0]]), np.array([0, 0])
        >>> otdd(before, labels, after, labels)
        2.0

    Source:
        Alvarez-Melis and Fusi 2020, arXiv:2002.02923, with Gaussian classes; as a measure of forgetting, Proxy-FDA,
        arXiv:2505.24088. Halved as in microsoft/otdd.
        Differs: PCA of unit features, biased and shrunk covariances, exact transport up to 2,000 samples, regularisation
        scaled to the cost.
    """
    options = {"n_components": n_components, "shrinkage": shrinkage, "exact_samples": exact_samples, "max_samples": max_samples}
    return otdd_result(features_0, labels_0, features_1, labels_1, **options, epsilon=epsilon, seed=seed).value


def otdd_result(
    features_0: Float[np.ndarray, "n d"], labels_0: Int[np.ndarray, "n"], features_1: Float[np.ndarray, "m d"], labels_1: Int[np.ndarray, "m"], **options: Any
) -> OtddResult:
    """Returns the distance that `otdd` returns, with what it was computed with.

    Args:
        features_0: Before; one row a sample, any scale.
        labels_0: Class of each sample.
        features_1: After, or another dataset, in the same space.
        labels_1: Their classes.
        **options: Those of `otdd`, under the same names and with the same defaults.

    Raises:
        UserError: If an option is unknown or lies outside its range, a row is not finite, widths or numbers of labels do
            not match, or a side has no class with two samples; names them.
    """
    chosen = _checked(options)
    _check_side("features_0", features_0, labels_0)
    _check_side("features_1", features_1, labels_1)
    check_widths(features_0, features_1)
    rows_0, rows_1 = (sampled_rows(labels, chosen["max_samples"], chosen["seed"]) for labels in (labels_0, labels_1))
    points_0, points_1, kept = _reduce(unit_rows(features_0[rows_0]), unit_rows(features_1[rows_1]), chosen["n_components"])
    side_0 = labelled_points(points_0, labels_0[rows_0], chosen["shrinkage"])
    side_1 = labelled_points(points_1, labels_1[rows_1], chosen["shrinkage"])
    value, epsilon = half_otdd(side_0, side_1, chosen["exact_samples"], chosen["epsilon"])
    is_exact = max(len(rows_0), len(rows_1)) <= chosen["exact_samples"]
    return OtddResult(
        value=value,
        n_0=len(rows_0),
        n_1=len(rows_1),
        n_classes=len(side_0.gaussians.means),
        n_components=points_0.shape[1],
        variance_kept=kept,
        shrinkage=chosen["shrinkage"],
        solver="exact" if is_exact else "sinkhorn",
        epsilon=epsilon,
        skipped=sum(len(labels) - len(_in_company(labels)) for labels in (labels_0, labels_1)),
    )


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    params = {param.name: param for param in read_params(otdd)}
    unknown = sorted(options.keys() - params.keys())
    if unknown:
        raise UserError(f"otdd has no option {unknown[0]!r}; choose from {', '.join(params)}.")
    return {name: parse_value(param, options.get(name, param.default)) for name, param in params.items()}


def _check_side(name: str, features: np.ndarray, labels: np.ndarray) -> None:
    check_table(name, features)
    if len(labels) != len(features):
        raise UserError(f"{name} have {len(features)} rows and {len(labels)} labels; give one label a row.")
    if not len(_in_company(labels)):
        raise UserError(f"{name} have no class with two samples among {len(labels)}; a class needs two for its spread: add images.")


def _in_company(labels: np.ndarray) -> np.ndarray:
    """Returns the rows whose class has another row."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[classes] > 1)


def sampled_rows(labels: np.ndarray, max_samples: int, seed: int) -> np.ndarray:
    """Draws rows in proportion to the classes, two of each if there is room; a function of the labels, so equal ones give equal rows."""
    rows = _in_company(labels)
    if len(rows) <= max_samples:
        return rows
    rng = np.random.default_rng(seed_of("otdd", seed))
    rows = rng.permutation(rows)
    _, classes, counts = np.unique(labels[rows], return_inverse=True, return_counts=True)
    order = classes.argsort(kind="stable")
    rank = np.empty(len(rows), int)  # place of each row inside its class
    rank[order] = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    # Each class's first two come first, class by class; then all in the order in which their class's share fills up.
    turn = np.where(rank < 2, -1 - rng.permutation(len(counts))[classes], rank / counts[classes])
    chosen = np.sort(rows[turn.argsort(kind="stable")[:max_samples]])
    return chosen[_in_company(labels[chosen])]


def _reduce(rows_0: np.ndarray, rows_1: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Projects both sets on the principal components of the first; returns also the share of its variance that is left."""
    mean, d = rows_0.mean(0), rows_0.shape[1]
    scatter = (rows_0 - mean).T @ (rows_0 - mean)
    width = min(n_components, len(rows_0) - 1, d)
    values, vectors = eigh(scatter, subset_by_index=[d - width, d - 1])
    total = scatter.trace()
    if width < d:  # directions without variance would be arbitrary ones; with all d it does not matter which they are
        start = min(int((values <= 1e-12 * total).sum()), width - 1)
        values, vectors = values[start:], vectors[:, start:]
    kept = float(np.clip(values.sum() / total, 0, 1)) if total > 0 else 1.0
    return (rows_0 - mean) @ vectors, (rows_1 - mean) @ vectors, kept
