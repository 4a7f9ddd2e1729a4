"""Linear probe: multinomial logistic regression on frozen unit features, by full-batch L-BFGS in torch."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .types import UserError

STRENGTHS = (3.0, 30.0, 300.0, 3000.0)
"""Values of C that `fit` tries when it is given a validation set."""


class LinearProbe:
    """Multinomial logistic regression with an L2 penalty on the weights, not on the bias.

    Minimises ``C * sum of cross-entropies + ||W||^2 / 2``, scikit-learn's objective, so C means what it means there.
    Features are scaled to unit norm first, in fitting and in scoring. The problem is convex: there is no seed.

    Args:
        strength: C, positive: inverse of the penalty. Ignored if `fit` is given a validation set to choose it on.
        max_iter: Most L-BFGS iterations for one fit.

    Example:
        Two directions, two classes: separable, so every sample is classified right.

        >>> x = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]])
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> LinearProbe().fit(x, y).score(x, y)
        1.0

    Source:
        Alain and Bengio 2017; the protocol of CLIP (Radford et al. 2021, A.3): L-BFGS, C chosen on validation.
    """

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, "c"]

    def __init__(self, strength: float = 300.0, max_iter: int = 100):
        if not strength > 0:
            raise UserError(f"strength = {strength!r} is not allowed; give a positive number.")
        self.strength, self.max_iter = float(strength), max_iter

    def fit(self, features: Any, labels: Any, val_features: Any = None, val_labels: Any = None) -> "LinearProbe":
        """Fits the probe; with a validation set, tries `STRENGTHS` and keeps the best one (the smallest among equals).

        Args:
            features: One row a sample, tensor or array.
            labels: Class of each, from 0.
            val_features: Samples to choose the strength on.
            val_labels: Their classes.

        Raises:
            UserError: If the features are not finite, or there is only one class.
        """
        x, y = _table(features, labels)
        classes = int(y.max()) + 1
        if len(y.unique()) < 2:
            raise UserError(f"the labels hold {len(y.unique())} class; a probe needs at least 2.")
        self.weight, self.bias = torch.zeros(classes, x.shape[1]), torch.zeros(classes)
        if val_features is None:
            self._minimise(x, y)
            return self
        best: tuple[float, float, Tensor, Tensor] | None = None
        for strength in STRENGTHS:  # from strong to weak penalty, each fit started from the last
            self.strength = strength
            self._minimise(x, y)
            accuracy = self.score(val_features, val_labels)
            if best is None or accuracy > best[0]:
                best = (accuracy, strength, self.weight, self.bias)
        assert best is not None
        _, self.strength, self.weight, self.bias = best
        return self

    def _minimise(self, x: Tensor, y: Tensor) -> None:
        weight, bias = self.weight.clone().requires_grad_(), self.bias.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=self.max_iter, tolerance_grad=1e-5, tolerance_change=1e-8, line_search_fn="strong_wolfe")

        def loss() -> float:
            optimizer.zero_grad()
            value = F.cross_entropy(F.linear(x, weight, bias), y) + weight.square().sum() / (2 * self.strength * len(x))
            value.backward()
            return value.item()

        optimizer.step(loss)  # type: ignore[arg-type]
        self.weight, self.bias = weight.detach(), bias.detach()

    def logits(self, features: Any) -> Float[Tensor, "n c"]:
        """Returns the class scores of samples."""
        return F.linear(F.normalize(torch.as_tensor(features).float(), dim=-1), self.weight, self.bias)

    def score(self, features: Any, labels: Any) -> float:
        """Returns the top-1 accuracy, a fraction in [0, 1]."""
        return (self.logits(features).argmax(1) == torch.as_tensor(labels)).float().mean().item()


def _table(features: Any, labels: Any) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(features).detach().float(), torch.as_tensor(labels).long()
    bad = (~torch.isfinite(x).all(1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(f"features of rows {bad[:5]} ({len(bad)} in all) are not finite; look for a diverged model or a broken image.")
    return F.normalize(x, dim=-1), y
