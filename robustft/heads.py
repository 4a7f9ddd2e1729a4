"""Heads: linear maps from features to classes, started from class names or from a linear probe."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .encoder import Backbone, Encoder
from .probe import LinearProbe


class Head(nn.Module):
    """A linear map on unit features. The scale of the logits lives in the weights; nothing multiplies it again."""

    def __init__(self, weight: Float[Tensor, "c d"], bias: Float[Tensor, "c"] | None = None):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.clone())

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Returns logits of raw features; they are normalised here, in training and evaluation alike."""
        return F.linear(F.normalize(features.float(), dim=-1), self.weight, self.bias)


class Classifier(nn.Module):
    """An image tower and a head. Its state dict is what a run saves."""

    def __init__(self, encoder: Encoder, head: Head):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Returns logits."""
        return self.head(self.encoder(images))


def zero_shot_head(backbone: Backbone, class_names: tuple[str, ...], templates: tuple[str, ...]) -> Head:
    """Builds the head that needs no training: class-name embeddings, averaged over prompts, times the logit scale.

    Each prompt's embedding is normalised, the mean over templates is normalised again, and the scale is put into the
    weights once.

    Source:
        open_clip ``build_zero_shot_classifier``; wise-ft src/models/zeroshot.py.
    """
    prompts = [template.format(name) for name in class_names for template in templates]
    embeddings = backbone.encode_text(prompts).view(len(class_names), len(templates), -1)
    return Head(backbone.logit_scale * F.normalize(embeddings.mean(1), dim=-1))


def probe_head(probe: LinearProbe) -> Head:
    """Turns a fitted probe, which works on the same unit features, into a head."""
    return Head(probe.weight, probe.bias)
