"""Speed and memory, as ratios within one run: machines are noisy, so every pair is timed side by side."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .configs import make_config
from .methods import find_method
from .run import load_backbone, make_trainer, starting_classifier
from .sources import get_dataset
from .train import Trainer

PAIRS = 7


def run_bench(root: Path) -> list[dict[str, Any]]:
    """Times a step of each regularizer against plain fine-tuning with the same sampler, and the loop against bare passes.

    Returns:
        Rows of name, ratio (median of paired ratios), seconds of both, and the number of pairs.
    """
    backbone = load_backbone("glyphclip", torch.device("cpu"))

    def trainer(method: str, sampler: str = "uniform") -> Trainer:
        config = make_config("glyphclip", "food", method, options={"steps": 1000, "sampler": sampler})
        return make_trainer(starting_classifier(backbone, find_method(method), config, root), backbone, config, root)

    plain = {sampler: trainer("ft", sampler) for sampler in ("uniform", "class_balanced")}
    rows = [_paired("pipeline against bare forward and backward", _stepper(plain["uniform"]), _bare(plain["uniform"]))]
    for method, sampler in (("l2_sp", "uniform"), ("ldifs", "uniform"), ("fda", "class_balanced")):
        rows.append(_paired(f"{method} step against ft", _stepper(trainer(method, sampler)), _stepper(plain[sampler])))
    begin = time.perf_counter()
    for split in ("train", "val", "test"):
        get_dataset("food", "color", split, root)
    rows.append({"name": "food, three splits from the cache", "seconds": time.perf_counter() - begin, "pairs": 1})
    return rows


def _stepper(trainer: Trainer) -> Callable[[], None]:
    steps = trainer.steps()
    return lambda: (next(steps), None)[1]


def _bare(trainer: Trainer) -> Callable[[], None]:
    """Forward and backward on one fixed batch, with no data, optimizer or clipping."""
    model = trainer.state.classifier
    images, labels = trainer.data.preprocess(trainer.data.images[:64]), trainer.data.labels[:64]
    return lambda: F.cross_entropy(model(images), labels).backward()


def _paired(name: str, first: Callable[[], None], second: Callable[[], None]) -> dict[str, Any]:
    """Times two actions in turn; the first pair warms up and does not count."""
    pairs = [(_timed(first), _timed(second)) for _ in range(PAIRS + 1)][1:]
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return {"name": name, "ratio": statistics.median(a / b for a, b in pairs), "seconds": medians[0], "against": medians[1], "pairs": PAIRS}


def _timed(action: Callable[[], None]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def as_text(rows: list[dict[str, Any]]) -> str:
    """Returns the rows for a terminal."""
    ratios = [f"{row['ratio']:6.2f}x" if "ratio" in row else f"{'':7}" for row in rows]
    return "\n".join(f"{row['name']:46} {ratio}  {row['seconds'] * 1000:8.1f} ms  n={row['pairs']}" for row, ratio in zip(rows, ratios, strict=True))
