"""A contact sheet: pairs with their texts and the six log-probabilities of each, before and after training."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluate import pair_right
from .views import VIEWS

if TYPE_CHECKING:
    import numpy as np

_COLOURS = {"match": "#0072B2", "blind": "#8c8c8c", "clash": "#D55E00"}
"""Okabe and Ito's colours: told apart by colour-blind readers too."""
_INK, _SOFT = "#1a1a1a", "#6b6b6b"


@dataclass(frozen=True)
class SheetRow:
    """One pair on the sheet."""

    key: str
    """Its key."""
    query: str
    """What is asked."""
    responses: tuple[str, str]
    """Response of side 0 and of side 1."""
    images: tuple[bytes, bytes]
    """The encoded images."""
    before: np.ndarray
    """(2, 3) log-probabilities before training, nats: side, view."""
    after: np.ndarray
    """(2, 3) after training."""
    contrast: str
    """Contrast type."""


def contact_sheet(rows: Sequence[SheetRow], path: Path, title: str) -> None:
    """Draws ``rows`` one below the other into PNG ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 2.35
    figure = Figure(figsize=(11.5, height * len(rows) + 0.85), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    total = height * len(rows) + 0.85
    figure.text(0.02, 1 - 0.3 / total, title, fontsize=15, weight="bold", color=_INK, va="center")
    _legend(figure, 1 - 0.3 / total)
    for number, row in enumerate(rows):
        _draw_row(figure, row, top=1 - (0.6 + height * number) / total, height=height / total)
    figure.savefig(path)


def _legend(figure: Any, y: float) -> None:
    words = {"match": "its own image", "blind": "no image", "clash": "the other image"}
    for place, view in enumerate(VIEWS):
        x = 0.57 + place * 0.145
        figure.text(x, y, "■", color=_COLOURS[view], fontsize=12, va="center")
        figure.text(x + 0.015, y, f"{view}: {words[view]}", color=_INK, fontsize=9, va="center")


def _draw_row(figure: Any, row: SheetRow, top: float, height: float) -> None:
    figure.text(
        0.02, top - 0.02 * height, f"{row.contrast} · {row.query}", fontsize=11, weight="bold", color=_INK, va="top"
    )
    low = min(0.0, float(min(row.before.min(), row.after.min())))
    for side in (0, 1):
        _draw_image(figure, row, side, (0.02 + 0.145 * side, top - 0.93 * height, 0.135, 0.76 * height))
        _draw_bars(figure, row, side, low, top - (0.17 + 0.42 * side) * height, height)
    for x, name, logps in ((0.66, "before", row.before), (0.845, "after", row.after)):
        right = bool(pair_right(logps[None])[0])
        figure.text(
            x,
            top - 0.02 * height,
            f"{name}: {'both right ✓' if right else 'not both right ✗'}",
            fontsize=9.5,
            va="top",
            color="#00735c" if right else "#a33a00",
            weight="bold",
            family="DejaVu Sans",
        )


def _draw_image(figure: Any, row: SheetRow, side: int, box: tuple[float, float, float, float]) -> None:
    import numpy as np
    from PIL import Image

    axes = figure.add_axes(box)
    image = Image.open(io.BytesIO(row.images[side])).convert("RGB")
    axes.imshow(np.asarray(image), interpolation="nearest" if max(image.size) < 128 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#cccccc")
    axes.set_title(f"image {side}", fontsize=8, color=_SOFT, pad=2)


def _draw_bars(figure: Any, row: SheetRow, side: int, low: float, top: float, height: float) -> None:
    """The response of one side and its three log-probabilities, before and after."""
    words = "\n".join(textwrap.wrap(f"{side}: “{row.responses[side]}”", 44)[:4])
    figure.text(0.325, top - 0.05 * height, words, fontsize=9.5, color=_INK, va="top", linespacing=1.25)
    for left, logps in ((0.66, row.before), (0.845, row.after)):
        axes = figure.add_axes((left, top - 0.36 * height, 0.125, 0.33 * height))
        values = [float(v) for v in logps[side]]
        axes.barh(
            range(3), [value - low for value in values], left=low, color=[_COLOURS[view] for view in VIEWS], height=0.72
        )
        for place, value in enumerate(values):
            axes.text(0.02 * -low, place, f"{value:.2f}", fontsize=8, va="center", color=_INK)
        axes.set_xlim(low or -1, 0)
        axes.set_ylim(2.5, -0.5)
        axes.set_axis_off()
