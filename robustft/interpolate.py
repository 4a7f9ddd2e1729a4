"""WiSE-FT: one model between two."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .seeds import generator_of
from .types import TrainData, UserError

STATISTICS_BATCHES, STATISTICS_SIZE = 200, 64


def interpolate(theta_0: Mapping[str, Tensor], theta_1: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    r"""Returns the weights :math:`(1-\alpha)\,\theta_0 + \alpha\,\theta_1`, head included.

    The ends are exact to the bit. Integer and boolean buffers cannot be averaged and come from ``theta_1``.

    Args:
        theta_0: Weights of the starting model.
        theta_1: Weights of the fine-tuned model, under the same names.
        alpha: 0 gives the start, 1 the fine-tuned model; within [0, 1].

    Returns:
        New tensors; the arguments are left alone.

    Raises:
        UserError: If alpha lies outside [0, 1], or names or shapes differ; names the first that does.

    Example:
        A quarter of the way from 0 to 8 is 2.

        >>> import torch
        >>> interpolate({"w": torch.tensor([0.0])}, {"w": torch.tensor([8.0])}, 0.25)
        {'w': tensor([2.])}

    Source:
        Wortsman et al. 2022, arXiv:2109.01903, eq. 1; wise-ft src/wise_ft.py (which averages integer buffers too).
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha = {alpha!r} is not allowed; give a number from 0 (starting model) to 1 (fine-tuned model).")
    differing = sorted(theta_0.keys() ^ theta_1.keys())
    if differing:
        raise UserError(f"the two models differ in {differing[0]!r}; interpolate two checkpoints of one architecture.")
    return {name: _between(name, theta_0[name], theta_1[name], alpha) for name in theta_1}


def _between(name: str, start: Tensor, end: Tensor, alpha: float) -> Tensor:
    if start.shape != end.shape:
        raise UserError(f"{name!r} has shape {tuple(start.shape)} in one model and {tuple(end.shape)} in the other; they must agree.")
    if alpha == 1 or not end.is_floating_point():
        return end.clone()
    if alpha == 0:
        return start.clone()
    return ((1 - alpha) * start.float() + alpha * end.float()).to(end.dtype)


@torch.no_grad()
def recompute_statistics(encoder: nn.Module, data: TrainData) -> bool:
    """Measures the statistics of batch normalisation anew, on training images: averaged ones fit no averaged weights.

    Only those layers see training mode, so that dropout stays off. A model without them is left alone.

    Args:
        encoder: Changed in place.
        data: Training images of the run; at most 200 batches of 64 are looked at, not augmented.

    Returns:
        Whether there was anything to measure.

    Source:
        Izmailov et al. 2018, arXiv:1803.05407, on averaged weights.
    """
    layers = [module for module in encoder.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not layers:
        return False
    momenta, device = [layer.momentum for layer in layers], next(encoder.parameters()).device
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean over all batches
        layer.train()
    rows = torch.randperm(len(data.labels), generator=generator_of("statistics")).split(STATISTICS_SIZE)
    whole = [part for part in rows if len(part) == STATISTICS_SIZE] or rows
    for part in whole[:STATISTICS_BATCHES]:
        encoder(data.inputs(part, device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
    return True
