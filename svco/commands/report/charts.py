"""Charts as SVG inside the page: matplotlib draws, and the page's own style says the colours, for light and dark screens."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .series import MOST_LINES, Chart, Points, points

COLOURS = {
    **{str(number): f"var(--c{number % 6})" for number in range(64)},
    "match": "var(--match)",
    "blind": "var(--blind)",
    "clash": "var(--clash)",
    "corrupt": "var(--corrupt)",
}
"""Name of a colour -> what ``page.css`` calls it."""
_WIDTH, _HEIGHT = 4.6, 2.3
"""Inches, of which one is 72 of the SVG's units."""
_INK, _LINE = "#0d0e01", "#0d0e02"
"""Stand for the text's and the grid's colours until the page says them."""


@dataclass(frozen=True)
class Drawn:
    """One line of a panel, as its legend tells it."""

    words: str
    """What it is."""
    colour: str
    """A CSS colour."""
    dashed: bool
    """How it is drawn."""
    last: str
    """Its last value."""


@dataclass(frozen=True)
class Panel:
    """One picture."""

    words: str
    """What stands above it where a chart has several; else empty."""
    svg: str
    """The picture, without any text but numbers."""
    legend: tuple[Drawn, ...]
    """Its lines."""
    left_out: int = 0
    """Lines that had no room."""


def panels(chart: Chart, logs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Panel]:
    """The pictures of a chart: one for a single run; of several runs (name -> log) one a line, a colour a run."""
    if len(logs) == 1:
        (log,) = logs.values()
        shown = [(line.words, line.colour, line.dashed, points(log, line.key)) for line in chart.lines[:MOST_LINES]]
        return _panel("", chart, shown, len(chart.lines) - len(shown))
    found = []
    for line in chart.lines[:MOST_LINES]:
        shown = [
            (name, str(number), number >= 6, points(log, line.key)) for number, (name, log) in enumerate(logs.items())
        ]
        found += _panel(line.words if len(chart.lines) > 1 else "", chart, shown, 0)
    return found


def _panel(words: str, chart: Chart, shown: Sequence[tuple[str, str, bool, Points]], left_out: int) -> list[Panel]:
    """None where there is no point to draw."""
    shown = [(name, colour, dashed, (x, y)) for name, colour, dashed, (x, y) in shown if np.isfinite(y).any()]
    if not shown:
        return []
    legend = tuple(Drawn(name, COLOURS[c], dashed, number(float(y[-1]))) for name, c, dashed, (_, y) in shown)
    return [Panel(words, _svg(chart, [(c, d, xy) for _, c, d, xy in shown]), legend, left_out)]


def number(value: float) -> str:
    """A number of the page, with a true minus."""
    if not np.isfinite(value):
        return "not finite"
    text = f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.4g}"
    return text.replace("-", "−")


def _svg(chart: Chart, lines: Sequence[tuple[str, bool, Points]]) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    from ...scores.style import blank

    # Text stays text; ids depend on what is drawn, so that two pictures of a page share none that differ.
    salt = f"{chart.title} {[(c, d, x.tobytes(), y.tobytes()) for c, d, (x, y) in lines]}"
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "axes.unicode_minus": True}):
        figure = blank(_WIDTH, _HEIGHT, 72, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        names = {}
        for place, (colour, dashed, (x, y)) in enumerate(lines):
            names[stand_in := f"#0c{place:02x}00"] = COLOURS[colour]
            style = {"color": stand_in, "linewidth": 1.4, "linestyle": (0, (4, 2)) if dashed else "-"}
            axes.plot(x, y, marker="o" if len(x) < 24 else "", markersize=2.6, **style)
        _dress(axes, chart, [y for _, _, (_, y) in lines])
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S).replace("xlink:href", "href")
    for stand_in, colour in {**names, _INK: "var(--soft)", _LINE: "var(--line)"}.items():
        text = text.replace(stand_in, colour)
    return re.sub(r"\n\s*", "\n", text)


def _dress(axes: Any, chart: Chart, values: Sequence[np.ndarray]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    axes.grid(color=_LINE, linewidth=0.7)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    finite = np.concatenate([y[np.isfinite(y)] for y in values])
    if chart.log and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda value, _: number(value + 0.0))
    if chart.share:
        axes.set_ylim(-0.03, 1.03)
