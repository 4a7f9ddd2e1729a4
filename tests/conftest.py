"""One small world for every test: a tower of a few hundred weights, a cache of one's own, and one real finished run."""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import ARGUMENTS, CHROMIUM
from hypothesis import settings
from torch import Tensor, nn

from robustft.configs import make_config
from robustft.encoder import Encoder, TextTower
from robustft.heads import Classifier, Head, TextHead
from robustft.methods import average_rule, find_method, resolve_options, train_config
from robustft.registry import Entry
from robustft.run import make_objective, run, tune
from robustft.train import Trainer
from robustft.types import RunRecord, TrainData

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["ROBUSTFT_MAP_WORKER"] = "off"  # no test leaves a process behind unless it is about that process
settings.register_profile("robustft", deadline=None, derandomize=True)
settings.load_profile("robustft")

TINY_NAMES = ("red", "green", "yellow", "blue", "magenta", "cyan")
TINY_CLASSES = len(TINY_NAMES)
SMALL = {"steps": 8, "batch_size": 24, "lr": 0.01, "checkpoint_every": 2, "n_neighbors": 5, "fisher_samples": 8, "proxy_start": 3, "rank": 2}
"""Settings that let any method run through on the tiny world in a moment."""


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


class TinyClip(nn.Module):
    """The parts of an open_clip model that we touch; a text is the sum of its letters' embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = TinyTower()
        self.letters = nn.Embedding(128, 5, padding_idx=0)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.letters(tokens).sum(1)


def spell(prompts: list[str]) -> Tensor:
    """A tokenizer: one token a letter, sixteen of them."""
    return torch.tensor([[*map(ord, prompt[:16]), *[0] * (16 - len(prompt))] for prompt in prompts])


@pytest.fixture
def tiny_text() -> TextTower:
    torch.manual_seed(1)
    return TextTower(TinyClip(), spell).eval().requires_grad_(False)


@pytest.fixture
def tiny_classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Encoder(TinyTower()), Head(4 * torch.randn(TINY_CLASSES, 5))).eval()


@pytest.fixture
def tiny_data() -> TrainData:
    """Twelve images each of six colours, under noise, and five more each for validation."""
    draw = torch.Generator().manual_seed(0)

    def drawn(per_class: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(TINY_CLASSES).repeat_interleave(per_class)
        bits = torch.tensor([[(c + 1) >> k & 1 for k in range(3)] for c in range(TINY_CLASSES)])
        noise = torch.randint(-60, 60, (len(labels), 3, 8, 8), generator=draw)
        return (60 + 140 * bits[labels][..., None, None] + noise).clamp(0, 255).to(torch.uint8), labels

    images, labels = drawn(12)
    return TrainData(images, labels, lambda pixels: pixels.float() / 127.5 - 1, *drawn(5))


@pytest.fixture
def make(tiny_classifier: Classifier, tiny_data: TrainData, tiny_text: TextTower) -> Callable[..., Trainer]:
    """Makes a trainer for any method on a copy of the tiny classifier, put together as a real run's, its options checked.

    Other keywords than the options: ``classifier`` and ``data`` in place of the tiny ones, and a stub for the regularizer.
    """

    def build(method: str = "ft", *, seed: int = 0, regularizer: Entry | None = None, **given: Any) -> Trainer:
        classifier, data = given.pop("classifier", tiny_classifier), given.pop("data", tiny_data)
        row, allowed = find_method(method), resolve_options(method, {})
        options = resolve_options(method, {key: value for key, value in SMALL.items() if key in allowed} | given)
        head = TextHead(tiny_text, TINY_NAMES, ("{}", "a {} sky")) if row.has_text_head else copy.deepcopy(classifier.head)
        student = Classifier(copy.deepcopy(classifier.encoder), head)
        tune(student, row, options, seed)
        objective = make_objective(row, options)
        if regularizer is not None:
            objective = replace(objective, regularizer=regularizer, options={})
        return Trainer(student, copy.deepcopy(classifier), data, objective, train_config(options), seed, average_rule(row, options))

    return build


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. Where there is none the test is skipped, but under ROBUSTFT_CI=1 it fails."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if CHROMIUM is None or sync_playwright is None:
        message = "needs Chromium and playwright: apt-get install chromium; pip install -r tests/requirements.txt"
        if os.environ.get("ROBUSTFT_CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()
