"""Weighted means over the pairs of a step, kept on the device until they are logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..basics.dist import World

if TYPE_CHECKING:
    import torch


class Tally:
    """Sums of weight × value by name. Adding never waits for the device; reducing does, once a logged step."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, report: Mapping[str, torch.Tensor], weight: torch.Tensor) -> None:
        """Adds one micro-batch: name -> (P,) values, and the pairs' weights (P,)."""
        import torch

        wide = weight.double()
        for name, values in report.items():
            # where, not a product: a filler's value may be anything, and 0 × inf is not 0.
            total = torch.where(wide > 0, values.double() * wide, 0.0).sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._sums["weight"] = self._sums.get("weight", 0.0) + wide.sum()

    def reduce(self, world: World) -> dict[str, float]:
        """Means over all pairs added on all ranks since the last call; empties the tally. A collective."""
        sums = world.sum(self._sums)
        self._sums = {}
        weight = sums.pop("weight", 0.0)
        return {name: total / weight for name, total in sums.items()} if weight else {}
