"""Vectors of pictures on disk, by content: a file a rank, which it alone writes and all read."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....basics.errors import UserError

THUMB = 32
"""Side of the grey thumbnails by which mirrored pairs are found."""
_TABLES = """
CREATE TABLE IF NOT EXISTS vectors (encoder TEXT, picture TEXT, vector BLOB, PRIMARY KEY (encoder, picture)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS looks (picture TEXT PRIMARY KEY, width INT, height INT, thumb BLOB) WITHOUT ROWID;
DROP TABLE IF EXISTS paths;
CREATE TABLE paths (path TEXT PRIMARY KEY, picture TEXT, problem TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Look:
    """How a picture looks, small."""

    size: tuple[int, int]
    """Width and height."""
    thumb: np.ndarray
    """(THUMB, THUMB) uint8."""

    def mirrors(self, other: Look) -> bool:
        """Whether the pictures are one with left and right exchanged, up to what JPEG does; no picture mirrors one it equals."""
        if self.size != other.size:
            return False
        ours, theirs = self.thumb.astype(np.float32), other.thumb.astype(np.float32)
        turned, plain = np.abs(ours - theirs[:, ::-1]), np.abs(ours - theirs)
        # Of JPEG at quality 60 the mean was 1.5 at most; something pasted shows in few places, but there much.
        return bool(turned.mean() < 2 and np.quantile(turned, 0.98) < 12 and plain.mean() > 4 * turned.mean() + 1)


class Store:
    """The files of ``folder``, which is there: this rank's to write, and after :meth:`open` everyone's to read."""

    def __init__(self, folder: Path, rank: int, ranks: int):
        self.folder, self.ranks = folder, ranks
        self.all: list[sqlite3.Connection] = []
        """Of earlier runs too, which may have had more ranks: their vectors hold, their paths do not."""
        with self.named():
            self.mine = sqlite3.connect(_file(folder, rank), timeout=60)
            self.mine.executescript(_TABLES)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turns what sqlite says of a file that is damaged, full or not writable into a UserError."""
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(
                f"The vectors in {self.folder} cannot be read or written ({error}). Remove that folder, or give another --cache."
            ) from None

    def open(self) -> None:
        """Looks at the files of all ranks; what they write from now on is seen."""
        self._close()
        files = [_file(self.folder, rank) for rank in range(self.ranks)]
        files += sorted(set(self.folder.glob("rank-*.sqlite")) - set(files))
        for file in files:
            self.all.append(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=60))

    def _close(self) -> None:
        for connection in self.all:
            connection.close()
        self.all.clear()

    def finish(self) -> None:
        self._close()
        self.mine.close()

    def add_path(self, path: str, picture: str, problem: str) -> None:
        """That the file ``path`` holds ``picture``, a digest, or why it holds none."""
        self.mine.execute("INSERT OR REPLACE INTO paths VALUES (?, ?, ?)", (path, picture, problem))

    def has_path(self, path: str) -> bool:
        return self.mine.execute("SELECT 1 FROM paths WHERE path = ?", (path,)).fetchone() is not None

    def add(self, vectors: Mapping[str, np.ndarray], pictures: Sequence[str], looks: Sequence[Look]) -> None:
        """Keeps a batch, encoder -> (N, D) float32, of N ``pictures``; it is on disk when this returns."""
        for encoder, rows in vectors.items():
            kept = [
                (encoder, picture, row.astype("<f4").tobytes()) for picture, row in zip(pictures, rows, strict=True)
            ]
            self.mine.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", kept)
        seen = [(picture, *look.size, look.thumb.tobytes()) for picture, look in zip(pictures, looks, strict=True)]
        self.mine.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?)", seen)
        self.mine.commit()

    def commit(self) -> None:
        self.mine.commit()

    def distinct(self, share: int, of: int) -> Iterator[tuple[str, str]]:
        """(digest, a path of it) of the pictures of all ranks' paths, each once, that fall to ``share`` of ``of``."""
        with tempfile.NamedTemporaryFile(prefix="svco-pictures-", suffix=".sqlite") as file:
            seen = sqlite3.connect(file.name)
            seen.executescript(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE p (d TEXT PRIMARY KEY, path TEXT);"
            )
            for connection in self.all[: self.ranks]:
                rows = connection.execute("SELECT picture, path FROM paths WHERE picture != ''")
                mine = (row for row in rows if int(row[0][:8], 16) % of == share)
                seen.executemany("INSERT OR IGNORE INTO p VALUES (?, ?)", mine)
            yield from seen.execute("SELECT d, path FROM p ORDER BY d")
            seen.close()

    def path(self, path: str) -> tuple[str, str]:
        """(digest, problem) of a path; one of them is empty."""
        row = self._first("SELECT picture, problem FROM paths WHERE path = ?", (path,), self.ranks)
        return (row[0], row[1]) if row else ("", f"{path} was not looked at")

    def fail(self, picture: str, problem: str) -> None:
        """That ``picture`` cannot be decoded."""
        self.mine.execute("INSERT OR REPLACE INTO paths VALUES (?, '', ?)", (f"picture {picture}", problem))

    def problem(self, picture: str) -> str:
        """Why ``picture`` cannot be read, or nothing."""
        row = self._first("SELECT problem FROM paths WHERE path = ?", (f"picture {picture}",), self.ranks)
        return row[0] if row else ""

    def has(self, encoders: Sequence[str], picture: str) -> bool:
        """Whether all ``encoders``' vectors of ``picture`` are here."""
        query = "SELECT 1 FROM vectors WHERE encoder = ? AND picture = ?"
        return all(self._first(query, (encoder, picture)) for encoder in encoders)

    def vector(self, encoder: str, picture: str) -> np.ndarray:
        """(D,) float32, of unit length. KeyError if it is not here."""
        row = self._first("SELECT vector FROM vectors WHERE encoder = ? AND picture = ?", (encoder, picture))
        if row is None:
            raise KeyError(picture)
        return np.frombuffer(row[0], "<f4")

    def look(self, picture: str) -> Look:
        row = self._first("SELECT width, height, thumb FROM looks WHERE picture = ?", (picture,))
        if row is None:
            raise KeyError(picture)
        return Look((row[0], row[1]), np.frombuffer(row[2], np.uint8).reshape(THUMB, THUMB))

    def _first(self, query: str, values: tuple[str, ...], files: int | None = None) -> tuple[Any, ...] | None:
        """The first row that one of the first ``files`` has."""
        rows = (connection.execute(query, values).fetchone() for connection in self.all[:files])
        return next((row for row in rows if row), None)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.sqlite"
