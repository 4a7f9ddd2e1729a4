"""LoRA: low-rank additions to the attention and MLP layers of the image tower, by peft."""

from typing import Annotated, Any

import torch
from torch import nn

from ..types import Range, UserError


def lora(classifier: Any, seed: int, *, rank: Annotated[int, Range(1, 512)] = 8, lora_alpha: Annotated[float, Range(0.01, 1024.0)] = 16.0) -> None:
    r"""Puts :math:`W_0 + \frac{\alpha}{r} B A` in the place of every linear layer of the tower's blocks; B starts at 0.

    Only A, B and the head train. The projection to the embedding is no part of the blocks and stays.

    Args:
        classifier: Changed in place.
        seed: Source of A.
        rank: r, columns of B and rows of A.
        lora_alpha: Numerator of the scale alpha / r; the paper keeps it at one or two times r.

    Raises:
        UserError: If the tower's blocks have no linear layer.

    Source:
        Hu et al. 2022, arXiv:2106.09685; peft ``inject_adapter_in_model``. Rank and scale ours.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    visual, names = classifier.encoder.visual, target_layers(classifier.encoder.visual)
    if not names:
        raise UserError(f"the tower {type(visual).__name__} has no linear layers in its blocks, so there is nothing for LoRA to adapt; choose another method.")
    config = LoraConfig(r=rank, lora_alpha=lora_alpha, lora_dropout=0.0, bias="none", target_modules=names)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, visual)
    for module in visual.modules():
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), nn.MultiheadAttention):
            # peft 0.21 adds the B A of out_proj twice (huggingface/peft#3774): once here, with a gradient, and once by that layer itself.
            projection: Any = module.base_layer.out_proj
            projection.merge = projection.unmerge = _nothing
    classifier.requires_grad_(False)
    classifier.head.requires_grad_(True)
    for name, weight in visual.named_parameters():
        weight.requires_grad_("lora_" in name)


def target_layers(visual: nn.Module) -> list[str]:
    """Names the linear and attention layers of a tower's blocks; a whole attention layer stands for its own projections."""
    blocks = next((part for part in ("trunk", "transformer") if hasattr(visual, part)), "")
    inside = [(name, module) for name, module in visual.named_modules() if name.startswith(blocks)]
    attention = [name for name, module in inside if isinstance(module, nn.MultiheadAttention)]
    linear = [name for name, module in inside if isinstance(module, nn.Linear) and not any(name.startswith(f"{a}.") for a in attention)]
    return attention + linear


def finish(classifier: Any) -> None:
    """Adds B A to the layers and takes the adapters out, so that the weights have the names that they started with."""
    from peft.tuners.lora import LoraLayer

    visual = classifier.encoder.visual
    for name, module in list(visual.named_modules()):
        if isinstance(module, LoraLayer) and ".base_layer" not in name:
            parent, _, child = name.rpartition(".")
            setattr(visual.get_submodule(parent), child, _merged(module))
    del visual.peft_config


def _merged(module: Any) -> nn.Module:
    """Returns a layer with B A added; an attention layer's weights, which peft holds as plain tensors while merged, become parameters again."""
    if isinstance(module.get_base_layer(), nn.MultiheadAttention):
        return module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    module.merge()
    return module.get_base_layer()


def _nothing(*_: Any, **__: Any) -> None:
    """Does nothing."""
