"""What a person decided about pairs: the file that the gallery saves and ``build --exclude`` takes.

{"choices": {"3f…": "reject", "a0…": "accept"}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
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


class Rejects:
    """The pairs that were rejected in the file ``path``, on their way out of the records."""

    def __init__(self, path: Path):
        self.path = path
        self.names = read_rejects(path)
        self._found: set[str] = set()

    def without(self, records: Iterable[Record]) -> Iterator[Record]:
        """``records`` without them, as they come. UserError at the end where none of them was there: the choices are about
        others."""
        for record in records:
            name = name_of(record)
            if name not in self.names:
                yield record
            else:
                self._found.add(name)
                self.left_out += 1
        if self.names and not self._found:
            raise UserError(
                f"None of the {len(self.names)} pairs rejected in {self.path} is among the records. The choices are about other "
                "records, or about these before they were rewritten."
            )

    left_out = 0
    """Records that were."""

    @property
    def strangers(self) -> int:
        """Rejected ones that are not among the records."""
        return len(self.names - self._found)
