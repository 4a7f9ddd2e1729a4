"""Images to features: batched, without gradients, in full precision."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .types import Dataset, Features

BATCH_SIZE = {"cpu": 128, "cuda": 512}
"""Images in memory at a time: on a CPU larger activations miss its caches, on a GPU smaller ones leave it idle."""
Progress = Callable[[int, int], None]


@torch.inference_mode()
def extract(
    encoder: Encoder, preprocess: Callable[[Tensor], Tensor], dataset: Dataset, *, batch_size: int | None = None, progress: Progress | None = None
) -> Features:
    """Returns the raw features of every image of a dataset split, in its order.

    Full precision on purpose: half precision moves cosines by 4e-3 and swaps near-tied neighbours.

    Args:
        encoder: The image tower; put in eval mode for the pass.
        preprocess: The checkpoint's own preprocessing.
        dataset: What to encode.
        batch_size: Images in memory at a time; None suits the device.
        progress: Called with images done and images in all, after every batch.
    """
    images, values, done = torch.as_tensor(dataset.images), None, 0
    for inputs in _batches(encoder, preprocess, images, batch_size):
        part = encoder(inputs).float().cpu().numpy()
        # Filled in place: a list of parts would hold everything twice at its end.
        values = np.empty((len(images), part.shape[1]), np.float32) if values is None else values
        values[done : done + len(part)] = part
        done += len(part)
        if progress is not None:
            progress(done, len(images))
    assert values is not None
    return Features(values, np.asarray(dataset.labels))


@torch.inference_mode()
def extract_taps(
    encoders: tuple[Encoder, Encoder], preprocess: Callable[[Tensor], Tensor], images: Tensor
) -> Iterator[tuple[int, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Yields size and activations of two towers on the same images, batch by batch: whole sets of them would fill the memory."""
    for inputs in _batches(encoders[0], preprocess, images, None):
        yield len(inputs), encoders[0].with_taps(inputs)[1], encoders[1].with_taps(inputs)[1]


def _batches(encoder: Encoder, preprocess: Callable[[Tensor], Tensor], images: Tensor, batch_size: int | None) -> Iterator[Tensor]:
    """Yields the tower's input, batch by batch, with the tower in eval mode meanwhile."""
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # by default convolutions round to 10 bits there
    try:
        for chunk in images.split(batch_size or BATCH_SIZE.get(device.type, 256)):
            yield preprocess(chunk.to(device))
    finally:
        encoder.train(was_training)
