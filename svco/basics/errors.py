"""The ways things go otherwise than planned that are not bugs: the user's mistake, a bad sample, a request to stop."""

from __future__ import annotations

import difflib
import os
import select
import sys
import textwrap
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from .disk import disk_error, disk_problem
from .secrets import Redacting, redacted


def _printable(text: str) -> str:
    """``text`` with what is no character, as a damaged name may hold it, written out: UTF-8 cannot encode it."""
    return text.encode("utf-8", "backslashreplace").decode()


class UserError(Exception):
    """A mistake its reader can mend: what is wrong, where, and what to do, in one paragraph.

    Every entry point prints the message without a traceback and exits with code 2. It holds no credentials, whatever it was
    made of.
    """

    def __init__(self, message: str):
        super().__init__(_printable(redacted(message)))


def first_line(error: BaseException) -> str:
    """The first line of what ``error`` says; the name of its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: Any, known: Iterable[str]) -> str:
    """A sentence that suggests the one of ``known`` that ``name`` is closest to, or lists them all."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    if not close:
        # A misspelt section must not hide a right key, so the last parts are compared as well.
        by_last = {key.rpartition(".")[2]: key for key in known}
        last = difflib.get_close_matches(str(name).rpartition(".")[2], by_last, n=1)
        close = [by_last[part] for part in last]
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def allowing(lost: int, total: int) -> str:
    """The least share in hundredths of which ``lost`` of ``total`` are no more: what a message may suggest and will be
    accepted."""
    hundredths = next(n for n in range(-(-100 * lost // total), 102) if lost <= n / 100 * total)
    return f"{hundredths / 100:g}"


RESUBMIT = os.EX_TEMPFAIL
"""75, the exit code of a run that was asked to stop and can be continued."""


class Stopped(Exception):
    """The run was asked to stop, all ranks agreed, and what it has learned is on disk. Its text is the reason."""


class BadSample(Exception):
    """One sample that cannot be trained on. It keeps its slot with weight 0 and is counted by its reason.

    ``reason`` is one of ``REASONS`` (a counter's name); the message names shard, key and field.
    """

    REASONS = (
        "missing-member",
        "bad-json",
        "bad-schema",
        "empty-response",
        "same-responses",
        "same-images",
        "undecodable-image",
        "odd-image",
        "special-token",
        "unknown-token",
        "system-turn",
        "long-query",
        "unsplittable",
    )

    def __init__(self, reason: str, message: str):
        if reason not in self.REASONS:
            raise ValueError(f"unknown reason {reason!r}; one of {', '.join(self.REASONS)}")
        super().__init__(_printable(message))
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadSample], tuple[str, str]]:
        # Exceptions pickle by their args alone, which would lose the reason on the way out of a loader worker.
        return type(self), (self.reason, str(self))


@contextmanager
def exit_codes() -> Iterator[None]:
    """Around an entry point: a UserError becomes its one paragraph on stderr and exit code 2, without a traceback; Stopped
    exit code 75. So does a disk that is full or gone (exit code 2), where whoever wrote did not say it with its file. What is
    printed inside holds no credentials, a traceback included.

    Every rank tends to meet the same mistake; ranks above 0 wait a moment for rank 0 to say it and end the job.
    """
    with redirect_stdout(Redacting(sys.stdout)), redirect_stderr(Redacting(sys.stderr)):
        try:
            try:
                yield
            finally:
                sys.stdout.flush()  # what fails here would fail when the interpreter ends, where nobody can catch it
        except UserError as error:
            _end(str(error))
        except Stopped:
            sys.exit(RESUBMIT)
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                sys.exit(141)  # as a shell says it of a command that SIGPIPE ended
            if (number := disk_error(error)) is None:
                traceback.print_exc()  # here, where what it quotes is redacted
                sys.exit(1)
            named = getattr(error, "filename", None) or "A file"
            _end(disk_problem(Path(os.fsdecode(named)), number))


def _nobody_reads() -> bool:
    """Whether the reader of standard output has gone, as ``| head`` does; what is still to be printed goes nowhere then."""
    if sys.__stdout__ is None:
        return True
    poll = select.poll()
    poll.register(sys.__stdout__, 0)  # an error is told without being asked for
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
    return True


def _end(problem: str) -> NoReturn:
    rank = int(os.environ.get("RANK", 0))
    if rank:
        time.sleep(10)
    prefix = f"error (rank {rank})" if rank else "error"
    text = textwrap.fill(f"{prefix}: {problem}", width=110, break_long_words=False, break_on_hyphens=False)
    print(f"\n{text}", file=sys.stderr, flush=True)
    sys.exit(2)
