"""A table from keys to JSON values on disk: what must be joined or remembered, without memory that grows with it."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from types import TracebackType
from typing import Any

from ....basics.strict_json import json_text


class Lookup:
    """Keys (strings) -> JSON values, in a temporary file that is gone when the block ends."""

    def __enter__(self) -> Lookup:
        self._file = tempfile.NamedTemporaryFile(prefix="svco-lookup-", suffix=".sqlite")  # noqa: SIM115 closed below
        self._table = sqlite3.connect(self._file.name)
        # It need not outlive a crash: no journal, no waiting for the disk.
        self._table.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        self._table.execute("CREATE TABLE found (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()
        self._file.close()

    def put(self, key: str, value: Any = None) -> bool:
        """Keeps ``value``; False if ``key`` was there, whose value stays."""
        done = self._table.execute("INSERT OR IGNORE INTO found VALUES (?, ?)", (key, json_text(value)))
        return done.rowcount == 1

    def get(self, key: str) -> Any:
        """The value of ``key``; None where there is none."""
        row = self._table.execute("SELECT value FROM found WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def __contains__(self, key: str) -> bool:
        return self._table.execute("SELECT 1 FROM found WHERE key = ?", (key,)).fetchone() is not None
