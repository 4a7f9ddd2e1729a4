"""A model as a zip: what open_clip loads from it is what was measured, and nothing half-written is ever there."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from robustft import store, take_home
from robustft.configs import make_config
from robustft.export import write_interpolated
from robustft.run import run
from robustft.take_home import has_weights, model_zip, stored_zip, zip_name
from robustft.types import RunConfig, Score, UserError


@pytest.fixture(scope="module")
def trained(world_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Two real steps of fine-tuning with the bundled model."""
    root = tmp_path_factory.mktemp("trained")
    if (world_cache / "datasets").exists():
        shutil.copytree(world_cache / "datasets", root / "datasets")
    config = make_config("glyphclip", "food", "ft", options={"steps": 2, "warmup": 0.0, "batch_size": 16}, held_out=(), curve=False)
    return run(config, root=root, report=lambda line: None).run_id, root


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A finished run whose model is a small file, written at once."""
    config = RunConfig("glyphclip", "food", "ft")
    run_id = store.begin_run(config, tmp_path)
    store.finish_run(config, [Score("food", "color", "id_accuracy", 0.9, 384)], root=tmp_path)
    (store.run_folder(run_id, tmp_path) / "theta_1.safetensors").write_bytes(b"weights")

    def write(run_id: str, alpha: float, out: Path, root: Path) -> None:
        out.mkdir()
        (out / "open_clip_model.safetensors").write_bytes(b"x" * 1000)

    monkeypatch.setattr(take_home, "_write_model", write)
    return run_id, tmp_path


def test_unpacked_zip_is_the_model_that_interpolate_writes(trained: tuple[str, Path], tmp_path: Path) -> None:
    run_id, root = trained
    path = model_zip(run_id, 0.3, root)
    assert path.name == zip_name(run_id, 0.3) and stored_zip(run_id, 0.3, root) == path and stored_zip(run_id, 0.4, root) is None
    assert [found.name for found in (root / "exports").iterdir()] == [path.name], "nothing is left beside it"
    with zipfile.ZipFile(path) as packed:
        assert packed.testzip() is None
        packed.extractall(tmp_path)
    folder, direct = tmp_path / f"{run_id}-alpha-0.3", write_interpolated(run_id, 0.3, tmp_path / "direct", root)
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in direct.iterdir())
    for name in ("open_clip_model.safetensors", "head.safetensors"):
        ours, theirs = load_file(folder / name), load_file(direct / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    again, _, _ = open_clip.create_model_and_transforms(f"local-dir:{direct}")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_zip_is_made_once(fake: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_zip(fake[0], 0.5, fake[1])
    monkeypatch.setattr(take_home, "_write_model", None)
    assert model_zip(fake[0], 0.5, fake[1]) == path


def test_what_cannot_be_taken_home_is_refused(fake: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, root = fake
    with pytest.raises(UserError, match=r"alpha = 1.5 is not allowed; give a number from 0"):
        model_zip(run_id, 1.5, root)
    with pytest.raises(UserError, match="no run of that name"):
        stored_zip("../../etc", 0.5, root)
    monkeypatch.setattr(take_home, "LARGEST", 10)
    with pytest.raises(UserError, match=rf"write it on this machine with `python -m robustft interpolate {run_id} --alpha 0.5"):
        model_zip(run_id, 0.5, root)
    assert not list((root / "exports").iterdir())
    (store.run_folder(run_id, root) / "theta_1.safetensors").unlink()
    assert not has_weights(run_id, root)
    with pytest.raises(UserError, match="the weights of run .* are not here"):
        model_zip(run_id, 0.5, root)


def test_writer_that_fails_leaves_nothing_and_says_why(fake: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real writer: the run's weights are no weights
    with pytest.raises(UserError, match="the model could not be written: "):
        model_zip(fake[0], 0.5, fake[1])
    assert not list((fake[1] / "exports").iterdir())

    def late(*args: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(UserError, match="not written within 15 minutes; write it with `python -m robustft interpolate"):
        model_zip(fake[0], 0.5, fake[1])


def test_zips_longest_unused_and_old_leftovers_go(fake: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, root = fake
    size = model_zip(run_id, 0.1, root).stat().st_size
    model_zip(run_id, 0.2, root)
    for alpha, age in ((0.1, 100), (0.2, 50)):
        os.utime(root / "exports" / zip_name(run_id, alpha), (age, age))
    model_zip(run_id, 0.1, root)  # asked for again, so 0.2 is now the longest unused
    left = root / "exports" / ".making-killed"
    left.mkdir()
    os.utime(left, (1, 1))
    monkeypatch.setattr(take_home, "KEPT", 2 * size)
    model_zip(run_id, 0.3, root)
    assert sorted(path.name for path in (root / "exports").iterdir()) == [zip_name(run_id, 0.1), zip_name(run_id, 0.3)]
