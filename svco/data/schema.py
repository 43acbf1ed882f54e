"""The one schema of a pair's text, as a line of JSON (a record) has it and as ``pair.json`` does: every entrance asks here.

What is checked is what no model could do without: fields and their types, text that can be written and be seen, two answers
that differ. What a certain base makes of the text is its family's to say (:mod:`svco.families.chat`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..basics.errors import BadSample

CONTRASTS = ("object", "attribute", "relation", "position", "unknown")
"""MVC's contrast types: object replacement, attribute binding, relation or number modification, position flipping;
``unknown`` for sources that do not say."""
NO_CONTRAST = ("same-responses", "same-images")
"""Reasons of a BadSample that is well written and yet none: it is left out and counted where others are mistakes."""
FIELDS = ("query", "responses", "contrast", "source", "ids", "system", "kind", "facts")
"""Of a pair's text; ``query`` and ``responses`` must be there."""
_DEEPEST = 64
"""Levels of ``facts``: what is deeper is a mistake, and would overflow those who write it again."""
_BLANKS = "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and symbols of Unicode that show nothing: fillers, and the braille pattern of no dots."""


def checked(raw: Any, where: str, contrast: str = "contrast", more: Sequence[str] = ()) -> dict[str, Any]:
    """``FIELDS`` of the object ``raw`` by name, absent ones with their defaults; ``where`` (file, line or sample) begins every
    message.

    ``contrast`` is what ``raw`` calls the contrast type, ``more`` what else it may hold. BadSample: ``bad-schema`` for what is
    not as it should be, ``empty-response`` for an answer that shows nothing, ``same-responses`` (one of ``NO_CONTRAST``) for two
    that read alike.
    """

    def bad(message: str) -> BadSample:
        return BadSample("bad-schema", f"{where}: {message}")

    if not isinstance(raw, dict):
        raise bad(f"a pair is a JSON object, not {shortened(raw)}")
    names = [contrast if name == "contrast" else name for name in FIELDS]
    if unknown := sorted(set(raw) - {*names, *more}):
        raise bad(f"unknown field {unknown[0]!r}; known are {', '.join([*names, *more])}")
    for path, text in _texts(raw, where):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise bad(
                f"field {path!r} holds half a surrogate pair ({text[error.start]!a}), which is no character and cannot be written"
            ) from None
    if not isinstance(raw.get("query"), str) or not visible(raw["query"]):
        raise bad(f"field 'query' must be a non-empty string, not {shortened(raw.get('query'))}")
    kind = raw.get(contrast)
    if kind not in (None, "", *CONTRASTS):
        raise bad(f"field {contrast!r} is {shortened(kind)}; one of {', '.join(CONTRASTS)}")
    for name, wanted in (("source", str), ("system", str), ("kind", str), ("ids", dict), ("facts", dict)):
        if raw.get(name) is not None and not isinstance(raw[name], wanted):
            said = "a string" if wanted is str else "an object"
            raise bad(f"field {name!r} must be {said}, not {shortened(raw[name])}")
    if raw.get("system") and not visible(raw["system"]):
        raise bad(f"field 'system' shows nothing: {shortened(raw['system'])}; leave it out where there is none")
    return {
        "query": raw["query"],
        "responses": _answers(raw.get("responses"), where),
        "contrast": kind or "unknown",
        "source": raw.get("source") or "",
        "ids": _identifiers(raw.get("ids") or {}, where),
        "system": raw.get("system") or None,
        "kind": raw.get("kind") or None,
        "facts": raw.get("facts") or {},
    }


def _answers(responses: Any, where: str) -> tuple[str, str]:
    if not (isinstance(responses, list) and len(responses) == 2 and all(isinstance(text, str) for text in responses)):
        raise BadSample("bad-schema", f"{where}: field 'responses' must be two strings, not {shortened(responses)}")
    for side, text in enumerate(responses):
        if not visible(text):
            raise BadSample(
                "empty-response",
                f"{where}: field 'responses' must be two non-empty strings; response {side} is empty: {shortened(text)}",
            )
    first, second = responses
    if as_read(first) == as_read(second):
        raise BadSample("same-responses", f"{where}: both responses are {shortened(first)}, which is no contrast")
    return first, second


def _identifiers(ids: Mapping[str, Any], where: str) -> dict[str, str]:
    for name, value in ids.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise BadSample("bad-schema", f"{where}: field 'ids.{name}' must be a string, not {shortened(value)}")
    return {name: str(value) for name, value in ids.items()}


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """(field, text) of every string in ``value``, names included. Without recursion, which a file could exhaust."""
    rest: list[tuple[str, Any, int]] = [("", value, 0)]
    while rest:
        path, here, depth = rest.pop()
        if depth > _DEEPEST:
            raise BadSample("bad-schema", f"{where}: field {path[:40]!r} is nested more than {_DEEPEST} levels deep")
        if isinstance(here, str):
            yield path, here
        elif isinstance(here, dict):
            for name, inside in here.items():
                full = f"{path}.{name}" if path else name
                yield full, name
                rest.append((full, inside, depth + 1))
        elif isinstance(here, list):
            rest += [(f"{path}[{place}]", inside, depth + 1) for place, inside in enumerate(here)]


def visible(text: str) -> bool:
    """Whether a reader sees anything of ``text``: a letter, digit, mark of punctuation or symbol. White space, zero-width and
    control characters, accents on nothing and Unicode's fillers show nothing."""
    return any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANKS for c in text)


def as_read(text: str) -> str:
    """``text`` as a reader tells it from another: composed, without invisible characters, white space as one space."""
    seen = (c for c in unicodedata.normalize("NFC", text) if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc"))
    return re.sub(r"\s+", " ", "".join(seen)).strip()


def shortened(value: Any) -> str:
    """``value`` as a message shows it: in ASCII where it cannot be printed, and not all of a long one."""
    shown = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= 120 else f"{shown[:117]}…"
