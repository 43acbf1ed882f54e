"""ZeRO++ behind a checksum: the weights that a layer computes with, against the shards that the ranks hold.

Quantised and hierarchical gathers have given wrong weights without an error before, and a loss looks plausible for a long
time. Every rank compares its own share of what it gathered with the shard it came from, and all ranks compare digests of the
whole: together that is every weight on every rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..basics.dist import World
from ..basics.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

EVERY = 100
"""Steps between two checks, after those of the first two steps."""
QUANTISED = 0.1
"""How far a share may be from its shard, relative to its norm. 8-bit blocks of normally distributed weights are 1% off; weights
that are out of place 100% or more."""
_REMEDY = (
    "Training on would learn from wrong weights. Turn ZeRO++ off (ds_configs/zero3.json), or first zero_quantized_weights, then "
    "zero_hpz_partition_size, and report it to DeepSpeed with its version."
)


def compressed(ds: Mapping[str, Any]) -> bool:
    """Whether ``ds`` gathers weights otherwise than ZeRO-3 does."""
    zero = ds["zero_optimization"]
    return zero.get("zero_hpz_partition_size", 1) > 1 or zero.get("zero_quantized_weights", False)


class GatherCheck:
    """Checks a few layers after each of the first two steps and every ``EVERY`` from there on, other layers each time."""

    def __init__(self, layers: Sequence[nn.Module], names: Mapping[int, str], quantised: bool, world: World):
        """``names`` are those of the parameters, by ``id``."""
        self.layers, self.names, self.quantised, self.world = layers, names, quantised, world
        self.tolerance = QUANTISED if quantised else 0.0

    def after(self, step: int) -> None:
        """Checks if it is time after ``step`` steps. A collective; UserError on every rank when any of them disagrees."""
        if step > 2 and step % EVERY:
            return
        last = len(self.layers) - 1
        for number in sorted({0, last // 2, last} if step <= 2 else {step // EVERY % (last + 1)}):
            # Twice: hierarchical shards are made from what was gathered first and are used from the second time on.
            for _ in (1, 2):
                self._check(self.layers[number])

    def _check(self, layer: nn.Module) -> None:
        from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

        parameters: list[Any] = list(layer.parameters())  # with what ZeRO-3 hangs on them
        waiting = [p for p in parameters if p.ds_status == ZeroParamStatus.NOT_AVAILABLE]
        # As ZeRO-3 gathers a leaf module; its GatheredParameters takes another way.
        for hierarchical in (True, False):
            if group := [p for p in waiting if (p.ds_secondary_tensor is not None) is hierarchical]:
                group[0].all_gather_coalesced(group, quantize=self.quantised).wait()
        found = {self.names[id(p)]: (p.data.flatten(), p.ds_tensor) for p in waiting}
        try:
            compare(found, self.tolerance, self.world)
        finally:
            for p in waiting:
                p.partition()


def compare(found: Mapping[str, tuple[torch.Tensor, torch.Tensor]], tolerance: float, world: World) -> None:
    """UserError unless every rank holds the same weights, and they are the ranks' shards to within ``tolerance``. A collective.

    ``found``: name -> (all n weights as gathered (n,), this rank's shard (s,)); shards follow each other in rank order and the
    last is padded. A tolerance of 0 means bit for bit; otherwise it is relative to the norm of the share.
    """
    mine = {name: (_digest(whole), distance(whole, shard, world.rank)) for name, (whole, shard) in found.items()}
    everyone = world.gather(mine)
    for name in mine:
        digests = [theirs[name][0] for theirs in everyone]
        if odd := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
            raise UserError(f"Rank {odd[0]} has other weights than rank 0 in {name} after gathering them. {_REMEDY}")
        rank, far = max(enumerate(theirs[name][1] for theirs in everyone), key=lambda item: item[1])
        if not far <= tolerance:
            raise UserError(
                f"The weights gathered of {name} are {far:.1%} off the shard of rank {rank}, and {tolerance:.0%} are allowed. "
                f"{_REMEDY}"
            )


def distance(whole: torch.Tensor, shard: torch.Tensor, rank: int) -> float:
    """‖share − shard‖ / ‖shard‖ in float32, where share is what ``whole`` (n,) has in the place of ``shard`` (s,)."""
    start = min(rank * shard.numel(), whole.numel())
    share = whole[start : start + shard.numel()].float()
    true = shard[: share.numel()].to(share.device).float()
    norm = float(true.norm())
    error = float((share - true).norm())
    if norm == 0.0 or math.isnan(error):
        return 0.0 if error == 0.0 else float("inf")
    return error / norm


def _digest(whole: torch.Tensor) -> str:
    import torch

    return hashlib.blake2b(whole.detach().contiguous().view(torch.uint8).cpu().numpy().data, digest_size=16).hexdigest()
