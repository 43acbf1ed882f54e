"""Replies on disk, one sqlite file: written before anybody uses them, so that a killed run goes on and nothing is paid twice.

It holds replies and digests of requests. The endpoint's address and key are not in it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from ..basics.errors import UserError

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, model TEXT,
    answered TEXT, text TEXT, finish TEXT, prompt_tokens INTEGER, reply_tokens INTEGER, batch INTEGER, at TEXT
);
CREATE TABLE IF NOT EXISTS attempts (
    number INTEGER PRIMARY KEY, key TEXT, model TEXT, prompt_tokens INTEGER, times INTEGER, outcome TEXT, at TEXT
);
CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, model TEXT, open INTEGER, at TEXT);
CREATE TABLE IF NOT EXISTS waiting (key TEXT PRIMARY KEY, batch TEXT);
"""
SENT = "sent"
"""The outcome of an attempt of which nothing was heard: the process was killed while it waited."""
ANSWERED = "answered"
"""The outcome of an attempt whose reply is in the cache."""


@dataclass(frozen=True)
class Reply:
    """What the endpoint said."""

    model: str
    """The model that answered, by its own account."""
    text: str
    """The message."""
    finish: str
    """Why it ended: ``stop``, ``length``, …"""
    prompt_tokens: int
    """As the endpoint counted them, or as estimated where it did not."""
    reply_tokens: int
    """Likewise."""
    batch: bool = False
    """Whether it came through the Batch API."""
    at: str = ""
    """When, in UTC."""


@dataclass(frozen=True)
class Spent:
    """What was asked of one model through this file, in all."""

    replies: int
    """Replies."""
    prompt_tokens: int
    """Their prompts' tokens, without those of batches."""
    reply_tokens: int
    """Their own, likewise."""
    batch_prompt_tokens: int
    """Tokens of prompts in batches."""
    batch_reply_tokens: int
    """Tokens of replies in batches."""
    attempts: int
    """How often something was sent, retries included, batches not."""
    unanswered_tokens: int
    """Prompt tokens of attempts that brought no reply: an endpoint may bill them."""


def now() -> str:
    """The moment, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class ReplyCache:
    """The file ``path``, made if it is not there; for one process at a time and all of its threads. UserError where another
    process has it, and for a file that is none."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path, timeout=1.0, check_same_thread=False, isolation_level=None)
            # Exclusive from its first use: a second process would pay for the same requests again. Full: a reply that was
            # used is on the disk, also after a power cut.
            for word in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
                self._file.execute(f"PRAGMA {word}").fetchall()
            self._file.executescript(_TABLES)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise UserError(
                    f"The cache of replies {path} is in use by another process. Wait for it, or give another file with --cache."
                ) from None
            raise UserError(f"The cache of replies {path} cannot be opened: {error}.") from None
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path} is no cache of replies ({error}). Give another file with --cache.") from None

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._file.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written in the block is on the disk as a whole or not at all."""
        with self._lock:
            self._file.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._file.execute("ROLLBACK")
                raise
            self._file.execute("COMMIT")

    def get(self, key: str) -> Reply | None:
        """The reply to the request of that key, if there is one."""
        columns = "answered, text, finish, prompt_tokens, reply_tokens, batch, at"
        with self._lock:
            row = self._file.execute(f"SELECT {columns} FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        *told, batch, at = row
        model, text, finish, prompt_tokens, reply_tokens = told
        return Reply(model, text, finish, prompt_tokens, reply_tokens, bool(batch), at)

    def put(self, key: str, asked: str, reply: Reply) -> None:
        """Keeps ``reply`` to a request for model ``asked``."""
        told = (reply.model, reply.text, reply.finish, reply.prompt_tokens, reply.reply_tokens, reply.batch, reply.at)
        with self._lock:
            self._file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (key, asked, *told))

    def begin(self, key: str, asked: str, prompt_tokens: int) -> int:
        """Notes that a request is about to be sent; the attempt's number."""
        with self._lock:
            row = (key, asked, prompt_tokens, SENT, now())
            done = self._file.execute("INSERT INTO attempts VALUES (NULL, ?, ?, ?, 1, ?, ?)", row)
            return int(done.lastrowid or 0)

    def end(self, attempt: int, times: int, outcome: str) -> None:
        """Notes what became of it, and how often it was sent until then."""
        with self._lock:
            self._file.execute("UPDATE attempts SET times = ?, outcome = ? WHERE number = ?", (times, outcome, attempt))

    def spent(self, asked: str) -> Spent:
        """What requests for model ``asked`` came to."""
        with self._lock:
            replies = self._file.execute(
                "SELECT COUNT(*), TOTAL(prompt_tokens * (NOT batch)), TOTAL(reply_tokens * (NOT batch)), "
                "TOTAL(prompt_tokens * batch), TOTAL(reply_tokens * batch) FROM replies WHERE model = ?",
                (asked,),
            ).fetchone()
            attempts = self._file.execute(
                "SELECT TOTAL(times), TOTAL(prompt_tokens * (times - (outcome = ?))) FROM attempts WHERE model = ?",
                (ANSWERED, asked),
            ).fetchone()
        return Spent(*map(int, (*replies, *attempts)))

    def add_batch(self, batch: str, asked: str, keys: list[str]) -> None:
        """Notes a batch that was submitted, with its requests."""
        with self.together():
            self._file.execute("INSERT INTO batches VALUES (?, ?, 1, ?)", (batch, asked, now()))
            self._file.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?)", [(key, batch) for key in keys])

    def close_batch(self, batch: str) -> None:
        """Notes that nothing more is to come of it; its requests that have no reply may be asked again."""
        with self.together():
            self._file.execute("UPDATE batches SET open = 0 WHERE id = ?", (batch,))
            self._file.execute("DELETE FROM waiting WHERE batch = ?", (batch,))

    def open_batches(self, asked: str) -> list[str]:
        """Batches of model ``asked`` that were submitted and not yet collected, the oldest first."""
        query = "SELECT id FROM batches WHERE open AND model = ? ORDER BY at, id"
        with self._lock:
            return [row[0] for row in self._file.execute(query, (asked,))]

    def is_waiting(self, key: str) -> bool:
        """Whether the request is in a batch that was not collected."""
        with self._lock:
            return self._file.execute("SELECT 1 FROM waiting WHERE key = ?", (key,)).fetchone() is not None
