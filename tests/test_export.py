"""Taking a model home: what open_clip loads is what was measured, both towers included."""

import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from robustft import store
from robustft.configs import make_config
from robustft.export import write_interpolated
from robustft.heads import TextHead
from robustft.interpolate import interpolate
from robustft.methods import find_method
from robustft.run import load_backbone, run, starting_classifier
from robustft.sources import get_dataset
from robustft.types import RunRecord


@pytest.fixture(scope="module")
def flyp_run(world_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Path]:
    """Two real steps of FLYP with the bundled model; both towers and the logit scale have moved."""
    root = tmp_path_factory.mktemp("flyp")
    if (world_cache / "datasets").exists():
        shutil.copytree(world_cache / "datasets", root / "datasets")
    config = make_config("glyphclip", "food", "flyp", options={"steps": 2, "warmup": 0.0, "batch_size": 16}, held_out=(), curve=False)
    return run(config, root=root, report=lambda line: None), root


@torch.no_grad()
def test_folder_holds_both_tuned_towers_and_the_head_that_they_write(flyp_run: tuple[RunRecord, Path], tmp_path: Path) -> None:
    record, root = flyp_run
    backbone = load_backbone("glyphclip", torch.device("cpu"))
    model = starting_classifier(backbone, find_method("flyp"), record.config, root)
    start, end = model.state_dict(), store.load_weights(record.run_id, "theta_1", root=root)
    assert end is not None and not torch.equal(start["head.tower.clip.logit_scale"], end["head.tower.clip.logit_scale"])
    model.load_state_dict(interpolate(start, end, 0.5))
    folder = write_interpolated(record.run_id, 0.5, tmp_path / "home", root)
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    loaded.eval()
    data = get_dataset("food", "color", "test", root)
    images, tokens = backbone.preprocess(torch.as_tensor(data.images[:8])), backbone.text.tokenize(["a drawing of a pizza"])
    assert isinstance(model.head, TextHead)
    assert all(torch.equal(value, model.encoder.visual.state_dict()[name]) for name, value in loaded.visual.state_dict().items())
    torch.testing.assert_close(loaded.encode_image(images), model.encoder(images), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loaded.encode_text(tokens, normalize=True), model.head.tower(tokens), atol=1e-5, rtol=0)
    head = load_file(folder / "head.safetensors")
    torch.testing.assert_close(head["weight"], model.head.class_weights(), atol=0, rtol=0)


def test_flyp_is_measured_with_both_texts(flyp_run: tuple[RunRecord, Path]) -> None:
    record, _ = flyp_run
    by_metric = {(s.domain, s.metric): s.value for s in record.scores}
    for domain in ("color", "line"):
        assert abs(by_metric[domain, "delta_zs_own_text"]) <= 1
    # Trained head and own text are one and the same on the downstream task.
    assert by_metric["color", "zs_accuracy_0"] + by_metric["color", "delta_zs_own_text"] == pytest.approx(by_metric["color", "id_accuracy"])
