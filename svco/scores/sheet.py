"""A contact sheet: pairs with their texts and the six log-probabilities of each, before and after training."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.files import writing
from ..basics.views import VIEWS
from ..data.pictures import decode_image, png_bytes
from .pair_scores import pair_right
from .style import COLOURS, WORDS, blank

if TYPE_CHECKING:
    import numpy as np

_INK, _SOFT, _GOOD, _POOR = "#1a1a1a", "#6b6b6b", "#00735c", "#a33a00"
_WIDTH, _HEAD, _ROW = 11.5, 0.95, 2.3
"""Inches: the sheet, its head, a row."""
_DPI = 100
_COLUMNS = {"before": (0.575, 0.18), "after": (0.79, 0.18)}
"""Left edge and width of the two panels of bars, as shares of the sheet."""


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
    """(2, V) log-probabilities before training, nats: side, view; the first three views are drawn."""
    after: np.ndarray
    """(2, V) after training."""
    contrast: str
    """Contrast type."""


def contact_sheet(rows: Sequence[SheetRow], path: Path, title: str) -> None:
    """Draws ``rows`` one below the other into PNG ``path``.

    A pair is right when under both images the true response is likelier than the other side's. Bars are
    log-probabilities in nats, all on the row's own scale: longer means less likely.
    """
    total = _HEAD + _ROW * len(rows)
    figure = blank(_WIDTH, total, _DPI)
    figure.text(0.02, 1 - 0.3 / total, title, fontsize=15, weight="bold", color=_INK, va="center")
    subtitle = "log-probability of each response, in nats, read with"
    figure.text(0.02, 1 - 0.65 / total, subtitle, fontsize=10, color=_SOFT, va="center")
    for place, view in enumerate(VIEWS):
        x = 0.38 + place * 0.175
        figure.text(x, 1 - 0.65 / total, "■", color=COLOURS[view], fontsize=12, va="center")
        figure.text(x + 0.016, 1 - 0.65 / total, f"{WORDS[view]} ({view})", color=_INK, fontsize=9.5, va="center")
    for number, row in enumerate(rows):
        _draw_row(figure, row, top=1 - (_HEAD + _ROW * number) / total, inch=1 / total)
    with writing(path):
        figure.savefig(path)


def each_pair(sheet: bytes) -> list[bytes]:
    """The pairs of a sheet that :func:`contact_sheet` drew, one a PNG, each under the sheet's head."""
    from PIL import Image

    pictures = []
    image = decode_image(sheet, "the sheet")
    head, row = round(_HEAD * _DPI), round(_ROW * _DPI)
    for top in range(head, image.height - row // 2, row):
        one = Image.new("RGB", (image.width, head + row), "white")
        one.paste(image.crop((0, 0, image.width, head)))
        one.paste(image.crop((0, top, image.width, min(image.height, top + row))), (0, head))
        pictures.append(png_bytes(one))
    return pictures


def _draw_row(figure: Any, row: SheetRow, top: float, inch: float) -> None:
    figure.text(
        0.02, top, f"{row.contrast}: {row.query}", fontsize=11.5, weight="bold", color=_INK, va="top", parse_math=False
    )
    drawn = len(VIEWS)
    low = 1.3 * min(-1e-3, float(min(row.before[:, :drawn].min(), row.after[:, :drawn].min())))
    for side in (0, 1):
        _draw_image(figure, row, side, (0.02 + 0.14 * side, top - 2.03 * inch, 0.13, 1.5 * inch))
        words = "\n".join(textwrap.wrap(f"“{row.responses[side]}”", 32)[:4])
        middle = top - (0.75 + 0.92 * side) * inch
        figure.text(
            0.31, middle + 0.42 * inch, f"response {side}, true of image {side}", fontsize=8.5, color=_SOFT, va="top"
        )
        figure.text(
            0.31, middle + 0.24 * inch, words, fontsize=10, color=_INK, va="top", linespacing=1.3, parse_math=False
        )
        for name, logps in (("before", row.before), ("after", row.after)):
            left, width = _COLUMNS[name]
            _draw_bars(figure, logps[side], low, (left, middle - 0.36 * inch, width, 0.78 * inch))
    for name, logps in (("before", row.before), ("after", row.after)):
        right = bool(pair_right(logps[None])[0])
        verdict = "pair right ✓" if right else "pair not right ✗"
        figure.text(
            _COLUMNS[name][0],
            top,
            f"{name}: {verdict}",
            fontsize=10,
            va="top",
            weight="bold",
            color=_GOOD if right else _POOR,
        )


def _draw_image(figure: Any, row: SheetRow, side: int, box: tuple[float, float, float, float]) -> None:
    import numpy as np

    axes = figure.add_axes(box)
    image = decode_image(row.images[side], f"image {side}")
    axes.imshow(np.asarray(image), interpolation="nearest" if max(image.size) < 128 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#cccccc")
    axes.set_title(f"image {side}", fontsize=8.5, color=_SOFT, pad=3)


def _draw_bars(figure: Any, logps: np.ndarray, low: float, box: tuple[float, float, float, float]) -> None:
    """Three bars from 0 to the left edge's direction: the longer, the less likely."""
    axes = figure.add_axes(box)
    lengths = [-float(value) for value in logps[: len(VIEWS)]]
    axes.barh(range(3), lengths, color=[COLOURS[view] for view in VIEWS], height=0.74)
    for place, length in enumerate(lengths):
        axes.text(length - 0.015 * low, place, f"{-length:.2f}", fontsize=8.5, va="center", color=_INK)
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set_xlim(0, -low)
    axes.set_ylim(2.5, -0.5)
    axes.set_axis_off()
