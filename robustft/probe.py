"""Linear probe: multinomial logistic regression on frozen unit features, by full-batch L-BFGS in torch."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .devices import resolve_device
from .seeds import generator_of
from .types import UserError

STRENGTHS = (3.0, 30.0, 300.0, 3000.0)
"""Values of C that `fit` tries when it is given a validation set."""

CURVATURE = 0.1  # of the loss, as a share of what it is at zero weights: it falls as the classes come apart
NEVER = -30.0  # the bias of a class without samples: the scores of the others sum to zero, so their best is above


class LinearProbe:
    """Multinomial logistic regression with an L2 penalty on the weights, not on the bias.

    Minimises ``C * sum of cross-entropies + ||W||^2 / 2``, scikit-learn's objective, so C means what it means there.
    Features are scaled to unit norm first, in fitting and in scoring. The problem is convex: there is no seed, and on a
    CPU equal features give exactly the same probe.

    Args:
        strength: C, positive: inverse of the penalty. Ignored if `fit` is given a validation set to choose it on.
        tolerance: Where to stop, positive: the largest entry of the mean loss's gradient, in variables in which the loss
            curves about alike in every direction, so that it is then near its minimum whatever the features look like.
        device: Where to fit: ``cpu``, ``cuda`` or ``cuda:i``. Left out, the GPU that the features lie on, or else any
            GPU, or else the CPU. What is fitted ends up on the CPU.

    Example:
        Two directions, two classes: separable, so every sample is classified right.

        >>> x = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]])
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> LinearProbe().fit(x, y).score(x, y)
        1.0

    Source:
        Alain and Bengio 2017; the protocol of CLIP (Radford et al. 2021, A.3): L-BFGS, C chosen on validation.
        Boehning 1992 bounds the Hessian by ``(I - 11'/K) / 2`` times the features' second moment; `_Problem` uses that form.
    """

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, "c"]

    def __init__(self, strength: float = 300.0, *, tolerance: float = 5e-4, device: str | torch.device | None = None):
        for name, value in (("strength", strength), ("tolerance", tolerance)):
            if not value > 0:
                raise UserError(f"{name} = {value!r} is not allowed; give a positive number.")
        self.strength, self.tolerance = float(strength), float(tolerance)
        self.device = None if device is None else resolve_device(str(device))

    def fit(self, features: Any, labels: Any, val_features: Any = None, val_labels: Any = None) -> "LinearProbe":
        """Fits the probe; with a validation set, tries `STRENGTHS` and keeps the best one (the smallest among equals).

        Args:
            features: One row a sample, tensor or array.
            labels: Class of each, from 0.
            val_features: Samples to choose the strength on.
            val_labels: Their classes.

        Raises:
            UserError: If the features are no finite table with one label a row, or there is only one class.
        """
        problem = _Problem(*_table(features, labels, self.device))
        if val_features is None:
            self._keep(problem, problem.solve(problem.start, self.strength, self.tolerance))
            return self
        best: tuple[float, float, Tensor, Tensor] | None = None
        solution = problem.start
        for strength in STRENGTHS:  # from strong to weak penalty, each fit started from the last
            solution = problem.solve(solution, strength, self.tolerance)
            self._keep(problem, solution)
            accuracy = self.score(val_features, val_labels)
            if best is None or accuracy > best[0]:
                best = (accuracy, strength, self.weight, self.bias)
        assert best is not None
        _, self.strength, self.weight, self.bias = best
        return self

    def _keep(self, problem: "_Problem", solution: Tensor) -> None:
        weight, bias = solution[:, :-1], solution[:, -1] - solution[:, :-1] @ problem.centre
        classes = int(problem.present.max()) + 1
        self.weight, self.bias = torch.zeros(classes, weight.shape[1]), torch.full((classes,), NEVER)
        present = problem.present.cpu()
        self.weight[present], self.bias[present] = weight.float().cpu(), bias.float().cpu()

    def logits(self, features: Any) -> Float[Tensor, "n c"]:
        """Returns the class scores of samples, on the CPU."""
        return F.linear(F.normalize(torch.as_tensor(features).detach().cpu().float(), dim=-1), self.weight, self.bias)

    def score(self, features: Any, labels: Any) -> float:
        """Returns the top-1 accuracy, a fraction in [0, 1]."""
        return (self.logits(features).argmax(1) == torch.as_tensor(labels).cpu()).float().mean().item()


class _Problem:
    """The convex problem, in variables in which it is nearly round.

    Features of a foundation model lie in a narrow cone and vary far more along some directions than along others, which
    costs L-BFGS hundreds of passes. At zero weights the Hessian of the mean loss is ``(I - 11'/K) / K`` over the classes
    times the covariance of the features; its Cholesky factor whitens the variables. The minimum stays where it is.
    """

    def __init__(self, x: Tensor, y: Tensor):
        self.present, self.y = y.unique(return_inverse=True)
        if len(self.present) < 2:
            raise UserError(f"the labels hold {len(self.present)} class; a probe needs at least 2.")
        centre = x.mean(0)
        self.x, self.centre = x - centre, centre.double()  # a shift that the bias takes up
        self.covariance = (self.x.T @ self.x).double() / len(x)
        self.is_own = F.one_hot(self.y).to(x)
        self.start = torch.zeros(len(self.present), x.shape[1] + 1, dtype=torch.float64, device=x.device)

    def solve(self, start: Tensor, strength: float, tolerance: float) -> Tensor:
        """Returns weights and, in the last column, biases: L-BFGS from a start, at one strength."""
        penalty = 1 / (strength * len(self.x))
        factor = self._factor(penalty)
        v, factor = (start @ factor).float(), factor.float()
        optimizer = torch.optim.LBFGS([v], max_iter=1000, tolerance_grad=tolerance, tolerance_change=1e-9, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> float:
            value, slope = self._loss(_unwhiten(v, factor), penalty)
            v.grad = torch.linalg.solve_triangular(factor.T, slope, upper=True, left=False).contiguous()
            return value

        optimizer.step(loss)  # type: ignore[arg-type]
        return _unwhiten(v, factor).double()

    def _loss(self, w: Tensor, penalty: float) -> tuple[float, Tensor]:
        """Returns the mean loss and its slope in the weights, written out because autograd takes a third longer."""
        log_p = F.linear(self.x, w[:, :-1], w[:, -1]).log_softmax(1)
        excess = log_p.exp().sub_(self.is_own).div_(len(self.x))
        slope = torch.cat([torch.addmm(w[:, :-1], excess.T, self.x, beta=penalty), excess.sum(0)[:, None]], 1)
        value = penalty / 2 * w[:, :-1].square().sum() - log_p.gather(1, self.y[:, None]).double().mean()
        return value.item(), slope

    def _factor(self, penalty: float) -> Tensor:
        """Returns the Cholesky factor of the curvature that each class's weights and bias have, about."""
        share = CURVATURE / len(self.present)
        curvature = share * self.covariance
        curvature.diagonal().add_(penalty + 1e-6 * curvature.trace())  # rounding can leave it a little below zero
        return torch.block_diag(torch.linalg.cholesky(curvature), curvature.new_full((1, 1), share**0.5))


def _unwhiten(v: Tensor, factor: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, v, upper=False, left=False)


def resampled_rows(labels: Any, seed: int) -> Int[np.ndarray, "n"]:
    """Draws training rows for a refit, with replacement within each class: a stratified bootstrap.

    Each row is replaced by one of its own class, so the labels stay as they are. How much the scores of refitted probes
    vary is the noise of the probe.

    Args:
        labels: Class of each row.
        seed: Another seed, another draw.

    Example:
        A class of one sample can only be drawn as it is.

        >>> resampled_rows([7, 3], seed=0)
        array([0, 1])
    """
    y, draw = torch.as_tensor(labels).cpu(), generator_of("resampled rows", seed)
    rows = torch.empty(len(y), dtype=torch.long)
    for label in y.unique():
        own = (y == label).nonzero().flatten()
        rows[own] = own[torch.randint(len(own), (len(own),), generator=draw)]
    return rows.numpy()


def _table(features: Any, labels: Any, device: torch.device | None) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(features).detach(), torch.as_tensor(labels)
    place = device or (x.device if x.is_cuda else resolve_device("auto"))
    x, y = x.to(place).float().contiguous(), y.to(place).long()  # equal features, equal order of sums
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
        raise UserError(f"features of shape {tuple(x.shape)} and labels of shape {tuple(y.shape)} do not fit; give one row and one label a sample.")
    if y.min() < 0:
        raise UserError(f"label {int(y.min())} is not allowed; number the classes from 0.")
    bad = (~torch.isfinite(x.sum(1))).nonzero().flatten().tolist()
    if bad:
        raise UserError(f"features of rows {bad[:5]} ({len(bad)} in all) are not finite; look for a diverged model or a broken image.")
    return F.normalize(x, dim=-1), y
