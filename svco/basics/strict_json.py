"""JSON, in both directions the standard's: the one door by which svco writes it, and a strict reader of what others wrote.

JSON has no word for NaN and infinities, and Python writes and reads them all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CHUNK = 2**16
"""Characters that are read at a time."""
MOST_ITEM = 2**26
"""Characters of one item of a long file: what is larger is refused before it fills the memory."""


def json_text(
    value: Any,
    *,
    indent: int | None = None,
    sort_keys: bool = False,
    compact: bool = False,
    ascii_only: bool = True,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """``value`` as JSON: what is NaN or infinite becomes ``null``, the word for a number that there is none of. ``compact``: no
    spaces; ``default`` makes something of what JSON does not know. TypeError for what it knows nothing of."""
    layout: dict[str, Any] = {"indent": indent, "sort_keys": sort_keys, "ensure_ascii": ascii_only, "default": default}
    layout["separators"] = (",", ":") if compact else None
    try:
        return json.dumps(value, allow_nan=False, **layout)
    except ValueError:  # rare, and most of what is written is large: looked for only then
        return json.dumps(_without_infinities(value, default), allow_nan=False, **layout)


def _without_infinities(value: Any, default: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_infinities(inner, default) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(inner, default) for inner in value]
    if default is None or value is None or isinstance(value, (str, int)):
        return value
    return _without_infinities(default(value), default)


def parse_json(text: str | bytes) -> Any:
    """What ``text`` holds. ValueError, in one line, for what is no JSON, for a name that one object has twice (Python's own
    reader keeps the last without a word), and for NaN and infinities."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return found


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def json_items(path: Path) -> Iterator[tuple[str | int, Any]]:
    """(name or number, value) of each item of the object or list that file ``path`` holds, in the memory of one item.

    OSError and UnicodeDecodeError as from open(); ValueError, in one line, for what is no JSON, as in :func:`parse_json`, for a
    file that holds neither, and for an item of more than ``MOST_ITEM`` characters. A name that the outermost object has twice
    is given twice.
    """
    with path.open(encoding="utf-8-sig") as stream:
        yield from _Items(stream).all()


class _Items:
    """A stream of JSON on its way: what was read and not yet given."""

    def __init__(self, stream: Any):
        self.stream, self.text, self.at, self.number = stream, "", 0, 0
        self.decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)

    def all(self) -> Iterator[tuple[str | int, Any]]:
        opening = self._next()
        if opening not in ("{", "["):
            raise ValueError("it holds neither an object nor a list")
        closing = {"{": "}", "[": "]"}[opening]
        self.at += 1
        if self._next() == closing:
            self.at += 1
            return self._end()
        while True:
            name: str | int = self.number
            if opening == "{":
                if self._next() != '"':
                    raise ValueError(f"item {self.number} has no name")
                name = self._value()
                if self._next() != ":":
                    raise ValueError(f"item {self.number} ({name!r}) has no value")
                self.at += 1
            self._next()
            yield name, self._value()
            self.number += 1
            mark = self._next()
            self.at += 1
            if mark == closing:
                return self._end()
            if mark != ",":
                raise ValueError(f"it breaks off or goes on wrongly after item {self.number - 1}")

    def _end(self) -> None:
        if self._next():
            raise ValueError("something follows its end")

    def _next(self) -> str:
        """The next character that is no blank, or nothing at the end; ``at`` is its place."""
        while True:
            while self.at < len(self.text):
                if not self.text[self.at].isspace():
                    return self.text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        self.text = self.text[self.at :]
        self.at = 0
        if len(self.text) > MOST_ITEM:
            raise ValueError(f"item {self.number} has more than {MOST_ITEM:,} characters")
        # Twice as much each time: what was read of an item is parsed again, so a long one would take long.
        more = self.stream.read(max(_CHUNK, len(self.text)))
        self.text += more
        return bool(more)

    def _value(self) -> Any:
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                length = end - self.at
                if not (isinstance(value, (int, float)) and self._may_go_on(end)) or not self._more():
                    self.at += length
                    return value
            except json.JSONDecodeError as error:
                if not self._more():
                    raise ValueError(f"item {self.number}: {error.msg}") from None
            except RecursionError:
                raise ValueError(f"item {self.number} is nested too deeply") from None

    def _may_go_on(self, end: int) -> bool:
        """Whether a number that ends there may go on in what was not read yet: ``10`` of ``10.5``, cut behind the dot."""
        tail = self.text[end : end + 40]
        return end + len(tail) == len(self.text) and not tail.strip("0123456789.eE+-")


def json_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of every line of ``text`` that is not blank. Only ``\\n`` and ``\\r\\n`` end a line: U+2028, U+0085
    and the others at which ``str.splitlines`` parts may stand inside a JSON string."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")
