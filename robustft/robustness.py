"""Effective robustness: out-of-distribution accuracy above what in-distribution accuracy foretells."""

from collections.abc import Sequence

import numpy as np

from .types import UserError


def fit_baseline(id_accuracies: Sequence[float], ood_accuracies: Sequence[float]) -> tuple[float, float]:
    """Returns slope and intercept of the line that standard models lie on, accuracies on logit axes.

    A task's module declares what this returns as ``BASELINES = {domain: (slope, intercept)}``; without it nothing is shown.

    Args:
        id_accuracies: Of standard models, fractions strictly between 0 and 1.
        ood_accuracies: Of the same models on the shifted domain.

    Raises:
        UserError: If there are fewer than two different models, or an accuracy is 0 or 1.

    Example:
        Models whose accuracies do not fall at all lie on the diagonal.

        >>> [round(value, 6) + 0.0 for value in fit_baseline([0.5, 0.7, 0.9], [0.5, 0.7, 0.9])]
        [1.0, 0.0]

    Source:
        Taori et al. 2020, arXiv:2007.00644; Wortsman et al. 2022, arXiv:2109.01903, section 3.
    """
    x, y = np.asarray(id_accuracies, dtype=float), np.asarray(ood_accuracies, dtype=float)
    if len(x) != len(y) or len(np.unique(x)) < 2:
        raise UserError(f"{len(x)} ID and {len(y)} OOD accuracies give no line; give both of at least two models that differ.")
    if not ((x > 0) & (x < 1)).all() or not ((y > 0) & (y < 1)).all():
        raise UserError("an accuracy of 0 or 1 has no logit; give fractions strictly between them.")
    slope, intercept = np.polyfit(_logit(x), _logit(y), 1)
    return float(slope), float(intercept)


def effective_robustness(id_accuracy: float, ood_accuracy: float, baseline: tuple[float, float]) -> float:
    """Returns how far a model lies above the baseline's line, as a fraction of accuracy.

    Example:
        On the diagonal, a model with 80 % ID is foretold 80 % OOD; at 85 % it is 5 points above.

        >>> round(effective_robustness(0.8, 0.85, (1.0, 0.0)), 6)
        0.05
    """
    slope, intercept = baseline
    foretold = 1 / (1 + np.exp(-(slope * _logit(np.clip(id_accuracy, 1e-6, 1 - 1e-6)) + intercept)))
    return float(ood_accuracy - foretold)


def _logit(share: np.ndarray | float) -> np.ndarray | float:
    return np.log(share / (1 - share))
