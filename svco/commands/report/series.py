"""From the lines of a log to what is drawn: which numbers belong on one chart, and how many points of them are seen."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ...basics.views import ALL_VIEWS, VIEWS
from ...scores.measures import NAMES, SHARES

MOST_POINTS = 400
"""Of a line that is drawn: of more, the least and the greatest of each stretch are kept, so that no jump is hidden."""
MOST_LINES = 12
"""On a chart; so many more are only named."""
Points = tuple[np.ndarray, np.ndarray]
"""(steps, values), (n,) float64 each; NaN makes a gap."""


@dataclass(frozen=True)
class Line:
    """One number of a log."""

    key: str
    """Its name there, or what was made of several."""
    words: str
    """What the page calls it."""
    colour: str
    """Of :data:`svco.commands.report.charts.COLOURS`, where one run is drawn."""
    dashed: bool = False
    """Side 1 beside side 0."""


@dataclass(frozen=True)
class Chart:
    """Lines that share an axis."""

    title: str
    """What stands above it."""
    note: str
    """What it shows, with its unit."""
    lines: tuple[Line, ...]
    """What is on it."""
    log: bool = False
    """A logarithmic axis."""
    share: bool = False
    """Shares, from 0 to 1."""


_DELTA_GAPS = {"gap/match − blind": (0, 1), "gap/blind − clash": (1, 2)}
"""Made of Δ: how much further apart than under the reference."""
_PLAIN = {
    "loss": ("Loss", "mean over the pairs of a step", False),
    "lr": ("Learning rate", "", False),
    "grad_norm": ("Gradient norm", "before it is clipped", True),
    "pairs_per_second": ("Throughput", "pairs a second, all ranks", False),
    "tokens_per_second": ("Throughput", "tokens a second, all ranks", False),
    "memory_peak_bytes": ("Memory", "GB at the peak, the largest of the ranks", False),
}
"""Number of a log -> (title of its chart, note, logarithmic)."""
_PREFIXES = {
    "loss/": ("Terms of the loss", "mean over the pairs of a step", False),
    "delta/": ("Δ of each cell", "log-probability over the reference's, nats a response", False),
    "gap/": (
        "The two gaps while training",
        "match − blind and blind − clash over the reference's own, nats a response, mean of both sides",
        False,
    ),
    "margin/": ("Margins", "β times the difference of Δ that a term looks at", False),
    "accuracy/": ("Accuracy of the terms", "share of pairs whose margin is above 0", True),
    "seconds/": ("Where the time goes", "seconds a step on rank 0, by part", False),
    "bad/": ("Bad pairs", "so far, by reason", False),
}
"""Beginning of a name -> (title, note, shares)."""
_LATER = (
    "lr",
    "grad_norm",
    "pairs_per_second",
    "tokens_per_second",
    "seconds/",
    "memory_peak_bytes",
    "skipped",
    "bad/",
)
_NO_CURVE = ("step", "epoch", "pairs")


def charts(logs: Sequence[Sequence[Mapping[str, float]]]) -> list[Chart]:
    """The charts of the runs whose logs those are: every number that one of them has is on one."""
    keys = list(dict.fromkeys(chain.from_iterable(chain.from_iterable(logs))))
    if any(f"delta/0_{view}" in keys for view in VIEWS):
        keys += list(_DELTA_GAPS)
    found, taken = [], set(_NO_CURVE)

    def put(chart: Chart | None, names: Iterable[str]) -> None:
        taken.update(names)
        if chart is not None and chart.lines:
            found.append(chart)

    for name in ("loss", "loss/", "delta/", "gap/"):
        put(*_of_name(name, keys))
    put(*_validation(keys, "The two gaps on validation pairs", "nats a response", _is_gap))
    for name in ("margin/", "accuracy/"):
        put(*_of_name(name, keys))
    put(*_validation(keys, "Accuracies on validation pairs", "shares of the pairs", _is_share, share=True))
    for name in _LATER:
        put(*_of_name(name, keys))
    put(*_validation(keys, "Other figures of validation pairs", "", lambda name: name.startswith("validation/"), taken))
    rest = [key for key in keys if key not in taken]
    for prefix in dict.fromkeys(key.rpartition("/")[0] for key in rest):
        own = [key for key in rest if key.rpartition("/")[0] == prefix]
        for key in own if not prefix else [""]:
            lines = [key] if key else own
            put(Chart(prefix or key, "as logged", _lines(lines)), lines)
    return found


def _of_name(name: str, keys: Sequence[str]) -> tuple[Chart | None, list[str]]:
    if not name.endswith("/"):
        title, note, log = _PLAIN.get(name, ("Skipped steps", "so far", False))
        own = [key for key in (name, f"{name}_max") if key in keys]
        return (Chart(title, note, _lines(own), log), own) if name in keys else (None, [])
    title, note, share = _PREFIXES[name]
    own = [key for key in keys if key.startswith(name) and key != "seconds/lap"]
    own = sorted(own, key=_cell) if name == "delta/" else own
    return Chart(title, note, _lines(own), share=share), [*own, "seconds/lap"] if name == "seconds/" else own


def _cell(key: str) -> tuple[str, int]:
    side, _, view = key.removeprefix("delta/").partition("_")
    return side, ALL_VIEWS.index(view) if view in ALL_VIEWS else len(ALL_VIEWS)


def _validation(
    keys: Sequence[str], title: str, note: str, fits: object, taken: Iterable[str] = (), share: bool = False
) -> tuple[Chart, list[str]]:
    own = [key for key in keys if key.startswith("validation/") and callable(fits) and fits(key) and key not in taken]
    return Chart(title, note, _lines(own), share=share), own


def _is_gap(key: str) -> bool:
    return "_minus_" in key


def _is_share(key: str) -> bool:
    measure = key.removeprefix("validation/")
    return measure in SHARES or measure.endswith("accuracy")


def _lines(keys: Sequence[str]) -> tuple[Line, ...]:
    """A colour a view or a name, dashed for side 1."""
    colours: dict[str, str] = {}
    lines = []
    for key in keys:
        rest = key.rpartition("/")[2]
        if found := re.fullmatch(rf"([01])_({'|'.join(ALL_VIEWS)})", rest):
            side, view = found.groups()
            lines.append(Line(key, f"{view}, side {side}", view, side == "1"))
            continue
        side_of = re.fullmatch(r"(.+)_([01])", rest)
        stem, dashed = (side_of[1], side_of[2] == "1") if side_of else (rest, False)
        colour = colours.setdefault(stem, str(len(colours)))
        words = f"{stem}, side {side_of[2]}" if side_of else NAMES.get(rest, rest.replace("_", " "))
        lines.append(Line(key, words, colour, dashed))
    return tuple(lines)


def points(log: Sequence[Mapping[str, float]], key: str) -> Points:
    """The points of ``key`` in a log, thinned to what can be seen."""
    steps, values, before = [], [], 0.0
    for record in log:
        value = _value(record, key, before)
        if value is not None:
            steps.append(record["step"])
            values.append(value)
        if "loss" in record or "lr" in record:
            before = record["step"]
    return thinned(np.array(steps, float), np.array(values, float))


def _value(record: Mapping[str, float], key: str, before: float) -> float | None:
    """``before``: the last step that was logged, since which the seconds of a line are counted."""
    if key in _DELTA_GAPS:
        more, less = (VIEWS[view] for view in _DELTA_GAPS[key])
        sides = [(record.get(f"delta/{s}_{more}"), record.get(f"delta/{s}_{less}")) for s in (0, 1)]
        gaps = [a - b for a, b in sides if a is not None and b is not None]
        return math.fsum(gaps) / len(gaps) if gaps else None
    value = record.get(key)
    if value is None:
        return None
    if key.startswith("seconds/"):
        return value / max(1.0, record["step"] - before)
    return value / 1e9 if key == "memory_peak_bytes" else value


def thinned(steps: np.ndarray, values: np.ndarray) -> Points:
    """At most :data:`MOST_POINTS` of (n,) points: of each stretch its least and its greatest, and a gap where there is one."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    kept: list[int] = []
    for stretch in np.array_split(np.arange(len(steps)), MOST_POINTS // 3):
        finite = stretch[np.isfinite(values[stretch])]
        gaps = stretch[~np.isfinite(values[stretch])][:1].tolist()
        ends = [int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])] if len(finite) else []
        kept += sorted({*gaps, *ends})
    return steps[kept], values[kept]
