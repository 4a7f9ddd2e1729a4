"""A model at one alpha as a zip to take home: made in a process of its own, kept for the next who asks."""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

from . import store
from .detached import HOME
from .files import disk_error, replacing
from .types import UserError

SECONDS = 900
"""How long the writing of a model may take."""
LARGEST = 2_000_000_000
"""Bytes of a zip that the web server may hold in its memory while it is fetched."""
KEPT = 4_000_000_000
"""Bytes of zips that are kept; the longest unused go first."""
_ONE_AT_A_TIME = threading.Lock()  # each takes the memory of a model


def has_weights(run_id: str, root: Path) -> bool:
    """Returns whether the run's fine-tuned weights are still there."""
    return (store.run_folder(run_id, root) / "theta_1.safetensors").is_file()


def zip_name(run_id: str, alpha: float) -> str:
    """Returns what a zip is called.

    Example:
        >>> zip_name("ft-food-s0-1234abcd", 0.3)
        'ft-food-s0-1234abcd-alpha-0.3.zip'
    """
    return f"{run_id}-alpha-{alpha:g}.zip"


def stored_zip(run_id: str, alpha: float, root: Path) -> Path | None:
    """Returns the zip of a model if it has been made."""
    store.run_folder(run_id, root)  # a run's name is a harmless part of a path; one from an address may not be
    path = root / "exports" / zip_name(run_id, alpha)
    return path if path.is_file() else None


def model_zip(run_id: str, alpha: float, root: Path) -> Path:
    """Makes the model of a run at one alpha into a zip of one folder, which open_clip loads as ``local-dir`` once it is unpacked.

    Args:
        run_id: A finished run.
        alpha: From 0, the start, to 1, the fine-tuned model.
        root: Cache folder; zips stand in its ``exports``.

    Returns:
        The zip, whole; one that was made before is given again.

    Raises:
        UserError: If the run is not finished, its weights are gone, alpha is outside [0, 1], the model is too large for a
            browser, or the disk is full.
    """
    record = store.read_run(run_id, root=root)
    if not record.is_finished or not has_weights(run_id, root):
        raise UserError(f"the weights of run {run_id} are not here; a run has them once it is finished, and a bundled demo run comes without.")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha = {alpha!r} is not allowed; give a number from 0 (starting model) to 1 (fine-tuned model).")
    with _ONE_AT_A_TIME:
        found = stored_zip(run_id, alpha, root)
        if found is not None:
            found.touch()
            return found
        return _make(run_id, alpha, root)


def _make(run_id: str, alpha: float, root: Path) -> Path:
    folder = root / "exports"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder, ignore_cleanup_errors=True) as work:
            model = Path(work) / zip_name(run_id, alpha).removesuffix(".zip")
            _write_model(run_id, alpha, model, root)
            _check_size(model, run_id, alpha)
            with replacing(folder / zip_name(run_id, alpha)) as part:
                _pack(model, part)
    except OSError as error:
        raise disk_error(error, f"the zip of run {run_id}") from None
    _clear(folder, keep=zip_name(run_id, alpha))
    return folder / zip_name(run_id, alpha)


def _write_model(run_id: str, alpha: float, out: Path, root: Path) -> None:
    """Writes the folder as the command line does: the web server itself never loads a model."""
    argv = [sys.executable, "-m", "robustft", "interpolate", run_id, "--alpha", repr(alpha), "--out", str(out), "--runs-dir", str(root)]
    try:
        result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=HOME, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"the model was not written within {SECONDS // 60} minutes; write it with `{_command(run_id, alpha)}`.") from None
    if result.returncode or not out.is_dir():
        why = (result.stderr.strip().splitlines() or ["the writing process died"])[-1].removeprefix("error: ")
        raise UserError(f"the model could not be written: {why}")


def _check_size(model: Path, run_id: str, alpha: float) -> None:
    size = sum(path.stat().st_size for path in model.iterdir())
    if size > LARGEST:
        raise UserError(
            f"the model has {size / 1e9:.1f} GB, a browser gets {LARGEST / 1e9:g} GB at most; write it on this machine with `{_command(run_id, alpha)}`."
        )


def _command(run_id: str, alpha: float) -> str:
    return f"python -m robustft interpolate {run_id} --alpha {alpha:g} --out {zip_name(run_id, alpha).removesuffix('.zip')}"


def _pack(model: Path, path: Path) -> None:
    """Puts a folder into a zip. Weights are noise to a packer, so they are not squeezed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        for file in sorted(model.iterdir()):
            packed.write(file, f"{model.name}/{file.name}")


def _clear(folder: Path, keep: str) -> None:
    """Removes the zips longest unused until the rest fits, and what a killed server left behind."""
    with suppress(OSError):
        zips = sorted((path for path in folder.glob("*.zip") if path.name != keep), key=lambda path: path.stat().st_mtime, reverse=True)
        total = (folder / keep).stat().st_size
        for path in zips:
            total += path.stat().st_size
            if total > KEPT:
                path.unlink(missing_ok=True)
        for left in folder.glob(".making-*"):
            if time.time() - left.stat().st_mtime > 2 * SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        for part in folder.glob(".*.part"):
            if time.time() - part.stat().st_mtime > 2 * SECONDS:
                part.unlink(missing_ok=True)
