"""What an inspection found, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...basics.files import replacing
from ...scores.style import SERIES, blank
from .inspection import Inspection

_ROWS = 30
"""Values of one kind that a table shows; ``--json`` has all."""
_BINS = 40
_MOST = 0.995
"""Share of what is drawn: few very long ones would leave the rest in one bar."""


def tables(found: Inspection) -> str:
    """Plain tables for a terminal."""
    lines = [f"{found.pairs:,} pairs" + (f", {found.unwritten:,} without a question" if found.unwritten else "")]
    for name, counts in found.counts.items():
        if not counts:
            continue
        rows = counts.most_common()
        lines += [
            "",
            *_aligned([(name, "pairs", "share"), *((v, f"{n:,}", f"{n / found.pairs:.1%}") for v, n in rows[:_ROWS])]),
        ]
        if len(rows) > _ROWS:
            lines.append(f"  and {len(rows) - _ROWS:,} more")
    if found.spreads:
        facts = {name: spread.facts() for name, spread in sorted(found.spreads.items())}
        head = ("measured", *next(iter(facts.values())))
        lines += [
            "",
            *_aligned([head, *((name, *(f"{number:,g}" for number in row.values())) for name, row in facts.items())]),
        ]
    if found.bad:
        lines += ["", *_aligned([("cannot be read", "count"), *((r, f"{n:,}") for r, n in found.bad.most_common())])]
        lines += [f"  {said}" for said in found.named]
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length with their first column left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def draw(found: Inspection, path: Path) -> None:
    """A histogram of everything that was measured, as a PNG."""
    spreads = sorted(found.spreads.items())
    figure = blank(9, 0.6 + 2 * -(-len(spreads) // 3), 150, layout="constrained")
    for place, (name, spread) in enumerate(spreads, 1):
        axes = figure.add_subplot(-(-len(spreads) // 3), 3, place)
        numbers = sorted(spread.counts)
        low, high = numbers[0], max(spread.at(_MOST), numbers[0] + 1)
        shown = [number for number in numbers if number <= high]
        axes.hist(
            shown,
            bins=min(_BINS, high - low + 1),
            range=(low - 0.5, high + 0.5),
            weights=[spread.counts[number] for number in shown],
            color=SERIES[0],
        )
        beyond = sum(count for number, count in spread.counts.items() if number > high)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        if beyond:
            axes.set_xlabel(f"{beyond:,} beyond, up to {numbers[-1]:,}", fontsize=7)
    figure.suptitle(f"{found.pairs:,} pairs", fontsize=10)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        figure.savefig(stream, format="png")
