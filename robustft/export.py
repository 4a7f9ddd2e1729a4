"""Taking a model home: the weights at one alpha, as a folder that open_clip loads."""

import copy
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError

from . import store
from .devices import resolve_device
from .files import disk_error, write_json
from .heads import Classifier, TextHead, plain_head
from .interpolate import interpolate, recompute_statistics
from .methods import find_method
from .run import load_backbone, starting_classifier
from .types import RunConfig, UserError


def write_interpolated(run_id: str, alpha: float, out: Path, root: Path) -> Path:
    """Writes the model between a run's start and its end as an open_clip ``local-dir``, with its head beside it.

    ``open_clip.create_model_and_transforms("local-dir:OUT")`` loads it; its text tower is the foundation model's.
    ``head.safetensors`` holds ``weight`` and ``bias`` for unit features, in the order of ``classes.json``.

    Args:
        run_id: A finished run.
        alpha: 0 gives the foundation model, 1 the fine-tuned one.
        out: Folder to make; nothing that exists is overwritten.
        root: Cache folder.

    Returns:
        The folder.

    Raises:
        UserError: If the run is not finished, alpha is outside [0, 1], or the folder exists or cannot be written.
    """
    record = store.read_run(run_id, root=root)
    theta_1 = store.load_weights(run_id, "theta_1", root=root)
    if theta_1 is None or not record.is_finished:
        raise UserError(f"run {run_id} is not finished; resume it first.")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha = {alpha!r} is not allowed; give a number from 0 (starting model) to 1 (fine-tuned model).")
    if out.exists():
        raise UserError(f"{str(out)!r} exists already; name a folder that does not, so that nothing is overwritten.")
    classifier, clip, config, classes = _at_alpha(record.config, theta_1, alpha, root)
    try:
        return _write(classifier, clip, config, {"run": run_id, "alpha": alpha, "classes": classes}, out)
    except (OSError, SafetensorError) as error:
        raise disk_error(error, f"the folder {str(out)!r}") from None


def _at_alpha(
    config: RunConfig, theta_1: dict[str, torch.Tensor], alpha: float, root: Path
) -> tuple[Classifier, torch.nn.Module, dict[str, object], tuple[str, ...]]:
    """Returns the interpolated classifier, the whole CLIP around its tower, the CLIP's config and the class names."""
    from .sources import domains_of, get_dataset, get_train_data

    backbone = load_backbone(config.model, resolve_device("cpu"))
    start = starting_classifier(backbone, find_method(config.method), config, root)
    between = copy.deepcopy(start)
    between.load_state_dict(interpolate(start.state_dict(), theta_1, alpha))
    if 0 < alpha < 1:
        recompute_statistics(between.encoder, get_train_data(config.dataset, backbone.preprocess, root))
    clip = copy.deepcopy(backbone.clip)
    clip.visual.load_state_dict(between.encoder.visual.state_dict())  # type: ignore[union-attr, operator]
    if isinstance(between.head, TextHead):
        clip.load_state_dict(between.head.tower.clip.state_dict(), strict=False)  # all but the image tower
    classes = get_dataset(config.dataset, domains_of(config.dataset)[0], "train", root).class_names
    return between, clip, dict(backbone.config), classes


def _write(classifier: Classifier, clip: torch.nn.Module, config: dict[str, object], lineage: dict[str, object], out: Path) -> Path:
    """Fills a folder beside the final one and moves it into place."""
    from safetensors.torch import save_file

    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        save_file({k: v.detach().contiguous() for k, v in clip.state_dict().items()}, part / "open_clip_model.safetensors")
        save_file({k: v.detach().contiguous() for k, v in plain_head(classifier.head).state_dict().items()}, part / "head.safetensors")
        write_json(part / "open_clip_config.json", config)
        write_json(part / "classes.json", lineage)
        part.chmod(0o777 & ~_umask())
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _umask() -> int:
    """Returns what this process takes away from the permissions of new files; a temporary folder is private at first."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
