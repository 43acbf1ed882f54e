"""Corrupted images: the fourth view, and the second side of VLF-type pairs. Pure: pair, side and configuration decide.

``crop``: torchvision's RandomResizedCrop, scale (0.01, 0.2) and aspect ratio 3/4 to 4/3, as mDPO has it (arXiv 2406.11839,
luka-group/mDPO). There it crops the tower's square input, anew in every forward pass; here the picture itself, once, and the
part is enlarged to the picture's own size.

``noise``: the forward diffusion of POVID (arXiv 2402.11411) and CHiP (arXiv 2501.16629), after VCD's ``add_diffusion_noise``:
β_t = sigmoid(linspace(−6, 6, 1000)) · (0.5e-2 − 1e-5) + 1e-5, x_t = sqrt(ᾱ_t) x + sqrt(1 − ᾱ_t) ε with ᾱ the running product
of 1 − β. They add it to the tower's normalised input. Here it is done on the picture, with CLIP's mean and standard deviation,
and clipped to 0..255. So that the tower's resizing does not average it away, ε is drawn on a grid whose short side has at most
336 points and enlarged to the picture by nearest neighbour.

The corrupted image is as large as the image: a pair has the same number of tokens under both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.strict_json import json_text
from ..basics.views import CORRUPT, Cell
from ..recipe.config import CorruptConfig

if TYPE_CHECKING:
    from PIL.Image import Image

_VERSION = 1
"""Another number when the same configuration would make other pictures."""
_READS = {"crop": ("scale", "seed"), "noise": ("step", "seed"), "grey": (), "zero": ()}
"""Kind -> the keys it depends on."""
_RATIO = (3 / 4, 4 / 3)
"""Least and largest aspect ratio of a crop."""
_TRIES = 10
"""Crops that are drawn before the central one is taken."""
_GRID = 336
"""Points on the short side of the grid that noise is drawn on, at most."""
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
"""CLIP's."""


def identity(config: CorruptConfig) -> dict[str, Any]:
    """What a corrupted image depends on besides the image: keys its kind does not read are left out."""
    reads = {name: getattr(config, name) for name in _READS[config.kind]}
    if "scale" in reads:
        reads["scale"] = list(reads["scale"])  # as JSON gives it back
    return {"version": _VERSION, "kind": config.kind, **reads}


def corrupt(image: Image, key: str, side: int, config: CorruptConfig) -> Image:
    """``image`` (RGB) of ``side`` of the pair ``key``, corrupted: RGB, of the same size. Equal arguments, equal pictures."""
    drawn = json_text([key, side, identity(config)], sort_keys=True)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(drawn.encode()).digest(), "big"))
    return _KINDS[config.kind](image, rng, config)


@dataclass(frozen=True)
class Corruptions:
    """The corrupted images that a set of cells needs; by default none."""

    sides: frozenset[int] = frozenset()
    """Sides whose image is read corrupted."""
    config: CorruptConfig = field(default_factory=CorruptConfig)
    """How."""

    @classmethod
    def of(cls, cells: Iterable[Cell], config: CorruptConfig) -> Corruptions:
        """Those that ``cells`` read."""
        return cls(frozenset(side for side, view in cells if view == CORRUPT), config)

    @property
    def fingerprint(self) -> str:
        """Everything the pixels depend on, as JSON; ``none`` where no corrupted image is read."""
        return json_text(identity(self.config), sort_keys=True) if self.sides else "none"

    def __call__(self, images: tuple[Image, ...], key: str) -> tuple[Image | None, ...]:
        """``images`` (side 0, side 1) of pair ``key`` by condition: themselves, and, where some side needs it, None for no image
        and the two corrupted (None for one that no cell reads)."""
        if not self.sides:
            return images
        made = (corrupt(images[s], key, s, self.config) if s in self.sides else None for s in (0, 1))
        return (*images, None, *made)


def crop_box(size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of torchvision's random resized crop of an image of ``size`` (width, height): area uniform in
    ``scale``, logarithm of the aspect ratio uniform; after ten that do not fit the central part nearest to the ratios."""
    width, height = size
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * _RATIO[1])))
    h = max(1, min(height, round(width / _RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def kept_signal(step: int) -> float:
    """ᾱ at ``step`` (0..999): the share of the variance that is still the image's."""
    betas = (0.5e-2 - 1e-5) / (1 + np.exp(-np.linspace(-6, 6, 1000))) + 1e-5
    return float(np.cumprod(1 - betas)[step])


def _crop(image: Image, rng: np.random.Generator, config: CorruptConfig) -> Image:
    from PIL.Image import Resampling

    return image.crop(crop_box(image.size, config.scale, rng)).resize(image.size, Resampling.BILINEAR)


def _noise(image: Image, rng: np.random.Generator, config: CorruptConfig) -> Image:
    from PIL import Image as Images

    width, height = image.size
    shrink = min(1.0, _GRID / min(width, height))
    columns, rows = max(1, round(width * shrink)), max(1, round(height * shrink))
    kept = kept_signal(config.step)
    signal, strength = np.float32(math.sqrt(kept)), np.float32(math.sqrt(1 - kept))
    # sqrt(ᾱ) x + sqrt(1 − ᾱ) ε for x = (pixel / 255 − mean) / std, back on the scale of pixels: what does not depend on the
    # pixel is computed on the grid.
    added = 255 * (strength * _STD * rng.standard_normal((rows, columns, 3), np.float32) + (1 - signal) * _MEAN)
    noisy = added[np.arange(height) * rows // height][:, np.arange(width) * columns // width]
    noisy += signal * np.asarray(image, np.float32)
    return Images.fromarray(np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy).astype(np.uint8))


def _flat(level: int, image: Image) -> Image:
    from PIL import Image as Images

    return Images.new("RGB", image.size, (level,) * 3)


_KINDS: Mapping[str, Any] = {
    "crop": _crop,
    "noise": _noise,
    "grey": lambda image, rng, config: _flat(128, image),
    "zero": lambda image, rng, config: _flat(0, image),
}
