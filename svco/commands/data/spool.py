"""Records on the disk, read by number: what a build knows of a pair by heart is its place."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.strict_json import parse_json
from .records import Record, as_line

_TUPLES = ("images", "responses", "captions")


class Spool:
    """Records in the file ``path``, which is written anew. Several threads may read."""

    def __init__(self, path: Path):
        self._stream = path.open("w+b")
        self._ends = array("q", [0])

    def append(self, record: Record) -> None:
        line = as_line(record).encode()
        self._stream.write(line)
        self._ends.append(self._ends[-1] + len(line))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Record:
        begin, end = self._ends[number], self._ends[number + 1]
        line = os.pread(self._stream.fileno(), end - begin, begin)
        try:
            # It was checked when it came in.
            told: dict[str, Any] = parse_json(line)
            return Record(**told | {name: tuple(told[name]) for name in _TUPLES if name in told})
        except (ValueError, TypeError) as error:
            raise UserError(f"{self._stream.name} was changed while it was read ({error}); start again.") from None

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()
