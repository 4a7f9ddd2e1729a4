"""Which images a step sees. A batch is a function of seed and step alone, so a resumed run draws the same ones."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .seeds import seed_of

Sampler = Callable[[int], Int[Tensor, "b"]]


def make_sampler(name: str, labels: Int[Tensor, "n"], batch_size: int, seed: int) -> Sampler:
    """Returns a function from step (counted from 0) to the rows of its batch.

    Args:
        name: ``uniform`` or ``class_balanced``.
        labels: Class of each training image.
        batch_size: Images a batch; fewer if there are fewer images.
        seed: Source of every draw.
    """
    samplers = {"uniform": _uniform, "class_balanced": _class_balanced}
    return samplers[name](np.asarray(labels), batch_size, seed)


def _uniform(labels: np.ndarray, batch_size: int, seed: int) -> Sampler:
    """Every image once an epoch in a fresh order; the tail that fills no batch is dropped."""
    size = min(batch_size, len(labels))
    per_epoch = len(labels) // size

    def rows(step: int) -> Tensor:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng(seed_of("uniform", seed, epoch)).permutation(len(labels))
        return torch.from_numpy(order[place * size : (place + 1) * size])

    return rows


def _class_balanced(labels: np.ndarray, batch_size: int, seed: int, per_class: int = 4) -> Sampler:
    """Equal shares of several classes a batch: 16 x 4 at 64; with fewer classes, all of them and more of each.

    The classes of successive batches run through a shuffled list, so that each is served once before any is twice.
    A class with fewer images than its share gives some of them more than once.
    """
    pools = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    n_classes = max(1, min(len(pools), batch_size // per_class))
    share = max(1, batch_size // n_classes)

    def rows(step: int) -> Tensor:
        rng = np.random.default_rng(seed_of("balanced", seed, step))
        # The last batch of a pass is filled up from the pass's own beginning, so that no batch holds a class twice.
        turn, place = divmod(step, -(-len(pools) // n_classes))
        order = np.random.default_rng(seed_of("classes", seed, turn)).permutation(len(pools))
        picked = [pools[order[(place * n_classes + k) % len(pools)]] for k in range(n_classes)]
        return torch.from_numpy(np.concatenate([rng.choice(pool, share, replace=len(pool) < share) for pool in picked]))

    return rows


def random_crop(images: Float[Tensor, "n c h w"], generator: torch.Generator, smallest: float = 0.9) -> Float[Tensor, "n c h w"]:
    """Crops each image to a random part of at least ``smallest`` of its area and scales it back.

    Source:
        RandomResizedCrop(scale=(0.9, 1)), the augmentation of LDIFS, WiSE-FT and FLYP, here for a whole batch at once.
    """
    side = (smallest + (1 - smallest) * torch.rand(len(images), generator=generator)).sqrt()
    shift = (2 * torch.rand(len(images), 2, generator=generator) - 1) * (1 - side[:, None])
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
