"""Many requests at once, each from the cache where its reply is there, and counted where it has to be sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..basics.errors import UserError
from .cache import ANSWERED, Reply, ReplyCache
from .client import Endpoint, Unanswered
from .request import Request

FAILURES_IN_A_ROW = 8
"""Requests without a reply, and none with one between them, after which it is the endpoint that is to be looked at."""
READINGS = 2
"""How often a request is made whose reply cannot be read; the package has its own retries within each."""


class Asker:
    """Asks ``endpoint``, or ``cache`` where it knows the reply; for many threads at once. One request is never on its way
    twice."""

    def __init__(self, endpoint: Endpoint | None, cache: ReplyCache):
        self.endpoint, self.cache = endpoint, cache
        self._guard = threading.Lock()
        self._under_way: dict[str, threading.Lock] = {}
        self._failed = 0

    def __call__(self, request: Request) -> Reply:
        """The reply to ``request``. Unanswered where there is none; UserError once the endpoint seems to answer nothing."""
        with self._alone(request.key):
            known = self.cache.get(request.key)
            return known or self._send(request)

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        with self._guard:
            lock = self._under_way.setdefault(key, threading.Lock())
        with lock:
            yield
        with self._guard:
            self._under_way.pop(key, None)

    def _send(self, request: Request) -> Reply:
        if self.endpoint is None:
            raise Unanswered("it has not been asked", 0)
        for reading in range(READINGS):
            attempt = self.cache.begin(request.key, request.model, request.prompt_tokens)
            try:
                reply, times = self.endpoint.send(request)
            except Unanswered as error:
                self.cache.end(attempt, error.times, str(error))
                if error.broken and reading + 1 < READINGS:
                    continue
                self._count_failure(error)
                raise
            with self.cache.together():
                self.cache.put(request.key, request.model, reply)
                self.cache.end(attempt, times, ANSWERED)
            self._failed = 0
            return reply
        raise AssertionError("READINGS is at least 1")

    def _count_failure(self, error: Unanswered) -> None:
        with self._guard:
            self._failed += 1
            if self._failed >= FAILURES_IN_A_ROW:
                raise UserError(
                    f"{self._failed} requests in a row brought no reply; the last: {error}. What was answered before is in the "
                    f"cache {self.cache.path}: look at the endpoint and give the same command again."
                ) from None
