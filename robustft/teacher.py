"""What the frozen start says of the images that the student sees."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .heads import Classifier
from .types import TrainData, UserError

CACHED_BYTES = 2 * 2**30
CHUNK = 256


class Taught(NamedTuple):
    """Features, logits and taps of some images at the start."""

    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]
    taps: tuple[Float[Tensor, "n _ _"], ...]


@dataclass(frozen=True)
class Teacher:
    """The starting encoder with the zero-shot head, asked on the student's own view or once for each image's centre crop.

    Attributes:
        model: Frozen; its head is the zero-shot one, whatever head the student starts from.
        with_taps: Whether activations are asked for too.
        cached: Answers for every training image, or None.
    """

    model: Classifier
    with_taps: bool = False
    cached: Taught | None = None

    @torch.no_grad()
    def __call__(self, rows: Tensor, images: Tensor) -> Taught:
        """Returns what the start says of a batch: training rows and their augmented images."""
        if self.cached is None:
            return self.ask(images)
        features, logits, taps = self.cached
        there = images.device
        return Taught(features[rows].to(there), logits[rows].to(there), tuple(tap[rows].to(there) for tap in taps))

    @torch.no_grad()
    def ask(self, images: Tensor) -> Taught:
        """Runs the start. Half precision in the tower only, and on GPUs only: heads and losses need the digits."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
            features, taps = self.model.encoder.with_taps(images) if self.with_taps else (self.model.encoder(images), ())
        return Taught(features.float(), self.model.head(features), taps)

    def remembering(self, data: TrainData, device: torch.device) -> "Teacher":
        """Returns a teacher that knows its answers for every training image, not augmented.

        Raises:
            UserError: If the activations of all images would take too much memory.
        """
        parts: list[Taught] = []
        for rows in torch.arange(len(data.labels)).split(CHUNK):
            features, logits, taps = self.ask(data.inputs(rows, device))
            parts.append(Taught(features.cpu(), logits.cpu(), tuple(tap.cpu() for tap in taps)))
            needed = sum(tap[0].numel() * tap.element_size() for tap in taps) * len(data.labels)
            if needed > CACHED_BYTES:
                raise UserError(
                    f"teacher_cache = 'center_crop' would hold {needed / 2**30:.1f} GB of activations; give none: the start is then asked each step."
                )
        all_taps = tuple(torch.cat(column) for column in zip(*(part.taps for part in parts), strict=True))
        return Teacher(self.model, self.with_taps, Taught(torch.cat([p.features for p in parts]), torch.cat([p.logits for p in parts]), all_taps))
