"""Which images a step sees. A batch is a function of seed and step alone, so a resumed run draws the same ones."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .seeds import seed_of
from .types import UserError

IMAGES_A_CLASS = 4
"""Images that each class of a batch has at least, but for tasks with few classes or tiny batches."""
TEMPERATURE = 0.1
"""Of class similarities in `hard_classes`."""
Sampler = Callable[[int], Int[Tensor, "b"]]


def make_sampler(name: str, labels: Int[Tensor, "n"], batch_size: int, seed: int, similarities: Float[np.ndarray, "c c"] | None = None) -> Sampler:
    """Returns a function from step (counted from 0) to the rows of its batch.

    Args:
        name: ``uniform``, ``class_balanced`` or ``hard_classes``.
        labels: Class of each training image.
        batch_size: Images a batch; fewer if there are fewer images.
        seed: Source of every draw.
        similarities: Of the classes, for ``hard_classes``; see `class_similarities`.

    Raises:
        UserError: If the sampler needs several classes, or several images of each, and the task has not.
    """
    classes = np.asarray(labels)
    if name == "uniform":
        return _uniform(classes, batch_size, seed)
    _check_classes(name, classes)
    assert name == "class_balanced" or similarities is not None
    return _by_classes(classes, batch_size, seed, similarities if name == "hard_classes" else None)


def _check_classes(name: str, labels: np.ndarray) -> None:
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise UserError(f"the sampler {name} needs at least two classes and the training images have one; use sampler=uniform, or add images of another class.")
    if counts.min() < 2:
        lonely = present[counts.argmin()]
        raise UserError(f"class {lonely} has one training image and the sampler {name} needs two a class; add images of it, or use sampler=uniform.")


def _uniform(labels: np.ndarray, batch_size: int, seed: int) -> Sampler:
    """Every image once an epoch in a fresh order; the tail that fills no batch is dropped."""
    size = min(batch_size, len(labels))
    per_epoch = len(labels) // size

    def rows(step: int) -> Tensor:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng(seed_of("uniform", seed, epoch)).permutation(len(labels))
        return torch.from_numpy(order[place * size : (place + 1) * size])

    return rows


def _by_classes(labels: np.ndarray, batch_size: int, seed: int, similarities: np.ndarray | None) -> Sampler:
    """Equal shares of several classes a batch: 16 x 4 at 64; with fewer classes, all of them and more of each.

    A class with fewer images than its share gives some of them more than once. Which classes meet in a batch: those that
    a shuffled list brings together, or with similarities those that look alike at the start.
    """
    pools = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    n_classes = min(len(pools), max(2, batch_size // IMAGES_A_CLASS))
    share = max(1, batch_size // n_classes)
    per_pass = -(-len(pools) // n_classes) if similarities is None else max(-(-len(labels) // batch_size), -(-len(pools) // n_classes))

    @lru_cache(maxsize=2)
    def plan(turn: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed_of("classes", seed, turn))
        return _shuffled_classes(len(pools), n_classes, rng) if similarities is None else hard_classes(similarities, n_classes, per_pass, rng)

    def rows(step: int) -> Tensor:
        rng = np.random.default_rng(seed_of("balanced", seed, step))
        turn, place = divmod(step, per_pass)
        return torch.from_numpy(np.concatenate([rng.choice(pools[k], share, replace=len(pools[k]) < share) for k in plan(turn)[place]]))

    return rows


def _shuffled_classes(count: int, n_classes: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The classes of each batch of a pass: each is served once before any is twice."""
    order = rng.permutation(count)
    # The last batch of a pass is filled up from the pass's own beginning, so that no batch holds a class twice.
    return [order[(begin + np.arange(n_classes)) % count] for begin in range(0, count, n_classes)]


def class_similarities(features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> Float[np.ndarray, "c c"]:
    """Returns the cosines between the classes' mean unit features, in the order of the labels that occur."""
    unit = F.normalize(features.float(), dim=-1)
    means = F.normalize(torch.stack([unit[labels == label].mean(0) for label in labels.unique()]), dim=-1)
    return (means @ means.T).numpy()


def hard_classes(similarities: Float[np.ndarray, "c c"], n_classes: int, n_batches: int, rng: np.random.Generator) -> list[Int[np.ndarray, "m"]]:
    """Draws the classes of each batch of a pass: one that was not served yet, and others that look like it.

    The others come without replacement with probabilities softmax(similarity / 0.1): always taking the nearest would serve
    some classes in the same company for ever and starve the rest. Each class is served at least once a pass.

    Args:
        similarities: Cosines of the classes at the start.
        n_classes: Classes a batch, at most all of them.
        n_batches: Batches a pass; together they have room for every class.
        rng: Source of the draws.

    Source:
        Proxy-FDA, arXiv:2505.24088: hard class mining, no algorithm published; this one is ours.
    """
    unserved, batches = set(range(len(similarities))), []
    for left in range(n_batches - 1, -1, -1):
        first = int(rng.choice(sorted(unserved) or len(similarities)))
        weight = np.exp((similarities[first] - similarities[first].max()) / TEMPERATURE)
        weight[first] = 0
        # Where the batches that are left have no room for all the unserved, this one takes its part of them first.
        due = max(0, len(unserved - {first}) - left * n_classes)
        forced = _drawn(weight, sorted(unserved - {first}), due, rng)
        others = _drawn(weight, sorted(set(range(len(similarities))) - {first, *forced}), n_classes - 1 - len(forced), rng)
        batches.append(np.array([first, *forced, *others]))
        unserved -= set(batches[-1].tolist())
    return batches


def _drawn(weight: np.ndarray, among: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Draws some classes without replacement, with probabilities in proportion to their weight."""
    if count <= 0:
        return []
    share = weight[among] + 1e-12
    return [int(k) for k in rng.choice(among, count, replace=False, p=share / share.sum())]


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
