"""EWC: hold the weights that the model's answers hang on."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..seeds import generator_of
from ..types import Batch, Range, TrainData

NEEDS = frozenset({"theta"})
LAWS = frozenset({"nonnegative", "zero_at_start"})
DECAYS_ANCHORED = False
TITLE = "EWC"
SUMMARY = "Fine-tuning with a pull of weights back to the start, each in proportion to how much the zero-shot answers hang on it."
DEFAULTS = {"fisher_samples": 256}  # about 5 s on two cores; the noise of so few is washed out by the sum over weights
PROTECTS = "weights, the important ones"
COST = "no extra pass a step; before training one backward pass an image for the Fisher information"
EQUATION = (
    r"\mathcal{L} = \mathrm{CE} + \frac{\lambda}{2} \sum_i F_i (\theta_i - \theta_{0,i})^2, \quad"
    r" F_i = \mathbb{E}_{x, \hat y \sim p_{\theta_0}} \left( \partial_{\theta_i} \log p_{\theta_0}(\hat y | x) \right)^2"
)


class Fisher(nn.Module):
    """The diagonal of the Fisher information, a buffer for each weight, scaled to mean 1."""

    def __init__(self, values: Mapping[str, Tensor]):
        super().__init__()
        count = sum(value.numel() for value in values.values())
        mean = torch.stack([value.double().sum() for value in values.values()]).sum() / count
        for name, value in values.items():
            # Buffers' names hold no dots. A model whose answers hang on nothing has no scale: then all weights count the same.
            self.register_buffer(name.replace(".", "/"), torch.ones_like(value) if mean == 0 else (value / mean).to(value.dtype))

    def __getitem__(self, name: str) -> Tensor:
        """Returns the information of a weight by its name in the encoder."""
        return self.get_buffer(name.replace(".", "/"))


def ewc(
    batch: Batch,
    memory: Fisher,
    *,
    reg_weight: Annotated[float, Range(0.0, 1000.0)] = 0.2,
    fisher_samples: Annotated[int, Range(1, 100_000)] = 1000,
) -> Float[Tensor, ""]:
    r"""Half the squared distance of the tower's weights to their start, weighed by Fisher information on downstream images.

    The images that pre-trained the model are not at hand, so importance is measured on the new task's ("downstream
    Fisher"). With mean information 1, a strength means what twice that of L2-SP means on average. Zero at the start.

    Args:
        batch: Its ``theta`` and ``theta_0``.
        memory: The Fisher information, from `init`.
        reg_weight: Strength, lambda; 0 turns it off. No published value for a normalised Fisher: ours.
        fisher_samples: Pairs of an image and a sampled label that the information is averaged over.

    Returns:
        Scalar >= 0.

    Example:
        Two weights of information 0.5 and 1.5 (mean 1), both moved by 2: 1 / 2 * (0.5 * 4 + 1.5 * 4) = 4.

        >>> here, start = {"w": torch.tensor([2.0, 2.0])}, {"w": torch.zeros(2)}
        >>> ewc(Batch(torch.ones(1, 1), torch.tensor([0]), theta=here, theta_0=start), Fisher({"w": torch.tensor([1.0, 3.0])}), reg_weight=1.0)
        tensor(4.)

    Source:
        Kirkpatrick et al. 2017, arXiv:1612.00796; wise-ft fisher.py: one image at a time, labels sampled from the model.
        Differs: eval mode, no label smoothing, scaled to mean 1.
    """
    terms = [(memory[name] * (batch.theta[name] - start).float().square()).sum() for name, start in batch.theta_0.items()]
    return reg_weight / 2 * torch.stack(terms).sum()


def init(teacher: Any, data: TrainData, options: Mapping[str, Any], seed: int) -> Fisher:
    """Estimates the information of the encoder's weights about the zero-shot model's own answers.

    Args:
        teacher: The start with its zero-shot head; called on images it gives logits.
        data: Training images; labels are not looked at.
        options: The run's ``fisher_samples``.
        seed: Of the order of the images and of the sampled labels.
    """
    weights = dict(teacher.encoder.named_parameters())
    device = next(iter(weights.values())).device
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    draws, count = generator_of("fisher", seed, 0), len(data.labels)
    order = torch.cat([torch.randperm(count, generator=draws) for _ in range(-(-options["fisher_samples"] // count))])[: options["fisher_samples"]]
    for weight in weights.values():
        weight.requires_grad_(True)
    for row in order:
        log_p = F.log_softmax(teacher(data.inputs(row[None], device)), dim=-1)
        label = torch.multinomial(log_p.detach().exp()[0].cpu(), 1, generator=draws).item()
        gradients = torch.autograd.grad(log_p[0, int(label)], list(weights.values()), allow_unused=True)
        for sum_, gradient in zip(total.values(), gradients, strict=True):
            if gradient is not None:
                sum_.add_(gradient.square())
    for weight in weights.values():
        weight.requires_grad_(False)
    return Fisher(total)
