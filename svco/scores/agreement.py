"""How far judgements of the same things agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Agreement:
    """Of several judgements of each of n units."""

    units: int
    """n: those with two judgements or more."""
    alpha: float | None
    """Krippendorff's α for interval data: 1, judgements of one unit never differ; 0, they differ as much as judgements of
    different units; None where no two judgements differ at all, or there are none."""
    apart: float | None
    """How far two judgements of one unit lie apart, the mean; None without any."""
    same: float | None
    """Share of such pairs that are equal."""


def agreement(judgements: Sequence[Sequence[float]]) -> Agreement:
    """The agreement of ``judgements``: a list a unit, of any length; who judged is not told apart.

    α = 1 − D_o / D_e, with D the mean squared difference of two judgements of one unit, and of any two (Krippendorff, Content
    Analysis, 4th ed., 12.3: a unit of m judgements counts m / (m − 1) times each ordered pair of them).
    """
    units = [list(unit) for unit in judgements if len(unit) > 1]
    if not units:
        return Agreement(0, None, None, None)
    every = [value for unit in units for value in unit]
    observed = sum(2 * sum((a - b) ** 2 for a, b in combinations(unit, 2)) / (len(unit) - 1) for unit in units)
    mean = sum(every) / len(every)
    # Over all ordered pairs: Σ (a − b)² = 2 n Σ (a − mean)².
    expected = 2 * len(every) * sum((value - mean) ** 2 for value in every) / (len(every) - 1)
    pairs = [abs(a - b) for unit in units for a, b in combinations(unit, 2)]
    alpha = 1 - observed / expected if expected > 0 else None
    return Agreement(len(units), alpha, sum(pairs) / len(pairs), sum(gap == 0 for gap in pairs) / len(pairs))
