"""Finished runs of made-up numbers, one large and many small, to time how fast pages read them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import store
from .configs import make_config
from .feature_cache import write_features, write_graph
from .files import write_arrays, write_json
from .graph import STORED_NEIGHBORS, knn_graph, unit_rows
from .maps import arrays_of, pca_pair
from .neighborhoods import get_neighborhood, measured_tasks
from .pipeline import get_details, get_history, get_run, get_wise
from .reports import drift_table, task_table
from .sources import VIEWS, features_key, keep_dataset
from .types import Dataset, Score, StepRecord

METRICS = ("zs_accuracy_0", "zs_accuracy", "delta_zs", "error_zs", "lp_accuracy_0", "lp_accuracy", "delta_lp", "error_lp", "noise_lp")
DRIFTS = ("drift_otdd", "drift_l2", "drift_cka", "drift_neighbors_lost", "drift_ldifs", "overlap_floor")


def write_large_run(root: Path, values: np.ndarray, labels: np.ndarray) -> str:
    """Stores a finished run on food with all held-out tasks, whose test samples have the given features before; returns its name."""
    config = make_config("glyphclip", "food", "ft", options={"steps": 200})
    run_id, draw = store.begin_run(config, root), np.random.default_rng(0)
    images = torch.randint(0, 256, (len(labels), 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Dataset("food", "color", "test", images, torch.from_numpy(labels), tuple(f"class {k}" for k in range(labels.max() + 1)), ("{}",), "bench")
    keep_dataset(data, root)
    after = unit_rows(values + 0.02 * draw.normal(size=values.shape)).astype(np.float32)
    for key, features in (("before", values), ("after", after)):
        write_features(features_key(key, data), features, root)
        write_graph(features_key(key, data), knn_graph(features, STORED_NEIGHBORS), root)
    for view in VIEWS:
        write_graph(features_key("before", data, view), knn_graph(values, STORED_NEIGHBORS), root)
    folder = store.run_folder(run_id, root)
    write_arrays(folder / "maps" / "food-color-umap.safetensors", *arrays_of(pca_pair(values, after)))
    write_json(folder / "encoders.json", {"before": "before", "after": "after"})
    _write_answers(folder / "answers" / "food-color.safetensors", labels, draw)
    curve = _curve(config.held_out)
    for row in curve[1:-1]:
        _write_moment(row, values, after, data, root)
    write_json(folder / "wise.json", curve)
    store.append_history(run_id, [StepRecord(step, 1.0, 1.0, 0.0, 1e-3, 1.0, 0.1) for step in range(1, 201)], root)
    places = [(task, domain) for task, domains in measured_tasks(config).items() for domain in domains]
    scores = [Score(*place, metric, float(draw.random()), len(labels)) for place in places for metric in (*METRICS, *DRIFTS)]
    store.finish_run(config, scores, root=root)
    return run_id


def _write_moment(row: dict[str, Any], values: np.ndarray, after: np.ndarray, data: Dataset, root: Path) -> None:
    """Stores features and graph of a place on the curve, and what they are stored under with the place."""
    row |= {"weights": f"alpha {row['alpha']:g}", "kept": 1 - row["alpha"] / 2}
    between = unit_rows((1 - row["alpha"]) * values + row["alpha"] * after).astype(np.float32)
    key = features_key(row["weights"], data)
    write_features(key, between, root)
    write_graph(key, knn_graph(between, STORED_NEIGHBORS), root)


def _write_answers(path: Path, labels: np.ndarray, draw: np.random.Generator) -> None:
    """Stores made-up answers, three in four of them right."""
    arrays = {side: np.where(draw.random(len(labels)) < 0.75, labels, 0).astype(np.int32) for side in ("before", "after")}
    write_arrays(path, arrays | {f"confidence_{side}": draw.random(len(labels)).astype(np.float32) for side in ("before", "after")})


def _curve(held_out: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a made-up WiSE-FT curve."""
    rows: list[dict[str, Any]] = []
    for step in range(11):
        alpha = step / 10
        changes = {task: -alpha * (index + 1) / 100 for index, task in enumerate(held_out)}
        accuracies = {"id_accuracy": 0.8 + alpha / 10, "ood_accuracy": 0.8 - alpha / 10, "val_accuracy": 0.8 + alpha / 10}
        rows.append({"alpha": alpha, **accuracies, "mean_delta_zs": float(np.mean(list(changes.values()))), "changes": changes})
    return rows


def write_many_runs(root: Path, count: int) -> list[str]:
    """Stores finished runs with all the scores of real ones, and one that has only begun, the first; returns their names."""
    config = make_config("glyphclip", "food", "ft", options={"steps": 200})
    draw = np.random.default_rng(1)
    places = [(task, domain) for task, domains in measured_tasks(config).items() for domain in domains]
    names = [store.begin_run(replace(config, seed=10_000), root)]
    for seed in range(1, count):
        scores = [Score(*place, metric, float(draw.random()), 384) for place in places for metric in (*METRICS, *DRIFTS)]
        names.append(store.finish_run(replace(config, seed=seed), scores, root=root).run_id)
    return names


def read_everything(run_id: str, root: Path) -> None:
    """Reads of a finished run all that pages show."""
    view = get_run(run_id, root)
    get_history(run_id, root), get_wise(run_id, root), get_details(run_id, root)
    task_table(view.record), drift_table(view.record)
    get_neighborhood(run_id, "food", "color", 10, root)
