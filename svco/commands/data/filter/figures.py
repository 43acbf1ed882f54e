"""The filter's pictures: every pair's two similarities with the thresholds, and the pairs nearest to them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import BadSample
from ....data.pairs import decode_image
from ....scores.style import SERIES, blank
from ..images import Roots
from ..records import Record
from .tally import BINS, Tally
from .thresholds import CLIP, DINO

COLOURS = {"kept": SERIES[0], "left out": "#9a9a9a", "exempt": SERIES[1]}
_INK, _SOFT = "#1a1a1a", "#6b6b6b"
_ACROSS, _SIDE = 2, 1.5
"""Pairs a line of the contact sheet, and an image's side in inches."""
_LONGEST = 320
"""Pixels of an image on the contact sheet, at most."""


def draw_scores(tally: Tally, names: Mapping[str, str], path: Path) -> None:
    """A scatter of the pairs over both scores, with thresholds and marginal histograms, as PNG. ``names``: of the encoders."""
    figure = blank(8.5, 8.0, 110)
    grid = figure.add_gridspec(
        2,
        2,
        width_ratios=(4, 1),
        height_ratios=(1, 4),
        hspace=0.06,
        wspace=0.06,
        left=0.1,
        right=0.97,
        top=0.9,
        bottom=0.09,
    )
    main = figure.add_subplot(grid[1, 0])
    for drawn, colour in COLOURS.items():
        some = np.array([point[:2] for point in tally.points if point[2] == drawn]).reshape(-1, 2)
        total = sum(
            int(counts.sum()) for (score, name), counts in tally.histograms.items() if (score, name) == (CLIP, drawn)
        )
        if total:
            main.scatter(*some.T, s=9, alpha=0.6, color=colour, linewidths=0, label=f"{drawn}: {total:,}")
    _draw_thresholds(main, tally)
    _margins(main, figure.add_subplot(grid[0, 0], sharex=main), figure.add_subplot(grid[1, 1], sharey=main), tally)
    main.set_xlabel(f"clip: cosine under {_short(names[CLIP])}")
    main.set_ylabel(f"dino: cosine under {_short(names[DINO])}")
    main.legend(loc="best", fontsize=9, frameon=False)
    shown = "" if tally.scored == len(tally.points) else f" ({len(tally.points):,} drawn)"
    title = f"{tally.kept:,} of {tally.scored:,} pairs kept{shown}"
    figure.text(0.1, 0.955, title, fontsize=14, weight="bold", color=_INK)
    text = "Kept: right of and below the lines. Alike in meaning, unlike in looks."
    figure.text(0.1, 0.925, text, fontsize=9.5, color=_SOFT)
    figure.savefig(path)


def _draw_thresholds(main: Any, tally: Tally) -> None:
    general = tally.thresholds.general
    main.axvline(general.clip_above, color=_INK, linewidth=1)
    main.axhline(general.dino_below, color=_INK, linewidth=1)
    for kind, own in tally.thresholds.of_type.items():
        main.axvline(own.clip_above, color=_SOFT, linewidth=0.8, linestyle=":")
        main.axhline(own.dino_below, color=_SOFT, linewidth=0.8, linestyle=":")
        main.annotate(kind, (own.clip_above, own.dino_below), fontsize=8, color=_SOFT, parse_math=False)
    values = np.array([point[:2] for point in tally.points] + [(general.clip_above, general.dino_below)])
    low, high = values.min(0) - 0.03, values.max(0) + 0.03
    main.set_xlim(low[0], high[0])
    main.set_ylim(low[1], high[1])


def _margins(main: Any, top: Any, side: Any, tally: Tally) -> None:
    """The distributions of each score, over all pairs."""
    width = BINS[1] - BINS[0]
    for score, axis, draw in ((CLIP, top, top.bar), (DINO, side, side.barh)):
        below = np.zeros(len(BINS) - 1)
        for drawn, colour in COLOURS.items():
            counts = tally.histograms.get((score, drawn))
            if counts is not None:
                start = {"bottom" if score == CLIP else "left": below}
                draw(BINS[:-1] + width / 2, counts, width, color=colour, **start)
                below = below + counts
        axis.axis("off")
    top.axvline(tally.thresholds.general.clip_above, color=_INK, linewidth=1)
    side.axhline(tally.thresholds.general.dino_below, color=_INK, linewidth=1)


def draw_borderline(pairs: Sequence[tuple[bool, Record]], images: Roots, path: Path) -> None:
    """A contact sheet of ``pairs`` (kept or not, pair) with their scores, as PNG."""
    lines = -(-len(pairs) // _ACROSS)
    width, head, line = 11.0, 0.7, _SIDE + 0.3
    total = head + line * lines
    figure = blank(width, total, 90)
    figure.text(
        0.02, 1 - 0.35 / total, "Pairs nearest to the thresholds", fontsize=14, weight="bold", color=_INK, va="center"
    )
    for number, (kept, record) in enumerate(pairs):
        left = 0.02 + number % _ACROSS * 0.5
        top = 1 - (head + line * (number // _ACROSS)) / total
        for side, name in enumerate(record.images):
            box = (left + side * (_SIDE + 0.1) / width, top - _SIDE / total, _SIDE / width, _SIDE / total)
            axis = figure.add_axes(box)
            axis.axis("off")
            axis.imshow(_small(images, name))
        scores = f"clip {record.scores[CLIP]:.3f}, dino {record.scores[DINO]:.3f}"
        place = left + 2 * (_SIDE + 0.1) / width
        verdict, colour = ("kept", COLOURS["kept"]) if kept else ("left out", SERIES[1])
        figure.text(place, top, verdict, fontsize=10, weight="bold", color=colour, va="top")
        texts = [record.type, scores, *textwrap.wrap(" / ".join(_texts(record)), 30)[:6]]
        figure.text(place, top - 0.22 / total, "\n".join(texts), fontsize=8.5, color=_INK, va="top", parse_math=False)
    figure.savefig(path)


def _small(images: Roots, name: str) -> Any:
    try:
        picture = decode_image((images / name).read_bytes(), name)
    except (BadSample, OSError):  # it was there a moment ago
        return np.full((8, 8, 3), 255, np.uint8)
    picture.thumbnail((_LONGEST, _LONGEST))
    return np.asarray(picture)


def _texts(record: Record) -> tuple[str, ...]:
    if record.written:
        return record.responses
    return record.captions or (record.instruction or "",)


def _short(name: str) -> str:
    return Path(name).name or name
