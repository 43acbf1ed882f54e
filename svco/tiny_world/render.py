"""Draws a scene: 48 × 48 pixels, a textured, noisy background, shapes with jitter, JPEG."""

from __future__ import annotations

import io
import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from .scenes import Scene, Thing

SIDE = 48
"""Pixels of a picture's side."""
_SCALE = 4
"""Shapes are drawn this much larger and scaled down, so that their edges are smooth."""
_RADIUS = {"small": 5.0, "large": 9.0}
_RGB = {
    "red": (214, 40, 40),
    "blue": (42, 78, 210),
    "green": (36, 150, 62),
    "yellow": (240, 208, 40),
    "purple": (140, 52, 168),
    "orange": (240, 130, 32),
}
STYLES = ("solid", "outline")
"""``solid`` is the world's own; ``outline`` draws hollow shapes with a dark rim, for tests under a shift of style."""


def render(scene: Scene, seed: int, style: str = "solid") -> Image.Image:
    """The picture of ``scene``; ``seed`` fixes background, noise, shades and jitter.

    Two scenes drawn with one seed differ in nothing but what differs between the scenes.
    """
    if style not in STYLES:
        raise ValueError(f"style is {style!r}; one of {', '.join(STYLES)}")
    rng = Random(seed)
    noise = np.random.default_rng(seed)
    canvas = Image.fromarray(_background(rng, noise)).resize((SIDE * _SCALE,) * 2, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    jitters = [
        (rng.uniform(-2.5, 2.5), rng.uniform(-2.5, 2.5), rng.uniform(0.92, 1.08), rng.uniform(-14, 14))
        for _ in range(4)
    ]
    for thing, jitter in zip(scene.things, jitters):
        _draw(draw, thing, jitter, style)
    small = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    grain = noise.normal(0, 6, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(small) + grain, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _background(rng: Random, noise: np.random.Generator) -> np.ndarray:
    """A light gradient between two tints with a faint wave and blotches over it, (SIDE, SIDE, 3) uint8."""
    start, end = (np.array([rng.uniform(165, 235) for _ in range(3)]) for _ in range(2))
    angle, waves, phase = rng.uniform(0, 2 * math.pi), rng.uniform(1, 4), rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    along = x * math.cos(angle) + y * math.sin(angle)
    share = (along - along.min()) / np.ptp(along)
    field = start + (end - start) * share[..., None] + 7 * np.sin(2 * math.pi * waves * along + phase)[..., None]
    blotches = Image.fromarray(noise.integers(0, 255, (6, 6), dtype=np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    return np.clip(field + (np.asarray(blotches)[..., None] / 255 - 0.5) * 24, 0, 255).astype(np.uint8)


def _draw(draw: ImageDraw.ImageDraw, thing: Thing, jitter: tuple[float, float, float, float], style: str) -> None:
    dx, dy, grow, shade = jitter
    radius = _RADIUS[thing.size] * grow * _SCALE
    row, column = thing.cell
    x, y = ((SIDE / 4 + SIDE / 2 * place + shift) * _SCALE for place, shift in ((column, dx), (row, dy)))
    colour = tuple(round(min(255, max(0, channel + shade))) for channel in _RGB[thing.colour])
    outlines = _outlines(thing.shape, x, y, radius)
    if style == "outline":
        for outline in outlines:
            draw.line([*outline, outline[0], outline[1]], fill=(40, 40, 40), width=round(radius * 0.5), joint="curve")
            draw.line([*outline, outline[0], outline[1]], fill=colour, width=round(radius * 0.3), joint="curve")
        return
    if thing.shape == "ring":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=round(radius * 0.42))
        return
    for outline in outlines:
        draw.polygon(outline, fill=colour)


def _outlines(shape: str, x: float, y: float, r: float) -> list[list[tuple[float, float]]]:
    """Closed outlines of a shape as polygons, in canvas pixels."""

    def turn(radii: list[float], start: float) -> list[tuple[float, float]]:
        angles = [start + 2 * math.pi * i / len(radii) for i in range(len(radii))]
        return [(x + radius * math.cos(a), y + radius * math.sin(a)) for radius, a in zip(radii, angles)]

    if shape in ("circle", "ring"):
        return [turn([r] * 40, 0.0)]
    if shape == "square":
        return [turn([r * 1.2] * 4, math.pi / 4)]
    if shape == "triangle":
        return [turn([r * 1.2] * 3, -math.pi / 2)]
    if shape == "star":
        return [turn([r * 1.2, r * 0.48] * 5, -math.pi / 2)]
    arm = r * 0.36
    return [
        [
            (x - arm, y - r),
            (x + arm, y - r),
            (x + arm, y - arm),
            (x + r, y - arm),
            (x + r, y + arm),
            (x + arm, y + arm),
            (x + arm, y + r),
            (x - arm, y + r),
            (x - arm, y + arm),
            (x - r, y + arm),
            (x - r, y - arm),
            (x - arm, y - arm),
        ]
    ]
