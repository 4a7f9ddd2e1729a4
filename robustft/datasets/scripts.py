"""Writing systems, told from a single letter."""

import hashlib
from functools import cache

import numpy as np

from ..types import Dataset
from ..world.fonts import draw_glyph
from ..world.tasks import SPLITS, check_choice, letters, sample_task, split_pool

DOMAINS = ("regular", "bold")
WEIGHTS = {"regular": 400, "bold": 700}
MOST_LETTERS = 40
NAMES = (
    "Arabic Armenian Bengali Devanagari Ethiopic Georgian Gujarati Gurmukhi Hebrew Kannada Khmer Lao Malayalam Myanmar Oriya Sinhala Tamil Telugu Thai"
).split()


def scripts(split: str, *, domain: str = "regular", seed: int = 0) -> Dataset:
    """Nineteen writing systems: which one is this letter from?

    Args:
        split: ``train``, ``val`` or ``test``; no letter is in two of them.
        domain: ``regular`` or ``bold`` stroke weight.
        seed: Source of the draw of letters and of the nuisance.

    Source:
        Noto Sans fonts (OFL 1.1) as packaged by ``manimgx-fonts``; letters by Unicode name.
    """
    check_choice("split", split, SPLITS)
    check_choice("domain", domain, DOMAINS)
    per_class = {"train": 40, "val": 8, "test": 16}[split]
    pools = [_spread(letter_glyphs(name, split, domain, seed), per_class) for name in NAMES]
    return sample_task("scripts", domain, split, NAMES, pools, per_class, seed, ("{}", "{} letter", "{} writing"), strength=1.0)


def letter_glyphs(name: str, split: str, domain: str, seed: int = 0) -> np.ndarray:
    """Draws the letters of one writing system that a split may use, as RGBA glyphs in the order of the alphabet."""
    font, every = f"NotoSans{name}", np.array(letters(f"NotoSans{name}", name.upper()))
    chars = split_pool(every, split, seed)
    if split != "train":
        # Some code points share a shape: a letter whose shape an earlier split has is left out.
        earlier = SPLITS[: SPLITS.index(split)]
        seen = {_shape(char, font) for other in earlier for char in split_pool(every, other, seed)}
        chars = np.array([char for char in chars if _shape(char, font) not in seen])
    return np.stack([draw_glyph(char, font, WEIGHTS[domain]) for char in _spread(chars, MOST_LETTERS)])


@cache
def _shape(char: str, font: str) -> bytes:
    """Returns what tells one drawn letter from another."""
    return hashlib.sha256(draw_glyph(char, font, WEIGHTS["regular"]).tobytes()).digest()


def _spread(items: np.ndarray, most: int) -> np.ndarray:
    """Picks at most so many, spread evenly, so that rare extensions at an alphabet's end do not crowd out its letters."""
    return items[np.linspace(0, len(items) - 1, min(most, len(items))).astype(int)]
