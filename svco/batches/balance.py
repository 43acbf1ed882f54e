"""Divides a global batch among ranks and micro-batches, alike on every rank."""

from __future__ import annotations

from collections.abc import Sequence

Division = tuple[tuple[tuple[int, ...], ...], ...]
"""[rank][micro-batch] -> positions in the global batch."""


def divide(costs: Sequence[int], world: int, budget: int) -> Division:
    """Divides items of ``costs`` (tokens) among ``world`` ranks in micro-batches of at most ``budget`` tokens.

    Every rank gets the same number of micro-batches, as few as work; an item above the budget gets one of its own. The
    longest items are placed first, each on the rank with the least so far (LPT), so ranks differ by at most about one
    item. A micro-batch may be empty where items are few.
    """
    longest_first = sorted(range(len(costs)), key=lambda item: (-costs[item], item))
    ranks: list[list[int]] = [[] for _ in range(world)]
    loads = [0] * world
    for item in longest_first:
        rank = min(range(world), key=lambda r: (loads[r], r))
        ranks[rank].append(item)
        loads[rank] += costs[item]
    packed = [_pack(items, costs, budget) for items in ranks]
    count = max(1, *map(len, packed))
    divided = []
    for micros in packed:
        empty: list[list[int]] = [[]] * (count - len(micros))
        divided.append(tuple(tuple(sorted(micro)) for micro in micros + empty))
    return tuple(divided)


def imbalance(division: Division, costs: Sequence[int]) -> float:
    """How far the fullest rank is above the average one, as a share of the average."""
    loads = [sum(costs[item] for micro in rank for item in micro) for rank in division]
    return max(loads) * len(loads) / sum(loads) - 1 if sum(loads) else 0.0


def _pack(items: Sequence[int], costs: Sequence[int], budget: int) -> list[list[int]]:
    """First fit, longest first: each item into the first micro-batch that still has room."""
    micros: list[list[int]] = []
    room: list[int] = []
    for item in items:
        place = next((i for i, left in enumerate(room) if costs[item] <= left), None)
        if place is None:
            micros.append([item])
            room.append(budget - costs[item])
        else:
            micros[place].append(item)
            room[place] -= costs[item]
    return micros
