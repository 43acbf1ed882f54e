"""World: who this process is among the ranks, and the few collectives the run needs outside DeepSpeed.

Rank and size are plain values handed down, never looked up, so one process can play N ranks in a test. A world of one
does no communication at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import UserError, first_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """One rank's place. All methods are collectives: every rank must call them, in the same order."""

    rank: int = 0
    """This process, 0 <= rank < size."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """This process among those of its host; picks the GPU."""
    local_size: int = 1
    """Number of processes on its host."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The torch device of this rank: its GPU, or the CPU where there is none."""
        import torch

        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def sum(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Sums scalars (0-d tensors or numbers) by name over all ranks, in float64 and one reduction.

        Ranks may hold different names; a name a rank does not hold counts as 0 there.
        """
        import torch

        names = sorted(set().union(*self.gather(sorted(values))))
        if not names:
            return {}
        mine = [torch.as_tensor(values.get(name, 0.0), dtype=torch.float64).cpu() for name in names]
        sums = torch.stack(mine).to(self.device)
        if self.size > 1:
            torch.distributed.all_reduce(sums)
        return dict(zip(names, sums.tolist(), strict=True))

    def highest(self, value: int) -> int:
        """The highest of the ranks' values, by one reduction of one number."""
        if self.size == 1:
            return value
        import torch

        box = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(box, torch.distributed.ReduceOp.MAX)
        return int(box)

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value`` (picklable), in rank order, on every rank."""
        if self.size == 1:
            return [value]
        import torch.distributed

        everyone: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def broadcast(self, value: T) -> T:
        """Rank 0's ``value`` (picklable) on every rank."""
        if self.size == 1:
            return value
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def on_main(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on rank 0, on every rank; a UserError it raises there is raised on every rank.

        So that one rank's mistake ends all ranks at once, instead of leaving the others in a collective.
        """
        made: tuple[Any, str | None] = (None, None)
        if self.is_main:
            try:
                made = make(), None
            except UserError as error:
                made = None, str(error)
        value, problem = self.broadcast(made)
        if problem is not None:
            raise UserError(problem)
        return value

    def on_each(self, make: Callable[[], T]) -> T:
        """What ``make``, which is no collective, returns here; a UserError that it raises on any rank is raised on every rank."""
        made: list[T] = []
        problem = None
        try:
            made.append(make())
        except UserError as error:
            problem = str(error)
        if problems := [told for told in self.gather(problem) if told is not None]:
            raise UserError(problems[0])
        return made[0]

    def barrier(self) -> None:
        self.gather(None)


def world_from_environment() -> World:
    """The place a launcher (deepspeed, torchrun, srun) gave this process; a world of one without.

    srun says it in variables of its own, which count when no others are there and the job step has several tasks; then
    MASTER_ADDR, the host of rank 0, and MASTER_PORT must be set (UserError).
    """
    given = os.environ
    tasks = int(given.get("SLURM_STEP_NUM_TASKS", 1))
    if "RANK" in given or tasks == 1:
        size = int(given.get("WORLD_SIZE", 1))
        # torchrun and deepspeed name the ranks of a node differently.
        local_size = int(given.get("LOCAL_WORLD_SIZE", given.get("LOCAL_SIZE", size)))
        return World(int(given.get("RANK", 0)), size, int(given.get("LOCAL_RANK", 0)), local_size)
    if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in given]:
        raise UserError(
            f"srun started {tasks} tasks without {' and '.join(absent)}, so they cannot find rank 0. In the job script: "
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29500 '
            "(launchers/train.slurm does)."
        )
    # One number a node, runs of equal ones shortened: "8(x4)", "8,4". The first node's counts.
    tasks_a_node = given.get("SLURM_STEP_TASKS_PER_NODE", str(tasks))
    local_size = int(re.split("[(,]", tasks_a_node)[0])
    return World(int(given["SLURM_PROCID"]), tasks, int(given["SLURM_LOCALID"]), local_size)


@contextmanager
def naming_lost_ranks() -> Iterator[None]:
    """Turns what gloo, NCCL and their store say when another rank is gone into a UserError that says how to go on."""
    import torch

    try:
        yield
    except RuntimeError as error:
        text = first_line(error)
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in text:
            raise
        raise UserError(
            f"Another rank is gone or silent ({text}). What it said is above, or in its host's log; without a word, its "
            "host was lost or the network between. The run goes on from its last checkpoint when it is started "
            "again with run.resume=auto and the same run.name."
        ) from None
