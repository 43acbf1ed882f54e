"""The two ways things go wrong that are not bugs: the user's mistake and a bad sample."""

from __future__ import annotations


class UserError(Exception):
    """A mistake its reader can mend: what is wrong, where, and what to do, in one paragraph.

    Every entry point prints the message without a traceback and exits with code 2.
    """


class BadSample(Exception):
    """One sample that cannot be trained on. It keeps its slot with weight 0 and is counted by its reason.

    ``reason`` is one of ``REASONS`` (a counter's name); the message names shard, key and field.
    """

    REASONS = ("missing-member", "bad-json", "bad-schema", "empty-response", "undecodable-image", "long-query", "unsplittable")

    def __init__(self, reason: str, message: str):
        if reason not in self.REASONS:
            raise ValueError(f"unknown reason {reason!r}; one of {', '.join(self.REASONS)}")
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        # Exceptions pickle by their args alone, which would lose the reason on the way out of a loader worker.
        return type(self), (self.reason, str(self))
