"""The loader with real worker processes: the same steps however it is divided, bad samples in their slots."""

import numpy as np
import pytest

from svco.basics.errors import BadSample, UserError
from svco.batches.loader import Loader
from svco.data.order import Order
from svco.data.shards import ShardSet


def keys(slots):
    """Stands in for tensors: the keys of a micro-batch."""
    bad = [slot for slot in slots if isinstance(slot, BadSample)]
    return tuple(slot.text.key for slot in slots if not isinstance(slot, BadSample)), bad


def refuse(slots):
    raise UserError("the disk is full")


def make(shards, encode=keys, world=1, rank=0, workers=0, start=0, stop=None, budget=10):
    order = Order(7, shards.shard_sizes, 6)
    costs = np.arange(len(shards)) % 4 + 1
    return Loader(
        shards,
        order,
        costs,
        encode,
        world=world,
        rank=rank,
        budget=budget,
        workers=workers,
        start=start,
        stop=stop or 2 * order.steps_per_epoch,
    )


@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create 3 worker:UserWarning:torch.utils.data"
)  # on fewer cores
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_world_and_workers_only_divide(shards, workers):
    opened = ShardSet.open(str(shards))
    whole = [(s.step, s.epoch, s.slots, sorted(k for b in s.batches for k in b)) for s in make(opened)]
    assert [slots for _, _, slots, _ in whole] == [6, 6, 6, 2] * 2
    for world, start in ((2, 0), (3, 5)):
        parts = [list(make(opened, world=world, rank=rank, workers=workers, start=start)) for rank in range(world)]
        for expected, *ranks in zip(whole[start:], *parts, strict=True):
            assert len({len(part.batches) for part in ranks}) == 1
            assert sorted(k for part in ranks for b in part.batches for k in b) == expected[3]
            assert {(p.step, p.epoch, p.slots) for p in ranks} == {expected[:3]}
            for part in ranks:
                assert [[opened.key(i) for i in micro] for micro in part.indices] == [list(b) for b in part.batches]


def test_a_reference_that_was_never_computed_is_not_taken_for_zeros(shards):
    from dataclasses import dataclass

    import torch

    @dataclass
    class Batch:
        weight: torch.Tensor
        reference_logps: torch.Tensor | None = None

    def prepare(slots):
        return Batch(torch.tensor([float(not isinstance(slot, BadSample)) for slot in slots] or [0.0])), []

    opened = ShardSet.open(str(shards))
    rows = -np.arange(1, 1 + 20 * 6, dtype=np.float32).reshape(20, 2, 3)
    loader = make(opened, prepare)
    loader.steps.references = rows
    for step in loader:
        for batch, indices in zip(step.batches, step.indices):
            assert (batch.reference_logps.numpy() == rows[list(indices)]).all()
    rows[13] = 0
    with pytest.raises(UserError, match=f"holds nothing for sample '{opened.key(13)}'"):
        list(loader)


def test_stopping_early_leaves_no_worker(shards):
    import multiprocessing

    iterator = iter(make(ShardSet.open(str(shards)), workers=2))
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    del iterator
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_come_out_as_they_went_in(shards, workers):
    with pytest.raises(UserError, match="^the disk is full$"):
        list(make(ShardSet.open(str(shards)), encode=refuse, workers=workers))
