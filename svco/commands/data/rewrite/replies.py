"""What a reply holds, whatever the server promised of its form."""

from __future__ import annotations

import re
from typing import Any

from ....basics.strict_json import parse_json


def read_question(text: str) -> str:
    """The question of a reply to the first stage; ValueError where there is none."""
    return _text(_object(text).get("question"), "question")


def read_answers(text: str) -> tuple[str, str]:
    """Both answers of a reply for a pair; ValueError where there are not two."""
    found = _object(text).get("answers")
    if not (isinstance(found, list) and len(found) == 2):
        raise ValueError(f"'answers' must be two texts, not {found!r}")
    return _text(found[0], "answers"), _text(found[1], "answers")


def read_answer(text: str, form: str) -> str:
    """The answer of a reply for a side, ``form`` ``json`` or ``text``; ValueError where there is none."""
    return _text(text if form == "text" else _object(text).get("answer"), "answer")


def _object(text: str) -> dict[str, Any]:
    """The one JSON object in ``text``: alone, in a fence, or with words around it, as models do."""
    fenced = re.search(r"```(?:json)?\s*\n(.*?)```", text, re.S)
    inner = (fenced.group(1) if fenced else text).strip()
    try:
        found = parse_json(inner[inner.find("{") : inner.rfind("}") + 1])
    except ValueError:
        raise ValueError(f"no JSON object in {_short(text)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object in {_short(text)}")
    return found


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name!r} must be a text, not {value!r}"[:200])
    return value.strip()


def _short(text: str) -> str:
    return repr(" ".join(text.split())[:80])
