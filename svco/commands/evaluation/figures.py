"""Two figures of an evaluation: pair accuracy by contrast type, and what the image is worth to the responses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...basics.files import writing
from ...scores.style import SERIES, blank

_COLOURS = (*SERIES, "#000000")
_GAPS = {
    "match_minus_blind": "match − blind",
    "blind_minus_clash": "blind − clash",
    "match_minus_corrupt": "match − corrupt",
}


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Writes ``pair_accuracy.png`` and ``gaps.png`` of the sets in eval.json into ``folder``; nothing where there is no set."""
    sets = {name: part for name, part in result["sets"].items() if part["pairs"]}
    if not sets:
        return
    labels = sorted({label for part in sets.values() for label in part["by_contrast"]})
    accuracy = {
        name: [part["pair_accuracy"], *(part["by_contrast"].get(label, {}).get("pair_accuracy") for label in labels)]
        for name, part in sets.items()
    }
    title = result["model"]["name"]
    axes = _points(folder / "pair_accuracy.png", ["all", *labels], accuracy, 100)
    axes.set_ylabel("pair accuracy, %")
    axes.set_ylim(0, 102)
    axes.set_title(f"{title}: both responses likelier under their own image, 95% intervals", fontsize=10, loc="left")
    with writing(folder / "pair_accuracy.png"):
        axes.figure.savefig(folder / "pair_accuracy.png")
    kinds = [gap for gap in _GAPS if any(gap in part for part in sets.values())]
    gaps = {name: [part.get(kind) for kind in kinds] for name, part in sets.items()}
    axes = _points(folder / "gaps.png", [_GAPS[kind] for kind in kinds], gaps, 1)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_ylabel("nats a response")
    axes.set_title(f"{title}: what the image is worth, 95% intervals", fontsize=10, loc="left")
    with writing(folder / "gaps.png"):
        axes.figure.savefig(folder / "gaps.png")


def _points(path: Path, ticks: list[str], groups: Mapping[str, list[Mapping[str, Any] | None]], scale: float) -> Any:
    """Axes with a point and its interval for each tick and group, side by side."""
    figure = blank(max(5.5, 1.3 * len(ticks) + 1.5), 3.8, 110, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, parts) in enumerate(groups.items()):
        shift = 0.6 * ((number + 0.5) / len(groups) - 0.5)
        colour = _COLOURS[number % len(_COLOURS)]
        known = {n: part for n, part in enumerate(parts) if part and part["value"] is not None}
        values = [scale * part["value"] for part in known.values()]
        reach = [[scale * _reach(part, end) for part in known.values()] for end in ("low", "high")]
        axes.errorbar([n + shift for n in known], values, reach, fmt="o", color=colour, capsize=3, label=name)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=9)
    return axes


def _reach(part: Mapping[str, Any], end: str) -> float:
    """How far the interval goes from its value to this end; 0 where a single pair has no interval."""
    return 0.0 if part[end] is None else abs(part[end] - part["value"])
