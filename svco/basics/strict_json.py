"""JSON that people and other programs write: a name given twice in one object, and numbers JSON has no word for, are errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


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


def json_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of every line of ``text`` that is not blank. Only ``\\n`` and ``\\r\\n`` end a line: U+2028, U+0085
    and the others at which ``str.splitlines`` parts may stand inside a JSON string."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")
