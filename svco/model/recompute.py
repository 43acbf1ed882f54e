"""How many layers compute their activations again in the backward pass: all, none, a number, or as few as memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import UserError
from ..recipe.config import OptimConfig

if TYPE_CHECKING:
    from .scorer import PackedScorer
    from .twin import TwinLayer

_SPARED = 0.1
"""Share of the GPU left alone: fragmentation, and packs a little larger than those of the first step."""


class RecomputeDial:
    """Sets how many layers are recomputed; with ``auto`` after the first step, from what it used.

    Results do not depend on it. In ``auto`` the first step recomputes every layer but keeps the activations of one of each
    kind to measure them, and the second shows what of the GPU stays free; without a limit (CPU, ``optim.activation_gb`` 0)
    nothing is recomputed at all. ``largest_pack`` is the most tokens that a micro-batch of the run can have.
    """

    def __init__(self, scorer: PackedScorer, config: OptimConfig, world: World, largest_pack: int):
        self.scorer, self.config, self.world, self.largest_pack = scorer, config, world, largest_pack
        layers = len(scorer.layers)
        self._peak_is_old = world.device.type == "cuda" and not config.activation_gb
        count = resolve_recompute(config.recompute, layers)
        self.open = count is None and (world.device.type == "cuda" or config.activation_gb > 0)
        scorer.saved.wanted = self.open
        set_recompute(scorer.layers, layers if self.open else count or 0)

    def settle(self) -> str:
        """Called after each step: the decision in words, or an empty string when none was made. A collective when one is."""
        if not self.open:
            return ""
        if (
            self._peak_is_old
        ):  # it is loading's, and AdamW had no moments yet: the next step's peak is the one that counts
            self._forget_peak()
            return ""
        self.open = False
        layers, per_layer = len(self.scorer.layers), self.scorer.saved.per_layer
        if not per_layer:
            return f"recompute: all {layers} layers (what one keeps could not be measured)"
        kept, free = [bytes_ * self.largest_pack for bytes_ in per_layer], self._free_bytes()
        count = max(self.world.gather(fill_memory(kept, free)))
        set_recompute(self.scorer.layers, count)
        said = " or ".join(dict.fromkeys(f"{bytes_ / 1e9:.2f} GB" for bytes_ in kept))
        return (
            f"recompute: {count} of {layers} layers (a layer keeps {said} of a micro-batch of "
            f"{self.largest_pack:,} tokens; {free / 1e9:.1f} GB free)"
        )

    def _forget_peak(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self.world.device)
        self._peak_is_old = False

    def _free_bytes(self) -> float:
        if self.config.activation_gb > 0:
            return self.config.activation_gb * 1e9
        import torch

        device = self.world.device
        total = torch.cuda.get_device_properties(device).total_memory
        return total * (1 - _SPARED) - torch.cuda.max_memory_allocated(device)


def set_recompute(layers: Iterable[TwinLayer], count: int) -> None:
    """Recomputes the first ``count`` of ``layers``: the last ones' activations live the shortest."""
    for number, layer in enumerate(layers):
        layer.recompute = number < count


def resolve_recompute(wanted: str, layers: int) -> int | None:
    """Layers to recompute for ``optim.recompute``: ``all``, ``none`` or a number; None for ``auto``."""
    named = {"auto": None, "all": layers, "none": 0}
    if wanted in named:
        return named[wanted]
    if not wanted.isdecimal() or int(wanted) > layers:
        raise UserError(
            f"optim.recompute is {wanted!r}; it takes auto, all, none or a number of layers up to the model's {layers}."
        )
    return int(wanted)


def fill_memory(kept_bytes: Sequence[float], free_bytes: float) -> int:
    """How many layers, the first ones, to recompute when their activations take ``kept_bytes`` and ``free_bytes`` are free."""
    recomputed = len(kept_bytes)
    while recomputed and sum(kept_bytes[recomputed - 1 :]) <= free_bytes:
        recomputed -= 1
    return recomputed
