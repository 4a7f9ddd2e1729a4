"""Speed and memory, as ratios within one run: machines are noisy, so every pair is timed side by side."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .bench_measures import measure_rows
from .configs import make_config
from .devices import peak_memory, resolve_device
from .methods import find_method
from .run import load_backbone, make_trainer, starting_classifier
from .sources import get_dataset
from .train import Trainer
from .types import RunConfig

PAIRS = 7
BATCH_SIZE = 64
STEPS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "l2_sp": ("l2_sp", {"sampler": "uniform"}),
    "kd": ("kd", {"sampler": "uniform"}),
    "ldifs, teacher online": ("ldifs", {"sampler": "uniform"}),
    "ldifs, teacher cached": ("ldifs", {"sampler": "uniform", "teacher_cache": "center_crop"}),
    "fda, teacher online": ("fda", {"sampler": "class_balanced"}),
    "fda, teacher cached": ("fda", {"sampler": "class_balanced", "teacher_cache": "center_crop"}),
    "proxy_fda, teacher online": ("proxy_fda", {"sampler": "class_balanced", "proxy_start": 0}),
    "proxy_fda, teacher cached": ("proxy_fda", {"sampler": "class_balanced", "proxy_start": 0, "teacher_cache": "center_crop"}),
    "lora": ("lora", {"sampler": "uniform"}),
    "flyp": ("flyp", {"sampler": "uniform"}),
    "clipood": ("clipood", {"sampler": "uniform"}),
}
"""What is timed against plain fine-tuning with the same sampler."""


def run_bench(root: Path, only: str | None = None, report: Callable[[dict[str, Any]], None] = lambda row: None) -> list[dict[str, Any]]:
    """Times the steps of training and what is measured after it.

    Args:
        root: Cache folder, for the bundled data.
        only: ``steps`` or ``measures``; None is both.
        report: Receives each row of the measures as soon as it is there.

    Returns:
        Rows of name, ratio (median of paired ratios), seconds of both, the number of pairs, and the peak memory of a fresh
        process where it was measured.
    """
    rows = step_rows(root) if only != "measures" else []
    for row in measure_rows(root) if only != "steps" else ():
        report(row)
        rows.append(row)
    return rows


def step_rows(root: Path, device: str = "auto") -> list[dict[str, Any]]:
    """Times a step of the methods against plain fine-tuning with the same sampler, and the loop against bare passes."""
    configs = {name: bench_config(method, options, device) for name, (method, options) in STEPS.items()}
    plain = {sampler: bench_config("ft", {"sampler": sampler}, device) for sampler in ("uniform", "class_balanced")}
    trainers = {sampler: trainer_of(config, root) for sampler, config in plain.items()}
    rows = [_paired("pipeline against bare forward and backward", _stepper(trainers["uniform"]), _bare(trainers["uniform"]))]
    rows[0]["peak_mb"] = peak_of(plain["uniform"], root)
    for name, config in configs.items():
        row = _paired(f"{name}, against ft", _stepper(trainer_of(config, root)), _stepper(trainers[config.options["sampler"]]))
        rows.append(row | {"peak_mb": peak_of(config, root)})
    begin = time.perf_counter()
    for split in ("train", "val", "test"):
        get_dataset("food", "color", split, root)
    return [*rows, {"name": "food, three splits from the cache", "seconds": time.perf_counter() - begin, "pairs": 1}]


def bench_config(method: str, options: Mapping[str, Any], device: str) -> RunConfig:
    """Returns a config on the bundled model and task, long enough that its schedule plays no part."""
    return make_config("glyphclip", "food", method, device=device, options={"steps": 1000, "batch_size": BATCH_SIZE, **options})


def trainer_of(config: RunConfig, root: Path) -> Trainer:
    """Returns a trainer ready for its first step."""
    backbone = load_backbone(config.model, resolve_device(config.device))
    return make_trainer(starting_classifier(backbone, find_method(config.method), config, root), backbone, config, root)


def peak_of(config: RunConfig, root: Path) -> float:
    """Returns the peak memory in MB of a fresh process that takes five steps: of the GPU if it uses one, else resident."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_steps, (config, root))


def _peak_of_steps(config: RunConfig, root: Path) -> float:
    trainer = trainer_of(config, root)
    for _, _ in zip(range(5), trainer.steps(), strict=False):
        pass
    return peak_memory(trainer.device)


def _stepper(trainer: Trainer) -> Callable[[], None]:
    steps = trainer.steps()
    return lambda: (next(steps), None)[1]


def _bare(trainer: Trainer) -> Callable[[], None]:
    """Forward and backward on the run's own batches, drawn before, with no optimizer, clipping or record."""
    model = trainer.state.classifier
    batches = [trainer.sampler(step) for step in range(PAIRS + 1)]
    ready = iter([(trainer.data.inputs(rows, trainer.device), trainer.data.labels[rows].to(trainer.device)) for rows in batches])

    def bare() -> None:
        images, labels = next(ready)
        model.zero_grad(set_to_none=True)
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.device.type == "cuda"):
            features = model.encoder(images)
        F.cross_entropy(model.head(features), labels).backward()

    return bare


def _paired(name: str, first: Callable[[], None], second: Callable[[], None]) -> dict[str, Any]:
    """Times two actions in turn; the first pair warms up and does not count."""
    pairs = [(_timed(first), _timed(second)) for _ in range(PAIRS + 1)][1:]
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return {"name": name, "ratio": statistics.median(a / b for a, b in pairs), "seconds": medians[0], "against": medians[1], "pairs": PAIRS}


def _timed(action: Callable[[], None]) -> float:
    _wait()
    begin = time.perf_counter()
    action()
    _wait()
    return time.perf_counter() - begin


def _wait() -> None:
    """Lets a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def as_text(rows: list[dict[str, Any]]) -> str:
    """Returns the rows for a terminal."""

    def line(row: dict[str, Any]) -> str:
        ratio = f"{row['ratio']:6.2f}x" if "ratio" in row else f"{'':7}"
        seconds = f"{row['seconds'] * 1000:8.1f} ms" if "seconds" in row else f"{'':11}"
        peak = f"{row['peak_mb']:7.0f} MB" if "peak_mb" in row else ""
        peak += f"{100 * row['share']:7.1f} %" if "share" in row else ""
        if "most" in row:
            is_held = row.get("seconds", row.get("share")) <= row["most"]
            peak += f"  at most {row['most']:g}{' s' if 'seconds' in row else ''}: {'held' if is_held else 'MISSED'}"
        return f"{row['name']:78} {ratio}  {seconds}  n={row['pairs']}  {peak}{row.get('note', '')}".rstrip()

    return "\n".join(map(line, rows))
