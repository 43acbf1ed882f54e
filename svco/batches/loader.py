"""Decoded, tensorised micro-batches of one rank, step after step, made ahead of time by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..basics.errors import BadSample, UserError, first_line
from ..basics.signals import outlive_stop_signals
from ..data.pairs import Pair, PairSource
from .balance import divide, imbalance

Encoder = Callable[[Sequence[Pair | BadSample]], tuple[Any, list[BadSample]]]
"""The slots of a micro-batch -> (its batch, the bad samples met), as :class:`~svco.batches.encode.Encode` does."""


class PairOrder(Protocol):
    """An order of pairs: :class:`~svco.data.order.Order`, or another with the same method."""

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, indices of the step)."""
        ...


@dataclass(frozen=True)
class StepBatches:
    """One rank's part of one step."""

    step: int
    """Step, from 0."""
    epoch: int
    """Epoch the step belongs to."""
    slots: int
    """Pairs of the global batch over all ranks, bad ones included: the divisor of the mean."""
    batches: tuple[Any, ...]
    """Micro-batches; as many on every rank."""
    indices: tuple[tuple[int, ...], ...]
    """Index in the shard set of each pair of each micro-batch; fillers have none."""
    bad: tuple[BadSample, ...]
    """Bad samples met in this rank's part."""
    imbalance: float = 0.0
    """How many more tokens the fullest rank has in this step than the average one, as a share."""

    def pin_memory(self) -> StepBatches:
        """The same with its batches in page-locked memory; called by DataLoader when there is a GPU."""
        return replace(self, batches=tuple(batch.pin_memory() for batch in self.batches))


class Loader:
    """Iterates over ``StepBatches`` of the steps ``start`` to ``stop``. A step is a pure function of its number."""

    def __init__(
        self,
        shards: PairSource,
        order: PairOrder,
        costs: np.ndarray,
        encode: Encoder,
        *,
        world: int,
        rank: int,
        budget: int,
        workers: int,
        start: int,
        stop: int,
        references: np.ndarray | None = None,
    ):
        self.steps = _Steps(shards, order, costs, encode, world, rank, budget, start, stop, references)
        self.workers = min(workers, max(0, stop - start))

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[StepBatches]:
        loader = DataLoader(
            self.steps,
            batch_size=None,
            shuffle=False,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=2 if self.workers else None,
            worker_init_fn=_worker,
        )
        for made in loader:
            if isinstance(made, UserError):
                raise made
            yield made


@contextmanager
def naming_lost_workers() -> Iterator[None]:
    """Turns what torch says of a loader process that was killed, whenever it learns of it, into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if not (told := first_line(error)).startswith("DataLoader worker"):
            raise
        raise UserError(
            f"A loader process was killed ({told}). Most often the kernel does that when memory is short, and its log (dmesg) "
            "says so. Lower data.workers, or the images' sizes, and go on with run.resume=auto and the same run.name."
        ) from None


@dataclass
class _Steps(Dataset[StepBatches | UserError]):
    """A map-style dataset whose items are steps."""

    shards: PairSource
    order: PairOrder
    costs: np.ndarray
    encode: Encoder
    world: int
    rank: int
    budget: int
    start: int
    stop: int
    references: np.ndarray | None

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, number: int) -> StepBatches | UserError:
        if number >= len(self):
            raise IndexError(number)
        try:
            return self._make(self.start + number)
        except UserError as error:
            return error  # raised by the consumer: an exception that crosses a process drags its traceback along

    def _make(self, step: int) -> StepBatches:
        epoch, indices = self.order.batch(step)
        costs = self.costs[indices].tolist()
        divided = divide(costs, self.world, self.budget)
        batches, bad = [], []
        micros = [indices[list(positions)] for positions in divided[self.rank]]
        for micro in micros:
            batch, found = self.encode([self._read(index) for index in micro.tolist()])
            batches.append(self._with_reference(batch, micro))
            bad += found
        return StepBatches(
            step=step,
            epoch=epoch,
            slots=len(indices),
            batches=tuple(batches),
            indices=tuple(tuple(micro.tolist()) for micro in micros),
            bad=tuple(bad),
            imbalance=imbalance(divided, costs),
        )

    def _with_reference(self, batch: Any, indices: np.ndarray) -> Any:
        """``batch`` with the cached reference of its pairs, if there is one; zeros for the filler of an empty batch."""
        if self.references is None:
            return batch
        if not len(indices):
            return replace(batch, reference_logps=torch.from_numpy(np.zeros_like(self.references[:1])))
        rows = self.references[indices]
        readable = batch.weight.numpy() > 0
        absent = indices[readable & ~rows.any(axis=(1, 2))]
        if len(absent):
            raise UserError(
                f"The cached reference holds nothing for sample {self.shards.key(int(absent[0]))!r}, which could not be read "
                "when it was computed and can be now. Delete the folder references in run.root; it is made again."
            )
        return replace(batch, reference_logps=torch.from_numpy(rows))

    def _read(self, index: int) -> Pair | BadSample:
        try:
            return self.shards.read(index)
        except BadSample as error:
            return error


def _worker(_: int) -> None:
    """Decodes one image at a time, as more threads would only take cores from the model, and outlives its rank's signals."""
    torch.set_num_threads(1)
    outlive_stop_signals()
