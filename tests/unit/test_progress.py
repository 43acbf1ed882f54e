"""Progress where there is no terminal: plain lines with the true count."""

import re
import threading

import pytest

from svco.basics import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets; (seconds now)."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def shown_over(items, clock, seconds, **how):
    for item in progress.Shown(items, "training", **how):
        clock[0] += seconds
        yield item


def test_a_line_every_few_seconds_and_one_at_the_end(clock, capfd):
    assert list(shown_over(range(10), clock, 1.5)) == list(range(10))
    out, lines = capfd.readouterr()
    assert not out and "\r" not in lines
    counts = [int(re.match(r"training: +\d+% (\d+)/10 ", line)[1]) for line in lines.splitlines()]
    assert counts == [2, 6, 10], "after 2 s, every 5 s, and where it ended"


def test_a_resumed_run_counts_on_and_says_its_loss(clock, capfd):
    items = progress.Shown(range(3), "training", total=8, done=5)
    for _ in items:
        clock[0] += 3
        items.note = "loss 0.5"
    last = capfd.readouterr().err.splitlines()[-1]
    assert "8/8" in last and "loss 0.5" in last and last.startswith("training: 100%")


def test_what_takes_long_says_why(capfd):
    for enabled, seconds, says in ((True, 0.05, "compiling\n"), (False, 0.05, ""), (True, 60, "")):
        with progress.saying_when_slow(enabled, "compiling", seconds):
            threading.Event().wait(0.2)
        assert capfd.readouterr().err == says


def test_what_is_quick_or_not_mine_is_not_shown(clock, capfd):
    assert list(shown_over(range(10), clock, 0.1)) == list(range(10))
    for item in progress.shown(False)(range(3), "training"):
        clock[0] += 100 + item
    assert capfd.readouterr().err == ""
