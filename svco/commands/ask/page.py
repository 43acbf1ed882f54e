"""The answers as one HTML page that needs nothing outside it: every token coloured by what the image says about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...basics.html import render
from ..probe.page import Quantity, quantities_of, response, shown
from ..probe.scale import legend
from .answers import Answer, Picture


def page(question: str, facts: Mapping[str, str], found: Sequence[tuple[Picture, Mapping[str, Answer]]]) -> str:
    """``page.html.j2`` filled with what was answered about each image; all text is escaped."""
    quantities = quantities_of(3 if len(found) > 1 else 2)
    return render(
        Path(__file__).with_name("page.html.j2"),
        title=question,
        facts=facts,
        quantities=quantities,
        legend=legend(),
        asked=[
            (picture.name, shown(picture.data), {name: _told(answer, quantities) for name, answer in answers.items()})
            for picture, answers in found
        ],
    )


def _told(answer: Answer, quantities: Sequence[Quantity]) -> dict[str, Any]:
    cut = "cut there, " if answer.is_cut else ""
    if answer.logps is None:
        return {
            "tokens": [{"classes": "t", "tip": answer.why, "text": answer.text}],
            "sums": f"{cut}not scored: {answer.why}",
        }
    told = response(answer.pieces, answer.special, answer.logps, quantities)
    return {**told, "sums": f"{cut}{told['sums']}"}
