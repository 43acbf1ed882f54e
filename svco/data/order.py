"""The order of pairs: in training a pure function of seed, epoch and index.

World size, workers and micro-batches never enter it, so they can change between a run and its resumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ORDER_VERSION = 1
"""Changes when the same seed would give another order; a checkpoint of another version is not resumed."""


@dataclass(frozen=True)
class Order:
    """Shards are permuted, then samples within blocks of neighbouring shards, so that reads stay local."""

    seed: int
    """``run.seed``."""
    shard_sizes: tuple[int, ...]
    """Samples in each shard."""
    global_batch: int
    """Pairs a step (G)."""
    block_shards: int = 8
    """Shards a block."""

    @property
    def count(self) -> int:
        """Pairs an epoch."""
        return sum(self.shard_sizes)

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch; its last one may hold fewer than G pairs."""
        return -(-self.count // self.global_batch)

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, indices (≤ G,) int64) that step ``step`` (from 0, over all epochs) consumes."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.global_batch
        order = epoch_order(self.seed, epoch, self.shard_sizes, self.block_shards)
        return epoch, order[start : start + self.global_batch]


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, shard_sizes: tuple[int, ...], block_shards: int) -> np.ndarray:
    """All indices of one epoch in order, (N,) int64, read-only."""
    starts = np.concatenate([[0], np.cumsum(shard_sizes)])[:-1]

    # Philox streams are part of NumPy's stability promise; shuffling by sorted keys does not depend on an algorithm.
    def permutation(count: int, *path: int) -> np.ndarray:
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, *path))))
        keys = random.integers(0, 2**63, count, dtype=np.int64)
        return np.argsort(keys, kind="stable")

    shards = permutation(len(shard_sizes), 0)
    blocks = []
    for number, first in enumerate(range(0, len(shards), block_shards)):
        chosen = shards[first : first + block_shards]
        members = np.concatenate([np.arange(starts[s], starts[s] + shard_sizes[s]) for s in chosen])
        blocks.append(members[permutation(len(members), 1, number)])
    order = np.concatenate(blocks).astype(np.int64)
    order.setflags(write=False)
    return order


@dataclass(frozen=True)
class GivenOrder:
    """Pairs that are given, one after another, once: the order of an evaluation, or of a reference that is computed."""

    index: np.ndarray
    """(N,) int64 indices in the shard set."""
    global_batch: int
    """Pairs a step over all ranks."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in all."""
        return -(-len(self.index) // self.global_batch)

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch 0, the indices (≤ G,) of ``step``)."""
        return 0, self.index[step * self.global_batch : (step + 1) * self.global_batch]
