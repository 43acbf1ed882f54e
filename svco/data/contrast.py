"""Whether a pair's pictures are a contrast at all: both decode, and they show two things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..basics.errors import BadSample
from .pairs import Pair
from .pictures import decode_image

if TYPE_CHECKING:
    from PIL.Image import Image


def decode_pair(pair: Pair, equal_pictures: bool = False) -> tuple[Image, Image]:
    """Both pictures, RGB. BadSample for one that does not decode (``undecodable-image``) and, unless ``equal_pictures`` are
    wanted, for two that show the same, pixel for pixel (``same-images``)."""
    first, second = (
        decode_image(data, f"sample {pair.text.key!r}: image {side}") for side, data in enumerate(pair.images)
    )
    if not equal_pictures and first.size == second.size and first.tobytes() == second.tobytes():
        raise same_images(pair.text.key)
    return first, second


def same_images(key: str) -> BadSample:
    """What is the matter with a pair whose two images are one."""
    return BadSample("same-images", f"sample {key!r}: both images show the same, pixel for pixel, which is no contrast")
