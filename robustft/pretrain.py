"""Pre-training of GlyphCLIP, the bundled foundation model: a small CLIP, trained on the bundled world with captions."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .datasets import digits, scripts
from .seeds import generator_of, seed_of
from .world.nuisance import perturb
from .world.tasks import draw_concept, emoji_concepts

EMOJI_TASKS = ("animals", "food", "travel", "activities", "objects", "symbols", "faces", "people")
DIGITS_SHOWN = 20
"""Training pictures of each digit and collection that pre-training sees; the task has five times as many."""
PATTERNS = ("{name}", "{name}", "a picture of {name}", "a drawing of {name}", "{name}, {group}", "{group}: {name}")
GROUP_PATTERNS = ("{}", "a {}", "a picture of {}", "a drawing of {}")
MODEL_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "timm_model_name": "edgenext_xx_small",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 64,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 80, "heads": 4, "layers": 2},
}
PREPROCESS = {"size": [64, 64], "mean": [0.65, 0.62, 0.63], "std": [0.27, 0.28, 0.27], "interpolation": "bicubic", "resize_mode": "shortest"}


@dataclass(frozen=True)
class Recipe:
    """How GlyphCLIP is trained; recorded in its model card.

    Attributes:
        script_share: Part of a batch that shows letters, kept small so that fine-tuning has something to learn.
        digit_share: The same for digits.
        group_weight: Weight of the second contrast, of images against the captions of their groups.
        ramp: Part of the steps over which the nuisance grows from light to full; from full strength no tower leaves chance.
    """

    steps: int = 3500
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 300
    script_share: float = 0.08
    digit_share: float = 0.015
    group_weight: float = 0.3
    ramp: float = 0.4
    seed: int = 0


class World:
    """The pre-training pool: a glyph table with a concept for each row, and every concept's names.

    Emoji are the bulk. Of the thinly covered tasks only training glyphs are shown: of scripts the training letters under
    fresh nuisance, of digits the training images as they are.
    """

    def __init__(self) -> None:
        self.names: list[tuple[str, ...]] = []
        self.groups: list[str] = []
        self.glyphs, self.concepts = self._emoji()
        self.letters, self.letter_concepts = self._letters()
        self.digits, self.digit_concepts = self._digits()
        self.group_names = sorted(set(self.groups))
        self.group_of = torch.tensor([self.group_names.index(group) for group in self.groups])

    def _add(self, aliases: tuple[str, ...], group: str) -> int:
        """Takes a concept in and returns its number."""
        self.names.append(aliases)
        self.groups.append(group)
        return len(self.names) - 1

    def _emoji(self) -> tuple[Tensor, Tensor]:
        glyphs, concepts = [], []
        for task in EMOJI_TASKS:
            for concept in emoji_concepts(import_module(f"robustft.datasets.{task}").GROUPS):
                number = self._add(concept.aliases, concept.group)
                for domain in ("color", "line"):
                    glyphs.append(draw_concept(concept, domain))
                    concepts.append(number)
        return torch.from_numpy(np.stack(glyphs)), torch.tensor(concepts)

    def _letters(self) -> tuple[Tensor, Tensor]:
        numbers = [self._add((name,), "writing letter") for name in scripts.NAMES]
        pools = [scripts.letter_glyphs(name, "train", domain) for domain in scripts.DOMAINS for name in scripts.NAMES]
        concepts = [torch.full((len(pool),), numbers[index % len(numbers)]) for index, pool in enumerate(pools)]
        return torch.from_numpy(np.concatenate(pools)), torch.cat(concepts)

    def _digits(self) -> tuple[Tensor, Tensor]:
        first = [self._add((name,), "handwritten digit") for name in digits.NAMES][0]
        parts = [digits.draw_digits("train", domain, 0, DIGITS_SHOWN) for domain in digits.DOMAINS]
        return torch.cat([torch.as_tensor(p.images) for p in parts]), torch.cat([torch.as_tensor(p.labels) for p in parts]) + first

    def sample(self, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
        """Draws a batch of images and their concepts, seeded by the step."""
        generator = generator_of("pretrain", recipe.seed, step)
        lot = torch.rand(recipe.batch_size, generator=generator)
        n_digits, n_letters = int((lot < recipe.digit_share).sum()), int((lot > 1 - recipe.script_share).sum())
        rows = torch.randint(len(self.glyphs), (recipe.batch_size - n_digits - n_letters,), generator=generator)
        letters = torch.randint(len(self.letters), (n_letters,), generator=generator)
        shown = torch.randint(len(self.digits), (n_digits,), generator=generator)
        strength = 0.15 + 0.85 * min(1.0, step / max(1, recipe.ramp * recipe.steps))
        images = perturb(torch.cat([self.glyphs[rows], self.letters[letters]]), generator, strength)
        concepts = torch.cat([self.concepts[rows], self.letter_concepts[letters], self.digit_concepts[shown]])
        return torch.cat([images, self.digits[shown]]), concepts

    def captions(self, recipe: Recipe, step: int) -> tuple[list[str], list[str]]:
        """Draws one caption for every concept and one for every group, seeded by the step."""
        rng = np.random.default_rng(seed_of("captions", recipe.seed, step))
        of_concepts = [
            PATTERNS[rng.integers(len(PATTERNS))].format(name=names[rng.integers(len(names))], group=group)
            for names, group in zip(self.names, self.groups, strict=True)
        ]
        return of_concepts, [GROUP_PATTERNS[rng.integers(len(GROUP_PATTERNS))].format(group) for group in self.group_names]


def normalise(images: Tensor) -> Tensor:
    """Turns RGB bytes into the model's input."""
    mean, std = (torch.tensor(PREPROCESS[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (images.float() / 255 - mean) / std


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)))


def train(model: Any, tokenize: Callable[[list[str]], Tensor], world: World, recipe: Recipe) -> Iterator[tuple[int, float]]:
    """Trains the model in place; yields the step and the loss after every update."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=recipe.lr)
    model.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        images, concepts = world.sample(recipe, step)
        of_concepts, of_groups = world.captions(recipe, step)
        text = F.normalize(model.encode_text(tokenize(of_concepts + of_groups)), dim=-1)
        image = F.normalize(model.encode_image(normalise(images)), dim=-1)
        logits = model.logit_scale.exp() * image @ text.T
        cut = len(of_concepts)
        loss = F.cross_entropy(logits[:, :cut], concepts)
        loss = loss + recipe.group_weight * F.cross_entropy(logits[:, cut:], world.group_of[concepts])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        yield step + 1, loss.item()


def save(model: Any, folder: Path) -> None:
    """Writes the model as an open_clip ``local-dir``, weights in half precision to keep the repository small."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.half().contiguous() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def pretrain(folder: Path, recipe: Recipe, report: Callable[[str], None] = print) -> None:
    """Trains GlyphCLIP from random weights and writes it, with its recipe and hours, to a folder."""
    import open_clip

    torch.manual_seed(recipe.seed)
    open_clip.factory._MODEL_CONFIGS["glyphclip-recipe"] = MODEL_CONFIG
    model = open_clip.create_model("glyphclip-recipe", pretrained_text=False)
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=MODEL_CONFIG["text_cfg"]["context_length"])  # type: ignore[index]
    begin, world, smooth = time.time(), World(), 0.0
    for step, loss in train(model, tokenizer, world, recipe):
        smooth = loss if step == 1 else 0.98 * smooth + 0.02 * loss
        if step % 100 == 0:
            report(f"step {step}/{recipe.steps} loss {smooth:.3f} {time.time() - begin:.0f} s")
        if step % 1000 == 0:
            save(model, folder)
    save(model, folder)
    record = {"recipe": asdict(recipe), "hours": round((time.time() - begin) / 3600, 2), "threads": torch.get_num_threads(), "loss": round(smooth, 4)}
    (folder / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")
