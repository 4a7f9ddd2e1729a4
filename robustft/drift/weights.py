"""Weight drift: how far the model's parameters moved."""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..types import UserError

INPUT = "theta"


def weights(theta_0: Mapping[str, Tensor], theta_1: Mapping[str, Tensor]) -> float:
    r"""Relative distance of two models' weights, all floating-point tensors together; 0 if none moved, no upper bound.

    .. math:: \lVert \theta_1 - \theta_0 \rVert_2 \, / \, \lVert \theta_0 \rVert_2

    From a start that is zero throughout the answer is 1 if anything moved. Integer buffers are left out.

    Args:
        theta_0: State dict before.
        theta_1: State dict after, the same names and shapes.

    Raises:
        UserError: If names or shapes differ, or a tensor is not finite; names the first.

    Example:
        From (3, 4), of length 5, one step of length 1: 1 / 5.

        >>> import torch
        >>> weights({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 5.0])})
        0.2

    Source:
        L2-SP (Li et al. 2018, arXiv:1802.01483): the square root of its penalty, over the norm of the start.
    """
    return _ratio(_squares(theta_0, theta_1).values())


def weights_by_layer(theta_0: Mapping[str, Tensor], theta_1: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the relative distance of each module's weights, in the order of the model.

    A module is a parameter's name without its last part; a parameter of the model itself keeps its own name.

    Args:
        theta_0: State dict before.
        theta_1: State dict after, the same names and shapes.

    Raises:
        UserError: If names or shapes differ, or a tensor is not finite; names the first.

    Example:
        >>> import torch
        >>> before = {"scale": torch.tensor(2.0), "a.weight": torch.tensor([3.0]), "a.bias": torch.tensor([4.0])}
        >>> after = {"scale": torch.tensor(2.0), "a.weight": torch.tensor([3.0]), "a.bias": torch.tensor([5.0])}
        >>> weights_by_layer(before, after)
        {'scale': 0.0, 'a': 0.2}
    """
    modules: dict[str, list[tuple[float, float]]] = {}
    for name, pair in _squares(theta_0, theta_1).items():
        modules.setdefault(name.rpartition(".")[0] or name, []).append(pair)
    return {module: _ratio(pairs) for module, pairs in modules.items()}


def _ratio(squares: Iterable[tuple[float, float]]) -> float:
    moved, start = (math.fsum(column) for column in zip((0.0, 0.0), *squares, strict=True))
    return math.sqrt(moved / start) if start else float(moved > 0)


def _squares(theta_0: Mapping[str, Tensor], theta_1: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Returns the squared norms of change and start by name, tensor by tensor: a model is never copied whole."""
    differing = sorted(theta_0.keys() ^ theta_1.keys())
    if differing:
        raise UserError(f"the two models differ in {differing[0]!r}; compare two checkpoints of one architecture.")
    return {name: _square(name, start, theta_1[name]) for name, start in theta_0.items() if start.is_floating_point()}


def _square(name: str, start: Tensor, end: Tensor) -> tuple[float, float]:
    if start.shape != end.shape:
        raise UserError(f"{name!r} has shape {tuple(start.shape)} in one model and {tuple(end.shape)} in the other; they must agree.")
    start = start.detach().double()
    moved = (end.detach().to(start) - start).square().sum().item(), start.square().sum().item()
    if not all(map(math.isfinite, moved)):
        raise UserError(f"{name!r} is not finite; look for a diverged model.")
    return moved
