"""What a run trained, put into the weights of its base: ``W + scale · B · A`` or a value of its own, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..basics.errors import UserError
from ..model.adapter_files import LORA_A, LORA_B
from ..model.weight_names import WeightNames
from .stream import Weight

if TYPE_CHECKING:
    import torch


def merged(
    base: Mapping[str, Weight],
    names: WeightNames,
    adapter: Mapping[str, Weight],
    scale: Callable[[int], float],
    dtype: torch.dtype | None,
) -> dict[str, Weight]:
    """``base`` (by its files' names) with an adapter in it, in ``dtype`` (None: the base's own).

    ``adapter``, by transformers 5's names: ``X.lora_A.weight`` (r, in), ``X.lora_B.weight`` (out, r), and weights of
    modules that were trained whole; ``scale``: rank r -> what B · A is multiplied by. Computed in float32 and rounded
    once. UserError unless every tensor of the adapter has its place.
    """
    values = dict(adapter)
    changed = {}
    for name, five, weight in _pairs(base, names):
        stem = five.removesuffix(".weight")
        down, up = values.pop(stem + LORA_A, None), values.pop(stem + LORA_B, None)
        if down is not None and up is not None:
            changed[name] = _with_delta(name, weight, (down, up, scale(down.shape[0])), dtype or weight.dtype)
        elif down is None and up is None:
            changed[name] = _replaced(name, weight, values.pop(five, None), dtype)
        else:
            raise UserError(f"The adapter has only one of A and B of {stem}; it is damaged.")
    _require_used(values, "adapter")
    return changed


def replaced(
    base: Mapping[str, Weight], names: WeightNames, values: Mapping[str, Weight], dtype: torch.dtype | None
) -> dict[str, Weight]:
    """``base`` (by its files' names) with ``values`` (by transformers 5's names) in the places of their namesakes, in
    ``dtype`` (None: the base's own)."""
    left = dict(values)
    changed = {name: _replaced(name, weight, left.pop(five, None), dtype) for name, five, weight in _pairs(base, names)}
    _require_used(left, "checkpoint")
    return changed


def _pairs(base: Mapping[str, Weight], names: WeightNames) -> list[tuple[str, str, Weight]]:
    """(name in the file, name in transformers 5, weight) of all that is a weight of its own; UserError if one is missing.

    A tied weight is written once, and a buffer that transformers makes itself not at all, as ``save_pretrained`` does.
    """
    found = [(name, names.to5(name), weight) for name, weight in base.items()]
    known = {*names.weights, *names.aliases, *names.buffers}
    if stray := [name for name, five, _ in found if five not in known]:
        raise UserError(f"The base holds {len(stray)} weights that its architecture does not know, e.g. {stray[0]}.")
    own = set(names.weights)
    kept = [(name, five, weight) for name, five, weight in found if five in own]
    if missing := own - {five for _, five, _ in kept}:
        raise UserError(f"The base lacks {len(missing)} weights of its architecture, e.g. {min(missing)}.")
    return kept


def _with_delta(name: str, weight: Weight, delta: tuple[Weight, Weight, float], dtype: torch.dtype) -> Weight:
    down, up, scale = delta
    if up.shape[0] != weight.shape[0] or down.shape[1:] != weight.shape[1:] or up.shape[1] != down.shape[0]:
        raise UserError(
            f"The adapter does not fit the base: {name} is {weight.shape} there, B {up.shape} and A {down.shape}."
        )

    def read() -> torch.Tensor:
        whole = weight.read().float()
        return whole.addmm_(up.read().float(), down.read().float(), alpha=scale).to(dtype)

    return Weight(weight.shape, dtype, read)


def _replaced(name: str, weight: Weight, value: Weight | None, dtype: torch.dtype | None) -> Weight:
    if value is None:
        return weight.to(dtype)
    if value.shape != weight.shape:
        raise UserError(
            f"What was trained does not fit the base: {name} is {weight.shape} there and {value.shape} here."
        )
    return value.to(dtype or weight.dtype)


def _require_used(left: Mapping[str, Weight], what: str) -> None:
    if left:
        raise UserError(
            f"The {what} does not fit the base: {len(left)} of its tensors have no place there, e.g. {min(left)}. Is it "
            "the base that the run started from? --base gives another folder."
        )
