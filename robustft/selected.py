"""A selection of samples as a few letters, so that a link can carry it."""

import base64
import binascii
import zlib
from collections.abc import Iterable

import numpy as np

MOST = 20_000
"""Samples that a link may choose; a longer address is cut by some browsers and chat programs."""


def pack(ids: Iterable[int], n: int) -> str:
    """Returns chosen rows of n samples as letters that an address may hold; a bit a sample, compressed.

    Example:
        >>> unpack(pack([2, 0, 5], 8), 8)
        [0, 2, 5]
    """
    chosen = sorted({int(row) for row in ids if 0 <= row < n})[:MOST]
    if not chosen:
        return ""
    bits = np.zeros(n, bool)
    bits[chosen] = True
    return base64.urlsafe_b64encode(zlib.compress(np.packbits(bits).tobytes(), 9)).decode().rstrip("=")


def unpack(letters: str, n: int) -> list[int]:
    """Returns the rows that `pack` wrote; none if the letters are no selection of n samples.

    Example:
        >>> unpack("nonsense", 8), unpack(pack([7], 80), 8)
        ([], [])
    """
    try:
        squeezed = base64.urlsafe_b64decode(letters.encode("ascii", "replace") + b"=" * (-len(letters) % 4))
        raw = zlib.decompressobj().decompress(squeezed, n // 8 + 2)  # never more than asked for, whatever the letters say
    except (zlib.error, binascii.Error, ValueError):
        return []
    if len(raw) != (n + 7) // 8:
        return []
    return [int(row) for row in np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8))[:n])][:MOST]
