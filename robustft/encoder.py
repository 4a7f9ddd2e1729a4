"""One code path for every open_clip model: its image tower with taps, its text tower, its own preprocessing."""

import copy
import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from .types import UserError


class Encoder(nn.Module):
    """An image tower that can also hand out its activations at 0, 1/4, 1/2, 3/4 and 1 of its depth.

    The taps come from the same forward pass as the features, so a regularizer on them costs no second pass.
    """

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Returns raw features: the tower's embedding before normalisation."""
        return self.visual(images)

    def with_taps(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], tuple[Float[Tensor, "n _ _"], ...]]:
        """Returns features and five activations, each as tokens by channels."""
        caught: list[Tensor] = []
        hooks = [module.register_forward_hook(lambda _m, _i, out: caught.append(out)) for module in tap_modules(self.visual)]
        try:
            features = self.visual(images)
        finally:
            for hook in hooks:
                hook.remove()
        return features, tuple(_as_tokens(out) for out in caught)


def tap_modules(visual: Any) -> list[nn.Module]:
    """Returns the five modules whose outputs stand for the tower's depth.

    Transformers give the input of the first block and the outputs after each quarter of the blocks; convolutional
    towers give the stem and the stages.

    Raises:
        UserError: If the tower has neither blocks nor stages that we know.
    """
    trunk = getattr(visual, "trunk", visual)
    if hasattr(visual, "transformer"):
        blocks = visual.transformer.resblocks
        return [visual.ln_pre, *(blocks[max(0, round(len(blocks) * q / 4) - 1)] for q in (1, 2, 3, 4))]
    if hasattr(trunk, "blocks") and hasattr(trunk, "norm_pre"):
        return [trunk.norm_pre, *(trunk.blocks[max(0, round(len(trunk.blocks) * q / 4) - 1)] for q in (1, 2, 3, 4))]
    if hasattr(trunk, "stages"):
        return [trunk.stem, *trunk.stages]
    if hasattr(trunk, "layer4"):
        stem = trunk.avgpool if hasattr(trunk, "act3") else trunk.maxpool
        return [stem, trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
    raise UserError(f"the tower {type(trunk).__name__} has no blocks or stages to tap; choose a method that works on features or weights.")


def _as_tokens(activation: Tensor) -> Float[Tensor, "n t w"]:
    """Views a feature map (n, w, h, w) as tokens; leaves (n, t, w) as it is."""
    return activation.flatten(2).transpose(1, 2) if activation.ndim == 4 else activation


class TextTower(nn.Module):
    """A text tower with its tokenizer and logit scale.

    Args:
        clip: The whole model; what is not the image tower is copied.
        tokenizer: Its own.
    """

    def __init__(self, clip: nn.Module, tokenizer: Callable[[list[str]], Tensor]):
        super().__init__()
        # The memo lets the copy skip the image tower, whatever the model calls its text part.
        self.clip, self.tokenizer = copy.deepcopy(clip, {id(clip.visual): nn.Identity()}), tokenizer

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextTower":
        """Copies the weights; the tokenizer never changes and is shared."""
        return TextTower(self.clip, self.tokenizer)

    def tokenize(self, prompts: Sequence[str]) -> Int[Tensor, "t length"]:
        """Returns the tokens of prompts, on the tower's device."""
        return self.tokenizer(list(prompts)).to(next(self.clip.parameters()).device)

    def forward(self, tokens: Int[Tensor, "t length"]) -> Float[Tensor, "t d"]:
        """Returns unit embeddings."""
        return F.normalize(self.clip.encode_text(tokens), dim=-1)  # type: ignore[operator]

    @property
    def scale(self) -> Float[Tensor, ""]:
        """Multiplier of cosines, at most 100; beyond that the value stops but its gradient still leads back."""
        log_scale: Tensor = self.clip.logit_scale  # type: ignore[assignment]
        return (log_scale + (log_scale.clamp(max=math.log(100)) - log_scale).detach()).exp()


@dataclass(frozen=True)
class Backbone:
    """A foundation model ready for use: frozen, in eval mode, on one device.

    Attributes:
        name: As the registry lists it.
        encoder: The image tower; copy it before training.
        text: The text tower.
        preprocess: RGB bytes of any size to the tower's input, as the checkpoint asks.
        weights_hash: Hash of the image tower's weights and of the preprocessing, for cache keys.
        clip: The whole model, both towers.
        config: Its open_clip config: ``model_cfg`` and ``preprocess_cfg``, as a ``local-dir`` holds it.
    """

    name: str
    encoder: Encoder
    text: TextTower
    preprocess: Callable[[UInt8[Tensor, "n 3 h w"]], Float[Tensor, "n 3 s s"]]
    weights_hash: str
    clip: nn.Module
    config: Mapping[str, Any]


def load_clip(name: str, open_clip_name: str, pretrained: str | None = None) -> Backbone:
    """Loads an open_clip model by its ordinary factory.

    Args:
        name: What we call it.
        open_clip_name: Architecture, or ``local-dir:PATH``.
        pretrained: Tag of the weights; None with ``local-dir:``.

    Raises:
        UserError: If there are no weights: a silently random model is never returned.
    """
    import open_clip

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # the factory logs a line for every file it reads
    try:
        model = open_clip.create_model(open_clip_name, pretrained=pretrained, require_pretrained=True, pretrained_text=False)
    except (RuntimeError, OSError, SafetensorError) as error:
        raise UserError(f"the weights of model {name!r} could not be loaded ({type(error).__name__}); reinstall robustft or choose another model.") from error
    finally:
        logging.getLogger().setLevel(level)
    model.eval().requires_grad_(False)
    text = TextTower(model, open_clip.get_tokenizer(open_clip_name))
    config = {"model_cfg": open_clip.get_model_config(open_clip_name), "preprocess_cfg": open_clip.get_model_preprocess_cfg(model)}
    preprocess = Preprocess(config["preprocess_cfg"])
    digest = f"{hash_weights(model.visual.state_dict())}-{preprocess.key}"
    return Backbone(name, Encoder(model.visual).eval(), text, preprocess, digest, model, config)


class Preprocess:
    """A checkpoint's own preprocessing on a batch of RGB bytes: shortest side to size, centre crop, normalise."""

    def __init__(self, config: Mapping[str, Any]):
        size = config["size"]
        self.size = size if isinstance(size, int) else size[0]
        self.mean, self.std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        self.mode = config.get("interpolation", "bicubic")
        self.key = hashlib.sha256(repr((self.size, config["mean"], config["std"], self.mode)).encode()).hexdigest()[:8]

    def __call__(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 s s"]:
        """Returns the tower's input, on the images' device, channels last in memory: towers read that nearly twice as fast on a CPU."""
        x = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        height, width = x.shape[-2:]
        if (height, width) != (self.size, self.size):
            scale = self.size / min(height, width)
            target = (max(self.size, int(height * scale)), max(self.size, int(width * scale)))
            x = F.interpolate(x, size=target, mode=self.mode, antialias=True).clamp(0, 1)
            top, left = round((target[0] - self.size) / 2), round((target[1] - self.size) / 2)
            x = x[..., top : top + self.size, left : left + self.size]
        return x.sub_(self.mean.to(x.device)).div_(self.std.to(x.device))


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Returns a hash of names and values of a state dict."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if state[key].ndim else repr(state[key].item()).encode())
    return digest.hexdigest()[:16]
