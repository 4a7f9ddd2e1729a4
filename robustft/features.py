"""Images to features: batched, without gradients, in full precision."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .encoder import Encoder
from .types import Dataset, Features


@torch.no_grad()
def extract(encoder: Encoder, preprocess: Callable[[Tensor], Tensor], dataset: Dataset, *, batch_size: int = 256) -> Features:
    """Returns the raw features of every image of a dataset split, in its order.

    Full precision on purpose: half precision moves cosines by 4e-3 and swaps near-tied neighbours.

    Args:
        encoder: The image tower; put in eval mode for the pass.
        preprocess: The checkpoint's own preprocessing.
        dataset: What to encode.
        batch_size: Images in memory at a time.
    """
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    images = torch.as_tensor(dataset.images)
    parts = [encoder(preprocess(chunk.to(device))).float().cpu().numpy() for chunk in images.split(batch_size)]
    encoder.train(was_training)
    return Features(np.concatenate(parts), np.asarray(dataset.labels))
