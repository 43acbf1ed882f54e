"""One optimiser step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import UserError, first_line
from ..batches.loader import StepBatches
from ..engine import Engine
from .clock import Clock
from .job import Job
from .suspects import Suspect, of_gradients, of_losses
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
    """Of a step that was skipped: this rank's pairs whose loss, terms or gradient are not finite."""


def take_step(
    job: Job, engine: Engine, world: World, part: StepBatches, lr: float, clock: Clock, tally: Tally
) -> Taken:
    """One optimiser step, of which this rank takes ``part``. The tally gets what a step that is taken reports.

    Where it is skipped though every loss is finite, it is computed once more, listening to the gradients of each pair: the same
    numbers again, so it is skipped again. Not with float16, whose gradients overflow now and then without a pair to blame.
    """
    taken = _take(job, engine, world, part, lr, clock, tally, listening=False)
    if taken.skipped and not engine.scaled and not any(world.gather(bool(taken.suspects))):
        return _take(job, engine, world, part, lr, clock, tally, listening=True)
    return taken


def _take(
    job: Job, engine: Engine, world: World, part: StepBatches, lr: float, clock: Clock, tally: Tally, listening: bool
) -> Taken:
    import torch

    # Dropout is a pure function of seed, step and rank, so a resumed run has no random state to restore.
    torch.manual_seed((job.config.run.seed * 1_000_003 + part.step) * world.size + world.rank)
    reports: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
    suspects: list[Suspect] = []
    with naming_the_budget(job.config.optim.tokens_per_micro_batch), engine.accumulation():
        for number, batch in enumerate(part.batches):
            batch = batch.to(world.device)
            hearing: AbstractContextManager[list[torch.Tensor]] = (
                engine.scorer.hearing_gradients() if listening else nullcontext([])
            )
            with hearing as heard:
                with clock("forward"):
                    policy, reference = engine(batch)
                    losses, report = job.objective(policy, reference)
                    # The mean over the global batch's slots. The engine averages over ranks, hence their number; fillers weigh 0.
                    loss = (losses * batch.weight).sum() * (world.size / part.slots)
                with clock("backward"):
                    engine.backward(loss)
            suspects += of_gradients(job, part.indices[number], batch, heard)
            reports.append(({"loss": losses.detach(), **report}, batch.weight))
            clock.count(tokens=batch.llm_tokens, pairs=len(batch.weight))
    with clock("step"):
        norm = engine.step(lr)
    if engine.skipped:
        return Taken(norm, True, (*suspects, *of_losses(job, part, [report for report, _ in reports])))
    for report, weight in reports:
        tally.add(report, weight)
    return Taken(norm, False)


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
