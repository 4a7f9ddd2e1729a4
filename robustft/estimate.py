"""What a run will cost, measured on a few of its own steps."""

import statistics
import time
from dataclasses import replace
from pathlib import Path

from .analysis import tasks_of
from .curve import ALPHAS
from .devices import peak_memory, resolve_device
from .encoder import Backbone
from .features import extract
from .methods import find_method, train_config
from .run import load_backbone, make_trainer, starting_classifier
from .sources import get_dataset
from .types import RunConfig

MEASURED_STEPS = 5
STARTUP_SECONDS = 8.0


def estimate(config: RunConfig, root: Path) -> dict[str, float]:
    """Times a few steps and one pass of a config and returns what the whole run will take.

    Args:
        config: The run.
        root: Cache folder, for datasets.

    Returns:
        ``step_seconds`` (0 without training), ``train_seconds``, ``measure_seconds``, ``seconds`` in all, ``memory_mb`` at
        the peak and ``disk_mb`` that stay.
    """
    device = resolve_device(config.device)
    backbone = load_backbone(config.model, device)
    method = find_method(config.method)
    step_seconds = 0.0
    if method.trains != "none":
        quick = replace(config, options={**config.options, "head_start": "zero_shot"})
        trainer = make_trainer(starting_classifier(backbone, method, quick, root), backbone, quick, root)
        times = [record.seconds for _, record in zip(range(MEASURED_STEPS), trainer.steps(), strict=False)]
        step_seconds = statistics.median(times[1:] or times)
    steps = train_config(config.options).steps if config.options else 0
    measure_seconds = _measuring_seconds(config, backbone, root)
    weights_mb = sum(p.numel() for p in backbone.encoder.parameters()) * 4 / 2**20
    peak = peak_memory(device)
    train_seconds = step_seconds * steps
    return {
        "step_seconds": step_seconds,
        "train_seconds": train_seconds,
        "measure_seconds": measure_seconds,
        "seconds": STARTUP_SECONDS + train_seconds + measure_seconds,
        "memory_mb": peak,
        "disk_mb": weights_mb + 12,
    }


def _measuring_seconds(config: RunConfig, backbone: Backbone, root: Path) -> float:
    """Times one pass over a test split and scales it to every pass that measuring makes."""
    data = get_dataset(config.dataset, next(iter(tasks_of(config)))[1], "test", root)
    extract(backbone.encoder, backbone.preprocess, data)
    begin = time.perf_counter()
    extract(backbone.encoder, backbone.preprocess, data)
    one_pass = time.perf_counter() - begin
    # Of each domain of each task: train and test split, three times the test split, then activations, then the test split at each inner alpha.
    has_curve = config.curve and find_method(config.method).trains != "none"
    passes = len(list(tasks_of(config))) * (3.7 + (len(ALPHAS) - 2 if has_curve else 0))
    return one_pass * passes + 0.4 * len(list(tasks_of(config)))
