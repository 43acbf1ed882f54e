"""Estimates with their errors, and what two models differ in on the same pairs.

The pair is the unit that was drawn: what is measured on its two sides is taken together before any error is computed. Every
measure is Σ numerator / Σ denominator over pairs (a plain mean has denominators 1), or the exponential of that (perplexity).
Standard errors are of the linearised ratio (Cochran, Sampling Techniques, 3rd ed., 6.4: for a plain mean s/√n); the
95% intervals are normal ones around it, Wilson's score interval for shares (with the effective number of cases where a pair has
several), and the exponential's for a perplexity. Of a difference of shares it is the paired bootstrap's percentile interval
(Efron, Annals of Statistics 7, 1979), of other differences a normal one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054
"""Standard normal quantile of 0.975."""
FLIPS = 10_000
"""Random exchanges of the permutation test; with at most 13 pairs all are made."""
RESAMPLES = 10_000
"""Draws of the bootstrap."""
_CHUNK = 500
"""Exchanges of all pairs that are computed at once."""


@dataclass(frozen=True)
class Measure:
    """One figure before it is averaged, by pair."""

    numerator: np.ndarray
    """(N,) float64."""
    denominator: np.ndarray
    """(N,) float64."""
    form: str = "mean"
    """``share`` (numerators 0 or 1, denominators 1), ``rate`` (another ratio within 0 and 1), ``mean`` (any ratio), or ``exp``
    (its exponential)."""

    @classmethod
    def mean(cls, values: np.ndarray) -> Measure:
        """The mean of (N,) values."""
        return cls(np.asarray(values, float), np.ones(len(values)))

    @classmethod
    def rate(cls, hits: np.ndarray, cases: np.ndarray | None = None) -> Measure:
        """Σ hits / Σ cases, (N,) each; without cases the mean of (N,) values within 0 and 1."""
        return cls(np.asarray(hits, float), np.ones(len(hits)) if cases is None else np.asarray(cases, float), "rate")

    @classmethod
    def share(cls, true: np.ndarray) -> Measure:
        """The share of (N,) bool that is true."""
        return cls(np.asarray(true, float), np.ones(len(true)), "share")

    def __getitem__(self, rows: np.ndarray) -> Measure:
        return Measure(self.numerator[rows], self.denominator[rows], self.form)

    @property
    def ratio(self) -> float:
        total = self.denominator.sum()
        return float(self.numerator.sum() / total) if total else math.nan

    @property
    def value(self) -> float:
        """The figure itself."""
        return math.exp(self.ratio) if self.form == "exp" else self.ratio

    @property
    def influence(self) -> np.ndarray:
        """(N,) what each pair moves the figure by, times N: its standard error is theirs over √N."""
        steep = self.value if self.form == "exp" else 1.0
        return steep * (self.numerator - self.ratio * self.denominator) / self.denominator.mean()


@dataclass(frozen=True)
class Estimate:
    """A figure with its error."""

    value: float
    """The figure."""
    se: float
    """Standard error; NaN of fewer than two pairs."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end of it."""

    def json(self) -> dict[str, float | None]:
        """As eval.json has it; null where there is no number."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


def estimate(measure: Measure) -> Estimate:
    """``measure`` with its standard error and 95% interval."""
    value, error = measure.value, standard_error(measure.influence)
    if measure.form == "share" and len(measure.numerator):
        return Estimate(value, error, *wilson(measure.numerator.sum(), len(measure.numerator)))
    if measure.form == "rate" and error >= 0:
        # Of as many independent cases as would give this standard error; of the pairs where there is no spread at all.
        count = value * (1 - value) / error**2 if error > 0 else len(measure.numerator)
        return Estimate(value, error, *wilson(value * count, count))
    if measure.form == "exp" and value > 0:
        width = Z * error / value
        return Estimate(value, error, value * math.exp(-width), value * math.exp(width))
    return Estimate(value, error, value - Z * error, value + Z * error)


def standard_error(influence: np.ndarray) -> float:
    """s/√n of (n,) values, s with n − 1; NaN of fewer than two."""
    return float(influence.std(ddof=1) / math.sqrt(len(influence))) if len(influence) > 1 else math.nan


def wilson(successes: float, count: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a share (JASA 22, 1927): sensible at 0 and 1 too."""
    share, z2 = successes / count, Z**2 / count
    middle = (share + z2 / 2) / (1 + z2)
    width = Z / (1 + z2) * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return middle - width, middle + width


@dataclass(frozen=True)
class Comparison:
    """How two models differ in one figure on the same n pairs: ``a`` minus ``b``."""

    pairs: int
    """n."""
    a: float
    """The figure of the one."""
    b: float
    """And of the other."""
    difference: Estimate
    """a − b, with the error of the paired difference; its interval is the bootstrap's where the figure is a share."""
    p: float
    """Two-sided p of no difference: McNemar's exact test for a share, else exchanging the models within random pairs."""

    def json(self) -> dict[str, float | int | None]:
        return {"pairs": self.pairs, "a": self.a, "b": self.b, **self.difference.json(), "p": self.p}


def compare(a: Mapping[str, Measure], b: Mapping[str, Measure], seed: int = 0) -> dict[str, Comparison]:
    """The paired comparison of every measure both have; row i of both is the same pair."""
    names = [name for name in a if name in b and len(a[name].numerator)]
    tests = _exchange({name: (a[name], b[name]) for name in names if a[name].form != "share"}, seed)
    found = {}
    for name in names:
        one, other = a[name], b[name]
        gap = one.value - other.value
        error = standard_error(one.influence - other.influence)
        low, high, p = gap - Z * error, gap + Z * error, tests.get(name)
        if p is None:
            right = one.numerator > 0.5, other.numerator > 0.5
            p, (low, high) = mcnemar(*right), resampled(*right, seed)
        found[name] = Comparison(len(one.numerator), one.value, other.value, Estimate(gap, error, low, high), p)
    return found


def resampled(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The paired bootstrap's 95% percentile interval of share(a) − share(b), (n,) bool each: pairs are drawn with replacement
    ``RESAMPLES`` times. A draw's difference depends on how many of the pairs that differ it holds, which is multinomial."""
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    random = np.random.Generator(np.random.Philox(seed))
    drawn = random.multinomial(n, [only_a / n, only_b / n, (n - only_a - only_b) / n], RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975]).tolist()
    return low, high


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided exact p of McNemar's test (Psychometrika 12, 1947): the (n,) bool that differ fall on either side alike."""
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = term = 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def _exchange(measures: Mapping[str, tuple[Measure, Measure]], seed: int) -> dict[str, float]:
    """Two-sided p of each: in random pairs the models are exchanged, which for a mean flips the difference's sign."""
    if not measures:
        return {}
    columns = []
    for a, b in measures.values():
        columns += [b.numerator - a.numerator, b.denominator - a.denominator]
    change = np.stack(columns, axis=1)
    count = len(change)
    exact = count <= math.log2(FLIPS)
    total = 2**count if exact else FLIPS
    random = np.random.Generator(np.random.Philox(seed))
    reached = np.zeros(len(measures))
    observed = np.array([abs(a.value - b.value) for a, b in measures.values()])
    for start in range(0, total, _CHUNK):
        rows = min(_CHUNK, total - start)
        if exact:
            flips = (np.arange(start, start + rows)[:, None] >> np.arange(count)) & 1
        else:
            flips = random.integers(0, 2, (rows, count), dtype=np.int8)
        moved = flips.astype(float) @ change
        for m, (a, b) in enumerate(measures.values()):
            numerator, denominator = moved[:, 2 * m], moved[:, 2 * m + 1]
            gap = np.abs(_shifted(a, numerator, denominator) - _shifted(b, -numerator, -denominator))
            reached[m] += (gap >= observed[m] - 1e-12 * max(1.0, observed[m])).sum()
    # One more for the arrangement that was observed (Phipson and Smyth, 2010), unless it is among those counted.
    ps = reached / total if exact else (reached + 1) / (total + 1)
    return dict(zip(measures, ps.tolist()))


def _shifted(measure: Measure, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The figure with its sums moved by ``numerator`` and ``denominator``."""
    ratio = (measure.numerator.sum() + numerator) / (measure.denominator.sum() + denominator)
    return np.exp(ratio) if measure.form == "exp" else ratio
