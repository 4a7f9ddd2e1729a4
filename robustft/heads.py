"""Heads: linear maps from features to classes, started from class names, from a linear probe, or made of text anew each time."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .encoder import Encoder, TextTower
from .probe import LinearProbe


class Head(nn.Module):
    """A linear map on unit features. The scale of the logits lives in the weights; nothing multiplies it again."""

    def __init__(self, weight: Float[Tensor, "c d"], bias: Float[Tensor, "c"] | None = None):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(weight.new_zeros(len(weight)) if bias is None else bias.clone())

    def class_weights(self, generator: torch.Generator | None = None) -> Float[Tensor, "c d"]:
        """Returns the row of each class."""
        return self.weight

    def captions(self, labels: Int[Tensor, "n"], generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Returns the row of each label, which is its class's text where the head was started from class names."""
        return self.weight[labels]

    def logits(self, features: Float[Tensor, "n d"], class_weights: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
        """Returns logits of raw features; they are normalised here, in training and evaluation alike."""
        return F.linear(F.normalize(features.float(), dim=-1), class_weights, self.bias)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Returns logits."""
        return self.logits(features, self.class_weights())


def prompt_tokens(text: TextTower, class_names: tuple[str, ...], templates: tuple[str, ...]) -> Int[Tensor, "c t length"]:
    """Returns the tokens of every class name in every template."""
    tokens = text.tokenize([template.format(name) for name in class_names for template in templates])
    return tokens.view(len(class_names), len(templates), -1)


def mean_texts(text: TextTower, tokens: Int[Tensor, "c t length"]) -> Float[Tensor, "c d"]:
    """Returns the unit mean of each class's unit embeddings over its templates, times the logit scale."""
    embeddings = text(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
    return text.scale * F.normalize(embeddings.mean(1), dim=-1)


class TextHead(nn.Module):
    """A head with no weights of its own: the text tower, which trains along, writes the row of each class.

    Source:
        Goyal et al. 2023 (FLYP), arXiv:2212.00638: after training, the zero-shot head is built anew from the tuned text tower.
    """

    tokens: Tensor

    def __init__(self, tower: TextTower, class_names: tuple[str, ...], templates: tuple[str, ...]):
        super().__init__()
        self.tower = copy.deepcopy(tower)
        self.register_buffer("tokens", prompt_tokens(tower, class_names, templates), persistent=False)

    def class_weights(self, generator: torch.Generator | None = None) -> Float[Tensor, "c d"]:
        """Returns the row of each class: the mean over all templates, or with a generator one template drawn for each class."""
        if generator is not None:
            return self._drawn(torch.arange(len(self.tokens)), generator)
        return mean_texts(self.tower, self.tokens)

    def captions(self, labels: Int[Tensor, "n"], generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Returns a text for each label, its template drawn: a unit embedding times the logit scale."""
        return self._drawn(labels, generator)

    def _drawn(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        templates = torch.randint(self.tokens.shape[1], labels.shape, generator=generator)
        return self.tower.scale * self.tower(self.tokens[labels.cpu(), templates])

    def logits(self, features: Float[Tensor, "n d"], class_weights: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
        """Returns logits of raw features."""
        return F.linear(F.normalize(features.float(), dim=-1), class_weights)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Returns logits under all templates."""
        return self.logits(features, self.class_weights())


class Classifier(nn.Module):
    """An image tower and a head. Its state dict is what a run saves."""

    def __init__(self, encoder: Encoder, head: Head | TextHead):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Returns logits."""
        return self.head(self.encoder(images))


@torch.no_grad()
def zero_shot_head(text: TextTower, class_names: tuple[str, ...], templates: tuple[str, ...]) -> Head:
    """Builds the head that needs no training: class-name embeddings, averaged over prompts, times the logit scale.

    Each prompt's embedding is normalised, the mean over templates is normalised again, and the scale is put into the
    weights once.

    Source:
        open_clip ``build_zero_shot_classifier``; wise-ft src/models/zeroshot.py.
    """
    return Head(mean_texts(text, prompt_tokens(text, class_names, templates)))


def probe_head(probe: LinearProbe) -> Head:
    """Turns a fitted probe, which works on the same unit features, into a head."""
    return Head(probe.weight, probe.bias)


@torch.no_grad()
def plain_head(head: Head | TextHead) -> Head:
    """Returns a head as a matrix of weights, whatever wrote them."""
    return Head(head.class_weights(), head.bias if isinstance(head, Head) else None)
