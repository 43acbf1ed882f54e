"""Intervals that numbers lie in, written as in mathematics: of a recipe's keys, and of the options of command lines."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

MANY = 2**31 - 1
"""As many as anything can be counted in: what comes after it in a computation still fits 64 bits."""


@dataclass(frozen=True)
class Number:
    """The type of a command line's option: a number of ``interval``; anything else ends with a sentence and exit code 2."""

    kind: type[int] | type[float]
    """What it is read as."""
    interval: str
    """Such as ``[0, 1)``; its ends are finite. NaN lies in none."""

    def __call__(self, text: str) -> Any:
        try:
            number = self.kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no {'whole number' if self.kind is int else 'number'}"
            ) from None
        if not within(number, self.interval):
            raise argparse.ArgumentTypeError(f"it is {text} and must be {words(self.interval)}")
        return number


def whole(least: int = 0, most: int = MANY) -> Number:
    """Whole numbers from ``least`` to ``most``."""
    return Number(int, f"[{least}, {most}]")


def real(interval: str) -> Number:
    """Numbers of ``interval``."""
    return Number(float, interval)


def within(number: float, interval: str) -> bool:
    """Whether ``number`` lies in ``interval``, written as in mathematics: ``[0, 1)``. NaN never does."""
    low, high = _ends(interval)
    above = low <= number if interval.startswith("[") else low < number
    below = number <= high if interval.endswith("]") else number < high
    return above and below


def words(interval: str) -> str:
    """``interval`` for people: ``at least 0 and below 1``."""
    low, high = _ends(interval)
    above = "at least" if interval.startswith("[") else "above"
    below = "at most" if interval.endswith("]") else "below"
    most = f"{below} {high:.10g}" if math.isfinite(high) else "finite"
    return f"{above} {low:.10g} and {most}" if math.isfinite(low) else most


def _ends(interval: str) -> tuple[float, float]:
    low, _, high = interval[1:-1].partition(",")
    return float(low), float(high)
