"""Counts that do not depend on the hardware: tokens, images, FLOPs, bytes held for the backward pass, bytes moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ...model.load import Tuned
from ...model.scorer import PackedScorer
from .shapes import Shape


@dataclass
class Counts:
    """One step's work, a pair."""

    llm_tokens: float = 0.0
    """Tokens through the policy's layers in the forward pass, padding included."""
    reference_tokens: float = 0.0
    """The same for the reference."""
    images: float = 0.0
    """Images through the vision tower, for both models."""
    flops: float = 0.0
    """Floating-point operations of forward, recomputation and backward, attention included; 2 a multiply-add."""
    parts: dict[str, float] = field(default_factory=dict)
    """The same by what they are for: see :data:`PARTS`."""
    floor: float = 0.0
    """What of them no implementation avoids: see :func:`floor_flops`."""
    held: dict[str, float] = field(default_factory=dict)
    """Bytes alive between forward and backward, by kind: hidden states, logits, attention, other."""
    largest_logits: float = 0.0
    """Bytes of the largest tensor with an axis of token ids, not divided by pairs."""
    largest_gather: float = 0.0
    """Bytes of the weights that ZeRO-3 gathers for one module or leaf: what is there beside activations, not divided by pairs."""
    peak: float = 0.0
    """Largest sum of bytes of tensors alive at once in the step, weights and what was there before not counted."""


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make, for as long as they live, by kind."""

    def __init__(self, known: Iterator[torch.Tensor], shape: Shape):
        super().__init__()
        self.shape = shape
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, tuple[StorageWeakRef, int, str]] = {}
        self.peak = self.largest_logits = 0
        self._at_most = 0  # bytes of ``alive`` before the dead are taken out

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        made = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        if self._at_most > self.peak:  # else no new peak is possible, and nothing has to be looked through
            self.peak = max(self.peak, sum(self.held().values()))
        return made

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known and key not in self.alive:
            kind = self._kind(tensor)
            self._at_most += storage.nbytes()
            self.alive[key] = (StorageWeakRef(storage), storage.nbytes(), kind)
            if kind == "logits":
                self.largest_logits = max(self.largest_logits, storage.nbytes())

    def _kind(self, tensor: torch.Tensor) -> str:
        shape, head = tensor.shape, self.shape.hidden // self.shape.heads
        if not shape:
            return "other"
        if shape[-1] == self.shape.vocabulary and len(shape) > 1 and shape[0] != self.shape.hidden:
            return "logits"
        if shape[-1] == self.shape.hidden and len(shape) in (2, 3):
            return "hidden states"
        if len(shape) == 4 or (len(shape) == 3 and shape[-1] == head):
            return "attention"
        return "other"

    def held(self) -> Counter[str]:
        """Bytes of what is alive now, by kind."""
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        totals: Counter[str] = Counter()
        for _, size, kind in self.alive.values():
            totals[kind] += size
        self._at_most = sum(totals.values())
        return totals


PARTS = ("decoder's matrices", "adapters", "attention", "head", "vision")
"""What a step's operations are for; vision is tower and projector."""


class FlopsByPart(TorchDispatchMode):
    """Counts operations by torch's own formulas, each for the part that its tensors' widths tell."""

    def __init__(self, shape: Shape, tuned: Tuned):
        super().__init__()
        self.shape, self.parts = shape, dict.fromkeys(PARTS, 0.0)
        self.ranks = {len(p) for name, p in tuned.trainable.items() if "lora_A" in name}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        made = function(*arguments, **(keywords or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.parts[self._part(arguments)] += formula(*arguments, **(keywords or {}), out_val=made)
        return made

    def _part(self, arguments: Any) -> str:
        tensors = [x for x in arguments if isinstance(x, torch.Tensor)]
        axes = {size for tensor in tensors for size in tensor.shape}
        # Images and their patches have more than three axes, biases have one: the decoder's matrices have none.
        if self.shape.vision_hidden in axes or any(x.dim() in (1, 4) for x in tensors):
            return "vision"
        if any(x.dim() == 3 for x in tensors):
            return "attention" if tensors[0].shape[1] == self.shape.heads else "vision"
        if self.shape.vocabulary in axes:
            return "head"
        return "adapters" if axes & self.ranks else "decoder's matrices"


def count_step(tuned: Tuned, shape: Shape, batch: Any, pairs: int, loss_of: Callable[[Any], torch.Tensor]) -> Counts:
    """Runs one step of ``tuned`` without an engine and counts; gradients are dropped afterwards."""
    counts = Counts()
    scorer = tuned.scorer
    scorer.train()
    known = [*scorer.parameters(), *tuned.policy.parameters(), *tuned.policy.buffers(), *_tensors(batch)]
    live = LiveBytes(iter(known), shape)
    with _counting_inputs(tuned, counts) as phase, live:
        loss = loss_of(scorer(batch))
        phase["forward"] = False
        counts.held = {kind: size / pairs for kind, size in live.held().items()}
        loss.backward()
    counts.peak, counts.largest_logits = live.peak / pairs, live.largest_logits
    counts.largest_gather = largest_gather(scorer)
    _drop_gradients(tuned)
    with FlopsByPart(shape, tuned) as flops:
        loss_of(scorer(batch)).backward()
    _drop_gradients(tuned)
    counts.parts = {part: count / pairs for part, count in flops.parts.items()}
    counts.flops = sum(counts.parts.values())
    for name in ("llm_tokens", "reference_tokens", "images"):
        setattr(counts, name, getattr(counts, name) / pairs)
    return counts


def largest_gather(scorer: PackedScorer) -> int:
    """Bytes of the weights of the leaf, or of the module outside of leaves, that has most."""
    leaves, sizes = tuple(scorer.leaves), [0]

    def walk(module: nn.Module) -> None:
        is_leaf = isinstance(module, leaves)
        sizes.append(sum(p.numel() * p.element_size() for p in module.parameters(recurse=is_leaf)))
        for child in () if is_leaf else module.children():
            walk(child)

    walk(scorer)
    return max(sizes)


def moved(collectives: Mapping[str, tuple[int, int]], kind: str) -> tuple[int, int]:
    """(calls, bytes) of those of ``collectives``, name -> (calls, bytes), that have ``kind`` in their name."""
    found = [entry for name, entry in collectives.items() if kind in name]
    return sum(calls for calls, _ in found), sum(size for _, size in found)


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    return (value for value in vars(batch).values() if isinstance(value, torch.Tensor))


def _drop_gradients(tuned: Tuned) -> None:
    for parameter in tuned.trainable.values():
        parameter.grad = None


@contextmanager
def _counting_inputs(tuned: Tuned, counts: Counts) -> Iterator[dict[str, bool]]:
    """Counts tokens at the first decoder layer and images at the vision tower, while the yielded ``forward`` is true."""
    phase = {"forward": True}
    family = tuned.scorer.family

    def at_layer(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else keywords["hidden_states"]
        if phase["forward"]:
            # The reference never runs with gradients.
            name = "llm_tokens" if torch.is_grad_enabled() else "reference_tokens"
            setattr(counts, name, getattr(counts, name) + hidden.shape[0] * hidden.shape[1])

    def at_tower(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        counts.images += len(inputs[0] if inputs else keywords["pixel_values"])

    with ExitStack() as hooks:
        for model in filter(None, (tuned.policy, tuned.reference)):
            parts = family.parts(model)
            hooks.callback(parts.layers[0].register_forward_pre_hook(at_layer, with_kwargs=True).remove)
            if parts.tower is not None:
                hooks.callback(parts.tower.register_forward_pre_hook(at_tower, with_kwargs=True).remove)
        yield phase


def floor_flops(tuned: Tuned, tokens: float, predicting: float, full: bool, reference: bool) -> float:
    """FLOPs a pair that no implementation avoids: every distinct one of ``tokens`` once through policy (forward and backward),
    and through the ``reference`` where it is computed; in the last layer only ``predicting`` ones, but for keys and values.

    2 a weight and token forward; backward 2 for the activations' gradient, and 2 more for the weights' where they are trained.
    Attention, head and vision are left out.
    """
    parts = tuned.scorer.family.parts(tuned.policy)

    def work(layer: nn.Module, asked: float) -> float:
        weights = {n: p.numel() for n, p in layer.named_parameters() if "lora_" not in n and p.dim() == 2}
        return sum(size * (tokens if "k_proj" in n or "v_proj" in n else asked) for n, size in weights.items())

    *layers, last = parts.layers
    passes = 1 + (2 if full else 1) + reference
    return (sum(work(layer, tokens) for layer in layers) + work(last, predicting)) * 2 * passes
