"""The order of pairs: pure, complete, and the same whatever machine it runs on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from svco.batches.balance import divide
from svco.data.order import Order, epoch_order

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(tuple)


def test_golden_order():
    """The order is part of the checkpoint format: a change of these numbers needs a new ORDER_VERSION."""
    assert epoch_order(42, 0, (4, 3, 5), 2).tolist() == GOLDEN


GOLDEN = [6, 1, 5, 0, 4, 2, 3, 8, 7, 9, 10, 11]


@given(SIZES, st.integers(0, 2**32), st.integers(1, 13), st.integers(1, 4))
def test_every_epoch_is_a_permutation_and_epochs_differ(sizes, seed, batch, block):
    order = Order(seed, sizes, batch, block)
    epochs = []
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [order.batch(step) for step in steps]
        assert {e for e, _ in batches} == {epoch}
        assert all(len(indices) == batch for _, indices in batches[:-1])
        epochs.append(np.concatenate([indices for _, indices in batches]).tolist())
        assert sorted(epochs[-1]) == list(range(sum(sizes)))
    if sum(sizes) > 24:
        assert epochs[0] != epochs[1]


@settings(max_examples=200)
@given(
    SIZES,
    st.integers(0, 99),
    st.integers(1, 13),
    st.sampled_from([1, 2, 3, 4, 6]),
    st.sampled_from([1, 2, 3, 4, 6]),
    st.data(),
)
def test_stopped_and_resumed_at_another_world_size(sizes, seed, batch, first_world, second_world, data):
    """Ranks only divide a global batch: what was consumed is the same list, each pair once, at every world size."""
    order = Order(seed, sizes, batch)
    stop = data.draw(st.integers(0, order.steps_per_epoch))
    costs = np.random.default_rng(seed).integers(1, 50, sum(sizes))
    seen = []
    for step in range(order.steps_per_epoch):
        indices = order.batch(step)[1]
        divided = divide(costs[indices].tolist(), first_world if step < stop else second_world, 60)
        taken = sorted(int(indices[p]) for rank in divided for micro in rank for p in micro)
        assert taken == sorted(indices.tolist())
        seen += taken
    assert sorted(seen) == list(range(sum(sizes)))


@given(st.lists(st.integers(1, 100), max_size=60), st.integers(1, 8), st.integers(1, 300))
def test_division(costs, world, budget):
    divided = divide(costs, world, budget)
    assert len(divided) == world
    assert len({len(rank) for rank in divided}) == 1, "all ranks take the same number of micro-steps"
    assert len(divided[0]) >= 1
    assert sorted(p for rank in divided for micro in rank for p in micro) == list(range(len(costs)))
    for rank in divided:
        for micro in rank:
            assert sum(costs[p] for p in micro) <= budget or len(micro) == 1
    loads = [sum(costs[p] for micro in rank for p in micro) for rank in divided]
    assert max(loads) - min(loads) <= max(costs, default=0), "ranks differ by at most one item"


def test_blocks_keep_reads_local():
    order = epoch_order(1, 0, (100,) * 16, 4)
    for block in order.reshape(4, 400):
        assert len(set((block // 100).tolist())) == 4
