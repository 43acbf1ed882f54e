"""What a run keeps an eye on besides its loss: bad samples, and whether the true responses are still gaining."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

from ..basics.errors import BadSample, UserError, allowing

NAMED_AT_MOST = 20
"""Bad samples named one by one on each rank; later ones are only counted."""
CHECKED_FROM = 200
"""Pairs seen before a share of bad ones means anything."""


class BadWatch:
    """Counts bad samples by reason, names the first ones, and stops a run that meets too many."""

    def __init__(self, max_fraction: float, counts: Mapping[str, int], verify: str = "svco data verify"):
        self.max_fraction = max_fraction
        self.verify = verify
        self.counts = Counter(counts)
        self._fresh: Counter[str] = Counter()
        self._named = 0

    def add(self, bad: Sequence[BadSample]) -> None:
        """Notes this rank's bad samples of a step."""
        for error in bad:
            self._fresh[f"bad/{error.reason}"] += 1
            if self._named < NAMED_AT_MOST:
                self._named += 1
                warnings.warn(f"bad sample ({error.reason}), its slot counts 0: {error}", stacklevel=2)

    def take(self) -> dict[str, int]:
        """Counts on this rank since the last ``take``, to be summed over ranks."""
        fresh, self._fresh = dict(self._fresh), Counter()
        return fresh

    def metrics(self) -> dict[str, int]:
        """``bad/{reason}`` -> how many so far, over all ranks."""
        return {f"bad/{reason}": count for reason, count in sorted(self.counts.items())}

    def check(self, fresh: Mapping[str, float], pairs: int, at_end: bool = False) -> None:
        """Adds the summed counts; UserError above the allowed share of the ``pairs`` seen so far."""
        self.counts.update({reason.removeprefix("bad/"): int(count) for reason, count in fresh.items()})
        total = self.counts.total()
        if total > self.max_fraction * pairs and (at_end or pairs >= CHECKED_FROM):
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.counts.items()))
            raise UserError(
                f"{total} of the {pairs} pairs seen so far were bad ({reasons}), more than data.max_bad_fraction = "
                f"{self.max_fraction} allows; the first ones are named above. Mend the shards ('{self.verify}' lists every bad "
                f"sample) or allow more, e.g. {allowing(total, pairs)}."
            )


class MatchWatch:
    """Warns when Δmatch falls. Most objectives only widen gaps: nothing in S-VCO holds up log π of the true response itself."""

    SMOOTHING = 0.9

    def __init__(self, enabled: bool = True, warn_below: float = -1.0):
        self.enabled = enabled
        self.warn_below = warn_below
        self.mean: float | None = None

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Looks at the mean of ``delta/{side}_match`` (nats a response) of one logged step."""
        values = [metrics[name] for name in ("delta/0_match", "delta/1_match") if name in metrics]
        if not values:
            return
        now = sum(values) / len(values)
        self.mean = now if self.mean is None else self.SMOOTHING * self.mean + (1 - self.SMOOTHING) * now
        if self.enabled and self.mean < self.warn_below:
            warnings.warn(
                f"step {step}: the true responses under their own images have become less likely than under the "
                f"reference, by {-self.mean:.2f} nats a response on average. Objectives without an anchor "
                "only widen gaps: a lower optim.lr, fewer steps, a larger objective.beta or an NLL term (objective.nll) keep "
                "them up.",
                stacklevel=2,
            )
            self.warn_below *= 2  # again only when it has become twice as bad
