"""One small world for every test: a tower of a few hundred weights, a cache of one's own, and one real finished run."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from robustft.configs import make_config
from robustft.encoder import Encoder
from robustft.heads import Classifier, Head
from robustft.run import run
from robustft.train import TrainData
from robustft.types import RunRecord

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("robustft", deadline=None, derandomize=True)
settings.load_profile("robustft")

TINY_CLASSES = 6


class TinyTower(nn.Module):
    """A convolutional tower with a stem and four stages, as timm names them: 8 x 8 images to 5 features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 6, 1, stride=2 if i in (1, 3) else 1), nn.ReLU()) for i in range(4))
        self.project = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.project(x.mean((2, 3)))


@pytest.fixture
def tiny_classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Encoder(TinyTower()), Head(4 * torch.randn(TINY_CLASSES, 5))).eval()


@pytest.fixture
def tiny_data() -> TrainData:
    """Twelve images each of six colours, under noise."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(TINY_CLASSES).repeat_interleave(12)
    bits = torch.tensor([[(c + 1) >> k & 1 for k in range(3)] for c in range(TINY_CLASSES)])
    noise = torch.randint(-60, 60, (len(labels), 3, 8, 8), generator=draw)
    images = (60 + 140 * bits[labels][..., None, None] + noise).clamp(0, 255).to(torch.uint8)
    return TrainData(images, labels, lambda pixels: pixels.float() / 127.5 - 1)


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that the library takes for its own."""
    monkeypatch.setenv("ROBUSTFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def world_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the whole session shares: datasets are drawn into it once, and `finished_run` lies there. Do not change it."""
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="session")
def finished_run(world_cache: Path) -> RunRecord:
    """One real run with the bundled model: six steps on food, forgetting measured on digits."""
    options = {"steps": 6, "batch_size": 32, "checkpoint_every": 2}
    return run(make_config("glyphclip", "food", "ft", options=options, held_out=("digits",)), root=world_cache, report=lambda line: None)
