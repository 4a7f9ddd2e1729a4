"""Finished runs with made-up scores, for whatever shows several of them."""

from pathlib import Path

from robustft import store
from robustft.files import read_json, write_json
from robustft.types import RunConfig, Score, StepRecord

HELD_OUT = ("animals", "digits")


def finish_made_up(
    root: Path,
    method: str,
    *,
    seed: int = 0,
    change: float = -0.1,
    error: float = 0.005,
    task: str = "food",
    options: dict | None = None,
    moments: bool = False,
) -> str:
    """Stores a finished run and returns its name.

    Args:
        root: Cache folder.
        method: Its method.
        seed: Its seed; each lifts OOD accuracy by a point.
        change: Of zero-shot and linear-probe accuracy on both held-out tasks.
        error: Standard error of each change over test images.
        task: What it was fine-tuned on.
        options: Its settings.
        moments: Whether it kept features at step 1 and at alpha 0.5.
    """
    config = RunConfig("glyphclip", task, method, seed, options=options or {"lr": 1e-3, "steps": 2}, held_out=HELD_OUT)
    scores = [Score(task, "color", name, value, 384) for name, value in (("id_accuracy", 0.9), ("lp_id_accuracy", 0.8), ("id_ece", 0.04))]
    scores += [Score(task, "line", "ood_accuracy", 0.6 + seed / 100, 384), Score(task, "color", "drift_neighbors_lost", 0.3, 384)]
    for other in HELD_OUT:
        for kind in ("zs", "lp"):
            made = {f"{kind}_accuracy_0": 0.6, f"{kind}_accuracy": 0.6 + change, f"delta_{kind}": change, f"error_{kind}": error if change else 0.0}
            scores += [Score(other, "color", metric, value, 384) for metric, value in made.items()]
        scores += [Score(other, "color", "drift_l2", -change, 384), Score(other, "color", "drift_neighbors_lost", 0.4, 384)]
    run_id, folder = store.begin_run(config, root), store.run_folder(store.run_id_of(config), root)
    if change:
        store.append_history(run_id, [StepRecord(step, 2.0 / step, 1.5 / step, 0.5 / step, 1e-3, 1.0, 0.1) for step in (1, 2)], root)
    curve = [
        {"alpha": alpha, "id_accuracy": 0.3 + 0.6 * alpha, "ood_accuracy": 0.5, "val_accuracy": 0.9, "mean_delta_zs": alpha * change}
        for alpha in (0.0, 0.5, 1.0)
    ]
    if moments:
        write_json(folder / "moments.json", [{"moment": "step 1", "weights": "w", "id_accuracy": 0.8, "kept": 0.8}])
        curve[1] |= {"weights": "v", "kept": 0.9}
    write_json(folder / "wise.json", curve)
    return store.finish_run(config, scores, root=root).run_id


def rewrite_config(root: Path, run_id: str, **changed: object) -> None:
    """Changes a run's config behind our back, as somebody with an editor can: names that no registry would allow."""
    path = store.run_folder(run_id, root) / "config.json"
    write_json(path, {**read_json(path), **changed})
