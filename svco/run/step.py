"""One optimiser step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


def take_step(
    job: Job, engine: Engine, world: World, part: StepBatches, lr: float, clock: Clock, tally: Tally
) -> torch.Tensor:
    """One optimiser step, of which this rank takes ``part``; the gradient norm before clipping."""
    import torch

    # Dropout is a pure function of seed, step and rank, so a resumed run has no random state to restore.
    torch.manual_seed((job.config.run.seed * 1_000_003 + part.step) * world.size + world.rank)
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
            tally.add({"loss": losses.detach(), **report}, batch.weight)
            clock.count(tokens=batch.llm_tokens, pairs=len(batch.weight))
    with clock("step"):
        return engine.step(lr)


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
