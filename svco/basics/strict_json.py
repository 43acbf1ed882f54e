"""JSON, in both directions the standard's: the one door by which svco writes it, and a strict reader of what others wrote.

JSON has no word for NaN and infinities, and Python writes and reads them all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any


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


def json_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of every line of ``text`` that is not blank. Only ``\\n`` and ``\\r\\n`` end a line: U+2028, U+0085
    and the others at which ``str.splitlines`` parts may stand inside a JSON string."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")
