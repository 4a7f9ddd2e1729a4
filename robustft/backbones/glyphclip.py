"""GlyphCLIP, the bundled foundation model."""

from pathlib import Path

from ..encoder import Backbone, load_clip

WEIGHTS = Path(__file__).parent.parent / "weights" / "glyphclip"


def glyphclip() -> Backbone:
    """A small CLIP of glyphs: EdgeNeXt-XXS tower at 64 px, 128-d embedding, trained on the ten bundled tasks.

    Source:
        ``python -m robustft pretrain``; recipe and scores in ``robustft/weights/glyphclip/README.md``.
    """
    return load_clip("glyphclip", f"local-dir:{WEIGHTS}")
