"""One optimiser step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import UserError, first_line
from ..batches.loader import StepBatches
from ..engine import Engine
from .clock import Clock
from .job import Job
from .tally import Tally

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Taken:
    """What became of a step."""

    norm: torch.Tensor
    """(0-d) gradient norm before clipping."""
    skipped: bool
    """It was not taken, on any rank: a loss or a gradient was not finite."""
    suspects: tuple[Suspect, ...] = ()
    """Of a step that was skipped: this rank's pairs whose loss or terms are not finite."""


@dataclass(frozen=True)
class Suspect:
    """A pair whose loss or terms are not finite."""

    key: str
    """Its key."""
    terms: dict[str, str]
    """Loss or term -> what it is: ``nan``, ``inf`` or ``-inf``."""


def take_step(
    job: Job, engine: Engine, world: World, part: StepBatches, lr: float, clock: Clock, tally: Tally
) -> Taken:
    """One optimiser step, of which this rank takes ``part``. The tally gets what a step that is taken reports."""
    import torch

    # Dropout is a pure function of seed, step and rank, so a resumed run has no random state to restore.
    torch.manual_seed((job.config.run.seed * 1_000_003 + part.step) * world.size + world.rank)
    reports: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
    with naming_the_budget(job.config.optim.tokens_per_micro_batch), engine.accumulation():
        for batch in part.batches:
            batch = batch.to(world.device)
            with clock("forward"):
                policy, reference = engine(batch)
                losses, report = job.objective(policy, reference)
                # The mean over the global batch's slots. The engine averages over ranks, hence their number; fillers weigh 0.
                loss = (losses * batch.weight).sum() * (world.size / part.slots)
            with clock("backward"):
                engine.backward(loss)
            reports.append(({"loss": losses.detach(), **report}, batch.weight))
            clock.count(tokens=batch.llm_tokens, pairs=len(batch.weight))
    with clock("step"):
        norm = engine.step(lr)
    if engine.skipped:
        return Taken(norm, True, tuple(_suspects(job, part, [report for report, _ in reports])))
    for report, weight in reports:
        tally.add(report, weight)
    return Taken(norm, False)


def _suspects(job: Job, part: StepBatches, reports: list[dict[str, torch.Tensor]]) -> Iterator[Suspect]:
    for report, indices in zip(reports, part.indices, strict=True):
        for row, index in enumerate(indices):
            values = {name: float(of_pairs[row]) for name, of_pairs in report.items()}
            if terms := {name: str(value) for name, value in values.items() if not math.isfinite(value)}:
                yield Suspect(job.train.shards.key(index), terms)


@contextmanager
def naming_the_budget(tokens: int) -> Iterator[None]:
    """Turns running out of memory into a UserError that says what to lower."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise UserError(
            f"Out of memory ({first_line(error)}). optim.tokens_per_micro_batch is {tokens}: halve it until a "
            "step fits (results do not depend on it); optim.recompute=all saves more, and ZeRO-3 on more ranks "
            "shards the model further."
        ) from None
