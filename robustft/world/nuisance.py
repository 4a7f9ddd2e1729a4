"""Nuisance: what differs between two photographs of one thing, here in one seeded draw for a whole batch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

IMAGE_SIZE = 64


def perturb(glyphs: UInt8[Tensor, "n 4 s s"], generator: torch.Generator, strength: float = 1.0) -> UInt8[Tensor, "n 3 64 64"]:
    """Sets each glyph turned, scaled and shifted on a soft ground, partly hidden, under light noise.

    Args:
        glyphs: RGBA pictures with a transparent ground.
        generator: Source of every draw: the same state gives the same samples.
        strength: 0 gives the plain glyph on white; GlyphCLIP is trained up to 1, and above 1.5 people begin to fail.

    Returns:
        RGB samples of 64 x 64 pixels.
    """
    draw = _Draw(len(glyphs), generator)
    rgba = F.grid_sample(glyphs.float() / 255, _placement(draw, strength), align_corners=False, padding_mode="zeros")
    alpha = rgba[:, 3:]
    ground = 1 - strength * (1 - _soft_ground(draw))
    image = rgba[:, :3] * alpha + ground * (1 - alpha)
    image = _hide_a_part(image, ground, draw, strength)
    # Contrast and brightness of a camera, then its noise.
    image = (image - 0.5) * draw.between(1 - 0.45 * strength, 1.0) + 0.5 + draw.between(-0.1 * strength, 0.1 * strength)
    image = image + draw.between(0, 0.10 * strength) * torch.randn(image.shape, generator=generator)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


class _Draw:
    """One uniform number a sample, shaped to broadcast over its pixels."""

    def __init__(self, n: int, generator: torch.Generator):
        self.n, self.generator = n, generator

    def between(self, low: float, high: float, channels: int = 1) -> Float[Tensor, "n c 1 1"]:
        return low + (high - low) * torch.rand(self.n, channels, 1, 1, generator=self.generator)


def _placement(draw: _Draw, strength: float) -> Float[Tensor, "n 64 64 2"]:
    """Returns the sampling grid of a small rotation, zoom, stretch and shift."""
    angle = (draw.between(-0.55, 0.55) * strength).flatten()
    zoom = 1.12 + draw.between(-0.06, 0.75).flatten() * strength
    stretch = 1 + draw.between(-0.18, 0.18).flatten() * strength
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([torch.stack([cos * zoom * stretch, -sin * zoom], -1), torch.stack([sin * zoom, cos * zoom / stretch], -1)], 1)
    shift = torch.cat([draw.between(-0.3, 0.3), draw.between(-0.3, 0.3)], 1).flatten(1)[..., None] * strength
    return F.affine_grid(torch.cat([turn, shift], -1), [draw.n, 4, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)


def _soft_ground(draw: _Draw) -> Float[Tensor, "n 3 64 64"]:
    """Returns light grounds: four corner colours, blended."""
    corners = 0.45 + 0.55 * torch.rand(draw.n, 3, 2, 2, generator=draw.generator)
    return F.interpolate(corners, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=True)


def _hide_a_part(image: Tensor, ground: Tensor, draw: _Draw, strength: float) -> Tensor:
    """Covers a random disc with the ground's mean colour, as an object in front would."""
    axis = torch.linspace(-1, 1, IMAGE_SIZE)
    x, y = axis.view(1, 1, 1, -1), axis.view(1, 1, -1, 1)
    distance = ((x - draw.between(-0.9, 0.9)) ** 2 + (y - draw.between(-0.9, 0.9)) ** 2).sqrt()
    cover = (distance < draw.between(0, 0.48) * strength).float()
    return image * (1 - cover) + ground.mean((2, 3), keepdim=True) * cover
