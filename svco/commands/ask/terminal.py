"""Answers in a terminal: side by side as they come where there is one, one after another in a pipe; coloured where one may."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from ..probe.scale import step
from .answers import Answer, gains, sums

_STYLES = {
    "n5": "48;5;130;38;5;231",
    "n4": "48;5;166;38;5;16",
    "n3": "48;5;209;38;5;16",
    "n2": "48;5;223;38;5;16",
    "n1": "48;5;230;38;5;16",
    "p1": "48;5;195;38;5;16",
    "p2": "48;5;153;38;5;16",
    "p3": "48;5;110;38;5;16",
    "p4": "48;5;68;38;5;16",
    "p5": "48;5;24;38;5;231",
}
"""Step of the scale -> what a terminal of 256 colours shows it with; the middle has none."""
_VIEWS = {"match": "its image", "blind": "no image", "clash": "the other image"}
_NARROW = 30
"""Letters below which a column is none."""
_GAP = 3
_NAMED = 3
"""Tokens that are named as most and least of the image."""


@dataclass(frozen=True)
class Part:
    """A stretch of text with what it is shown with."""

    text: str
    style: str = ""


class Screen:
    """Where answers are shown; ``out`` is a terminal or a pipe."""

    def __init__(self, out: TextIO):
        self.out = out
        terminal = out.isatty() and os.environ.get("TERM", "") != "dumb"
        self.moves = terminal
        """Lines that were written can be written again."""
        self.colours = terminal and not os.environ.get("NO_COLOR")
        self.width = min(160, shutil.get_terminal_size().columns)

    def say(self, text: str = "") -> None:
        """One line."""
        print(printable(text), file=self.out, flush=True)


class Board:
    """The answers of some models to one image."""

    def __init__(self, screen: Screen, models: Sequence[str]):
        self.screen = screen
        self.parts: dict[str, list[Part]] = {name: [] for name in models}
        self.below: dict[str, list[str]] = {name: [] for name in models}
        self._drawn = 0
        self._written: dict[str, str] = {}
        columns = (screen.width - _GAP * (len(models) - 1)) // len(models)
        self.wide = max(1, columns)
        self.beside = screen.moves and columns >= _NARROW

    def told(self, model: str, text: str) -> None:
        """The answer of ``model`` has grown to ``text``."""
        if self.beside:
            self.parts[model] = [Part(text)]
            self._draw()
            return
        before = self._written.get(model)
        if before is None:
            self.screen.out.write(f"  {printable(model)}: ")
        before = before or ""
        # A text that changes behind (a mark joined to its letter) is written to its end by ``done``.
        if text.startswith(before):
            self.screen.out.write(printable(text[len(before) :]))
            self._written[model] = text
        self.screen.out.flush()

    def done(self, model: str, found: Answer) -> None:
        """The answer of ``model`` is complete and scored."""
        coloured = [Part(piece, _STYLES.get(step(gain), "")) for piece, gain in gains(found)]
        shown = coloured if self.screen.colours and coloured else [Part(found.text or "(no answer)")]
        self.parts[model], self.below[model] = shown, list(lines_below(found))
        if self.beside:
            self._draw()
            return
        if model in self._written and self._written[model] == found.text:
            self.screen.out.write("\n")
        else:
            self.screen.say(f"  {model}: {found.text or '(no answer)'}" if model not in self._written else "")
        if self.screen.colours and coloured:
            self.screen.out.write("  " + "".join(_styled(part) for part in coloured) + "\n")
        for line in self.below[model]:
            self.screen.say(f"    {line}")

    def _draw(self) -> None:
        """Writes all columns again over what was written."""
        columns = []
        for model, parts in self.parts.items():
            rows = [[Part(model, "1" if self.screen.colours else "")], *wrapped(parts, self.wide)]
            columns.append(rows + [row for line in self.below[model] for row in wrapped([Part(line)], self.wide)])
        height = max(map(len, columns))
        lines = []
        for number in range(height):
            cells = [column[number] if number < len(column) else [] for column in columns]
            lines.append((" " * _GAP).join(_padded(cell, self.wide) for cell in cells).rstrip())
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        # Cleared line by line: what was drawn before may have been longer.
        self.screen.out.write(up + "".join(f"\r\x1b[K{line}\n" for line in lines) + "\x1b[J")
        self.screen.out.flush()
        self._drawn = height


def lines_below(found: Answer) -> Iterable[str]:
    """What is said of an answer under it."""
    if found.is_cut:
        yield "cut there (--max-new-tokens)"
    if found.logps is None:
        yield f"not scored: {found.why}"
        return
    told = ", ".join(f"{_VIEWS[view]} {_number(value)}" for view, value in sums(found).items())
    yield f"log p: {told} nats; {len(found.pieces)} tokens"
    shown = [
        (piece, gain) for (piece, gain), special in zip(gains(found), found.special) if piece.strip() and not special
    ]
    ranked = sorted(shown, key=lambda token: -token[1])
    most = [f"{piece.strip()} {_number(gain, '+')}" for piece, gain in ranked[:_NAMED] if gain >= 0.1]
    least = [f"{piece.strip()} {_number(gain, '+')}" for piece, gain in ranked[: -_NAMED - 1 : -1] if gain <= -0.1]
    if most:
        yield f"the image says most for: {', '.join(most)}"
    if least:
        yield f"and against: {', '.join(least)}"


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2f}".replace("-", "−")


def printable(text: str) -> str:
    """``text`` without what would play with the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n" else " " for letter in text)


def wide(text: str) -> int:
    """Columns that ``text`` takes in a terminal."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text
    )


def wrapped(parts: Iterable[Part], width: int) -> list[list[Part]]:
    """``parts`` in lines of at most ``width`` columns, broken before a part or between words where one can."""
    rows: list[list[Part]] = [[]]
    used = 0
    for part in parts:
        for number, text in enumerate(printable(part.text).split("\n")):
            if number:
                rows.append([])
                used = 0
            for word in _words(text):
                for piece in _pieces(word, width):
                    if used and used + wide(piece.rstrip()) > width:
                        rows.append([])
                        used, piece = 0, piece.lstrip()
                    if piece:
                        rows[-1].append(Part(piece, part.style))
                        used += wide(piece)
    return [row for row in rows if row] or [[]]


def _words(text: str) -> Iterable[str]:
    """``text`` cut before each blank."""
    word = ""
    for letter in text:
        if letter == " " and word.strip():
            yield word
            word = ""
        word += letter
    if word:
        yield word


def _pieces(word: str, width: int) -> Iterable[str]:
    """A word that is longer than a line in pieces that are not."""
    piece = ""
    for letter in word:
        if wide(piece + letter) > width and piece:
            yield piece
            piece = ""
        piece += letter
    if piece:
        yield piece


def _padded(row: Sequence[Part], width: int) -> str:
    used = sum(wide(part.text) for part in row)
    return "".join(map(_styled, row)) + " " * max(0, width - used)


def _styled(part: Part) -> str:
    text = printable(part.text)
    return f"\x1b[{part.style}m{text}\x1b[0m" if part.style and text else text
