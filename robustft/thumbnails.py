"""Small pictures of single samples, for the web server to hand out one by one."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from .registry import discover
from .samples import ALL_DOMAINS, get_samples
from .sources import domains_of
from .types import Dataset, UserError

SIDE = 96
"""Longest side of a thumbnail, in pixels; smaller images stay as they are."""
_NOT_THERE = "there is no such picture."


def thumbnail(dataset: str, domain: str, row: int, root: Path) -> bytes:
    """Returns a test sample as WebP, at most `SIDE` pixels a side.

    Args:
        dataset: A registered task.
        domain: One of its domains, or `samples.ALL_DOMAINS`.
        row: Number of the sample.
        root: Cache folder.

    Raises:
        UserError: If there is no such sample; one answer for whatever is wrong with the request.
    """
    if dataset not in discover("datasets") or domain not in (*domains_of(dataset), ALL_DOMAINS):
        raise UserError(_NOT_THERE)
    data = _samples(dataset, domain, root)
    if not 0 <= row < len(data):
        raise UserError(_NOT_THERE)
    picture = Image.fromarray(np.asarray(data.images[row]).transpose(1, 2, 0))
    picture.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    picture.save(written, "WEBP", quality=85)
    return written.getvalue()


@lru_cache(maxsize=4)
def _samples(dataset: str, domain: str, root: Path) -> Dataset:
    return get_samples(dataset, domain, root)
