"""What a picture looks like, as two small hashes that survive resizing, compression and small edits. The only door to imagehash.

pHash (signs of the lowest 8 × 8 frequencies of a 32 × 32 reduction about their median) and dHash (which of two neighbours of a
9 × 8 reduction is lighter), 64 bits each, of the picture and of its mirror. Two pictures look alike when *both* hashes differ in
no more than a few bits: on photographs one hash alone takes strangers for relatives far more often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FLAT = 3.0
"""Levels of 255 by which the reduced picture must spread (standard deviation), or its hashes are noise and mean nothing."""
Look = tuple[int, int, int, int]
"""(pHash, dHash) of a picture, and of its mirror: numbers of 64 bits."""
UNKNOWN: Look = (0, 0, 0, 0)
"""Of a flat picture, which looks like no other. No picture has it by itself: a pHash always has ones."""


def look_of(image: Image) -> Look:
    """The look of an RGB ``image``; ``UNKNOWN`` of one that is flat."""
    from PIL import Image as Images
    from PIL.ImageOps import mirror

    grey = image.convert("L")
    # To some hundred pixels by whole numbers first: the hashes' own reductions of a large picture would take most of the time.
    grey = grey.reduce(max(1, min(grey.size) // 128))
    if float(np.asarray(grey.resize((32, 32), Images.Resampling.LANCZOS)).std()) < FLAT:
        return UNKNOWN
    return (*_hashes(grey), *_hashes(mirror(grey)))


def _hashes(grey: Image) -> tuple[int, int]:
    import imagehash

    first, second = (
        int.from_bytes(np.packbits(found.hash.reshape(-1)).tobytes(), "big")
        for found in (imagehash.phash(grey), imagehash.dhash(grey))
    )
    return first, second
