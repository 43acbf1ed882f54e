"""World: who this process is among the ranks, and the few collectives the run needs outside DeepSpeed.

Rank and size are plain values handed down, never looked up, so one process can play N ranks in a test. A world of one
does no communication at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import UserError

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
    def device(self):
        """The torch device of this rank: its GPU, or the CPU where there is none."""
        import torch

        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def sum(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Sums scalars (0-d tensors or numbers) by name over all ranks, in float64 and one reduction.

        Ranks may hold different names; a name a rank does not hold counts as 0 there.
        """
        import torch

        names = sorted(set().union(*self.gather(sorted(values))))
        flat = (
            torch.stack([torch.as_tensor(values.get(name, 0.0), dtype=torch.float64).cpu() for name in names])
            if names
            else torch.zeros(0, dtype=torch.float64)
        )
        flat = flat.to(self.device)
        if self.size > 1 and names:
            torch.distributed.all_reduce(flat)
        return dict(zip(names, flat.tolist(), strict=True))

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value`` (picklable), in rank order, on every rank."""
        if self.size == 1:
            return [value]
        import torch.distributed

        everyone: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def broadcast(self, value: T | None) -> T:
        """Rank 0's ``value`` (picklable) on every rank."""
        if self.size == 1:
            return value  # type: ignore[return-value]
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def on_main(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on rank 0, on every rank; a UserError it raises there is raised on every rank.

        So that one rank's mistake ends all ranks at once, instead of leaving the others in a collective.
        """
        made: tuple[T | None, str | None] = (None, None)
        if self.is_main:
            try:
                made = make(), None
            except UserError as error:
                made = None, str(error)
        value, problem = self.broadcast(made)
        if problem is not None:
            raise UserError(problem)
        return value  # type: ignore[return-value]

    def barrier(self) -> None:
        self.gather(None)


def world_from_environment() -> World:
    """The place a launcher (deepspeed, torchrun, srun with the same variables) gave this process; a world of one without."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    return World(
        rank=int(os.environ.get("RANK", 0)),
        size=size,
        local_rank=int(os.environ.get("LOCAL_RANK", 0)),
        # torchrun and deepspeed name it differently.
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", size))),
    )
