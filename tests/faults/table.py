"""The table of faults: what is injected, when, and what must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faults.stage import Stage


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    """``kind/what``, which a filter matches."""
    what: str
    """What is injected."""
    when: str
    """When."""
    holds: str
    """What must hold, beside what must hold after every fault (``harness.play``)."""
    play: Callable[[Stage], None]
    """Injects and looks; raises Broken, or NotHere."""
    control: bool = False
    """The same without what would catch it, or a doctored run: the row holds when the check breaks."""
    short: bool = False
    """Played by ``make test`` too."""
    disk: str = ""
    """Size of a disk of its own."""


def table(seed: int) -> list[Row]:
    """All rows, in the order in which they are played. ``seed`` draws instants and places of bits."""
    from faults import clocks, damage, disks, kills, not_finite, owners, ranks, readers, shards

    rows = [
        row
        for kind in (kills, damage, readers, disks, shards, owners, clocks, not_finite, ranks)
        for row in kind.rows(seed)
    ]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return rows
