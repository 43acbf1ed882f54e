"""What a run keeps an eye on besides its loss: bad samples, gradient norms, and where the log-probabilities drift."""

from __future__ import annotations

import math
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from ..basics.errors import BadSample, UserError, allowing
from ..recipe.config import ObjectiveConfig

if TYPE_CHECKING:
    import torch

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


class DriftWatch:
    """Warns when what is watched, smoothed over logged steps, leaves where it may be; again only when it is twice as far off."""

    SMOOTHING = 0.9

    def __init__(self, view: str, told: str, low: float, high: float = math.inf):
        """``view``: the mean of ``delta/{side}_{view}`` (nats a response) is watched, and ``told`` says what it means."""
        self.names = (f"delta/0_{view}", f"delta/1_{view}")
        self.told, self.low, self.high = told, low, high
        self.mean: float | None = None

    def add(self, metrics: Mapping[str, Any], step: int) -> str:
        """Looks at one logged step; the warning, or an empty string."""
        values = [metrics[name] for name in self.names if metrics.get(name) is not None]
        if not values or not math.isfinite(now := sum(values) / len(values)):
            return ""
        self.mean = now if self.mean is None else self.SMOOTHING * self.mean + (1 - self.SMOOTHING) * now
        if self.low <= self.mean <= self.high:
            return ""
        self.low, self.high = 2 * self.low, 2 * self.high
        return f"step {step}: {self.told.format(self.mean, abs(self.mean))}"


def match_watch() -> DriftWatch:
    """Most objectives only widen gaps: nothing in S-VCO holds up log π of the true response itself."""
    return DriftWatch(
        "match",
        "the true responses under their own images have become less likely than under the reference, by {1:.2f} nats a response "
        "on average. Objectives without an anchor only widen gaps: a lower optim.lr, fewer steps, a larger objective.beta or an "
        "NLL term (objective.nll) keep them up.",
        low=-1.0,
    )


def blind_watch(beta: float) -> DriftWatch:
    """Attend and reject hold Δblind between Δmatch and Δclash, not at 0: where it runs away (by more than 1/β, where βΔ is no
    longer small), the policy learns to speak otherwise rather than to look."""
    return DriftWatch(
        "blind",
        "without an image the responses are {0:+.2f} nats from the reference on average (delta/*_blind), more than 1 / "
        f"objective.beta = {1 / beta:.3g}: the policy changes how it speaks rather than how it looks. A lower optim.lr, fewer "
        "steps or a larger objective.beta hold it.",
        low=-1 / beta,
        high=1 / beta,
    )


class NormWatch:
    """Notices steps whose gradient norm jumps above those before it, and warns: a bad batch, or a learning rate too high, shows
    there before it shows in the loss.

    A jump: above ``FACTOR`` times the median of the last ``WINDOW`` norms, and above it by ``SIGMAS`` of their robust standard
    deviations (1.4826 median absolute deviations), both of logarithms, from ``FROM`` norms on.
    """

    WINDOW, FROM, FACTOR, SIGMAS = 64, 16, 4.0, 6.0

    def __init__(self) -> None:
        self.jumps = 0
        self._logs: deque[float] = deque(maxlen=self.WINDOW)
        self._warn_above = 0.0

    def add(self, metrics: Mapping[str, Any], step: int) -> str:
        """Looks at ``grad_norm``, or the largest since the last log; the warning, or an empty string. Of jumps only the first,
        and each twice as high as the last one told, is."""
        norm = metrics.get("grad_norm_max", metrics.get("grad_norm"))
        if norm is None or not 0 < norm < math.inf:
            return ""
        told, log = "", math.log(norm)
        if len(self._logs) >= self.FROM:
            middle = median(self._logs)
            spread = 1.4826 * median(abs(other - middle) for other in self._logs)
            if log - middle > max(math.log(self.FACTOR), self.SIGMAS * spread):
                self.jumps += 1
                if norm > self._warn_above:
                    self._warn_above = 2 * norm
                    told = (
                        f"step {step}: the gradient norm is {norm:.3g}, {math.exp(log - middle):.3g} times the median of the "
                        f"{len(self._logs)} before it. It is clipped (optim.max_grad_norm); more of them "
                        "('grad_jumps' in metrics.jsonl counts) ask for a lower optim.lr or a look at the data."
                    )
        self._logs.append(log)
        return told


class Watches:
    """What looks at every logged step. It only warns; on ranks that are not ``enabled`` it is silent."""

    def __init__(self, config: ObjectiveConfig, enabled: bool, before: Iterable[Mapping[str, Any]] = ()):
        """``before``: the log so far, looked at again in silence: a run that goes on warns as if it had not stopped."""
        self.enabled = enabled
        self._norm_watch = NormWatch()
        self._watches = (match_watch(), blind_watch(config.beta), self._norm_watch)
        self._norms: list[torch.Tensor] = []
        for line in before:
            for watch in self._watches:
                watch.add(line, line["step"])

    def stepped(self, norm: torch.Tensor) -> None:
        """Keeps a step's gradient norm (0-d), unread: reading would wait for the device."""
        self._norms.append(norm.detach())

    def norms(self) -> dict[str, float]:
        """``grad_norm`` of the last step, and ``grad_norm_max`` of those since the last call where they were several."""
        import torch

        norms = torch.stack(self._norms).tolist()
        self._norms.clear()
        several = {"grad_norm_max": max((norm for norm in norms if math.isfinite(norm)), default=math.nan)}
        return {"grad_norm": norms[-1], **(several if len(norms) > 1 else {})}

    def add(self, metrics: Mapping[str, Any], step: int) -> dict[str, int]:
        """Looks at a logged step; ``grad_jumps``, the steps (or logs of several) so far whose gradient norm jumped."""
        for watch in self._watches:
            if (told := watch.add(metrics, step)) and self.enabled:
                warnings.warn(told, stacklevel=3)
        return {"grad_jumps": self._norm_watch.jumps}
