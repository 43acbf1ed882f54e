"""What a person decided about pairs: the file that the gallery saves and ``build --exclude`` takes.

{"choices": {"3f…": "reject", "a0…": "accept"}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ...basics.errors import UserError
from ...basics.strict_json import json_text, parse_json
from .records import Record

CHOICES = ("accept", "reject")


def name_of(record: Record) -> str:
    """A name of what is seen of ``record``: its pictures' paths and its texts. Scores and stages do not count; a pair that is
    rewritten is another, and is to be looked at again."""
    seen = [record.source, record.images, record.query, record.responses, record.captions, record.instruction]
    return hashlib.sha256(json_text(seen, ascii_only=False).encode()).hexdigest()[:20]


def read_rejects(path: Path) -> set[str]:
    """The names of the pairs that were rejected in the file ``path``; UserError for a file that holds no choices."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The choices {path} cannot be read: {error}") from None
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, dict) or not all(choice in CHOICES for choice in choices.values()):
        raise UserError(f"{path} holds no choices; a gallery of svco data view saves them.")
    return {name for name, choice in choices.items() if choice == "reject"}


def without_rejects(records: Iterable[Record], path: Path) -> tuple[list[Record], int]:
    """(``records`` without those rejected in the file ``path``, how many rejected ones are not among them). UserError where none
    of the rejected is: the choices are about others."""
    rejects = read_rejects(path)
    kept: list[Record] = []
    found: set[str] = set()
    for record in records:
        name = name_of(record)
        if name in rejects:
            found.add(name)
        else:
            kept.append(record)
    if rejects and not found:
        raise UserError(
            f"None of the {len(rejects)} pairs rejected in {path} is among the records. The choices are about other records, or "
            "about these before they were rewritten."
        )
    return kept, len(rejects - found)
