"""What travels between ranks in a step, from the order in which ZeRO-3 meets the modules.

ZeRO-3 gathers a module's weights when it runs, forward and backward, and lets them go unless they are met again within
``stage3_max_reuse_distance`` weights or its prefetching has already counted on them. The order is svco's own: decoder layers
are gathered in one piece, and once for both streams where they share their weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from .architecture import Architecture
from .workload import Tuning

Parameter = tuple[str, int]
"""(its module's name, its number there)."""


@dataclass(frozen=True)
class Limits:
    """ZeRO-3's limits, in weights."""

    reuse: float
    """``stage3_max_reuse_distance``."""
    prefetch: float
    """``stage3_prefetch_bucket_size``."""
    live: float
    """``stage3_max_live_parameters``."""
    persistent: float
    """``stage3_param_persistence_threshold``: parameters up to this size are never partitioned."""


@dataclass(frozen=True)
class Module:
    """A module that ZeRO-3 meets: one with parameters, a leaf with all those inside it, or a parent of such."""

    name: str
    """Its name; a copy's is another."""
    sizes: tuple[int, ...] = ()
    """Weights of each parameter that is gathered when it runs."""
    leaf: bool = False
    """It is gathered in one piece."""
    children: tuple[Module, ...] = ()
    """Modules inside, which are met on their own."""

    def parameters(self, inside: bool) -> Iterator[tuple[Parameter, int]]:
        """((name, number), weights) of its own parameters, and with ``inside`` of its children's."""
        yield from (((self.name, n), size) for n, size in enumerate(self.sizes))
        for child in self.children if inside else ():
            yield from child.parameters(inside)


@dataclass(frozen=True)
class Gathered:
    """A micro-step's gathers, in weights; persistent parameters not among them."""

    forward: float
    """Gathered in the forward pass, or ahead of the backward pass."""
    backward: float
    """Gathered in the backward pass."""
    calls: int
    """Gathers that are waited for or made ahead."""
    most: float
    """Most weights gathered at once."""
    persistent: float
    """Weights that every rank keeps; gathered once a step, after it."""

    @property
    def total(self) -> float:
        return self.forward + self.backward


def visits(a: Architecture, tuning: Tuning, recompute: int) -> tuple[list[Module], list[Module]]:
    """(forward, backward) order of modules in one micro-step."""
    copied = tuning.copied
    tower = [Module(f"tower {n}", (size,)) for n, size in enumerate(a.tower.outside)]
    tower += [Module(f"block {n}", (a.tower.block,), leaf=True) for n in range(a.tower.layers)]
    projector, embedding = _projector(a, ""), Module("embedding", (a.embedding,))
    norm, copied_norm = Module("norm", (a.norm,)), Module("norm of the copy", (a.norm,))
    head = Module("embedding" if a.tied else "head", (a.embedding,), leaf=True)
    copied_head = Module("embedding of the copy" if a.tied else "head of the copy", (a.embedding,), leaf=True)
    forward = [*tower, embedding, *projector]
    backward: list[Module] = []
    if copied:
        forward += [*_projector(a, " of the copy"), Module("embedding of the copy", (a.embedding,))]
    elif tuning.trains_projector and tuning.live:
        forward += _projector(a, " before training")
    for number in range(a.layers):
        layer = _layer(a, tuning, number, copied=False)
        if not copied:
            forward.append(layer)
            backward.insert(0, layer)
            continue
        frozen = _layer(a, tuning, number, copied=True)
        twin = Module(f"twin {number}", children=(layer, frozen))
        forward += [twin, frozen, layer]
        backward[:0] = [twin, layer, *([layer] if number < recompute else [])]
    forward += [norm, *([copied_norm] if copied else []), head, *([copied_head] if copied else [])]
    backward[:0] = [*([head] if tuning.full else []), norm]
    if tuning.trains_projector:
        backward += [projector[0], *reversed(projector[1:])]
    return forward, [*backward, *([embedding] if tuning.full else [])]


def _layer(a: Architecture, tuning: Tuning, number: int, copied: bool) -> Module:
    kind = a.delta if a.delta and number in a.delta.numbers else a
    adapters = [
        size
        for x in (() if copied or tuning.full else kind.linears)
        if tuning.adapts(x.name)
        for size in (tuning.rank * x.inputs, tuning.rank * x.outputs)
    ]
    name = f"layer {number}{' of the copy' if copied else ''}"
    return Module(name, (*(x.weights for x in kind.linears), *kind.vectors, *adapters), leaf=True)


def _projector(a: Architecture, which: str) -> list[Module]:
    """The projector and its linear layers, each with its share of the other parameters."""
    shares = max(1, len(a.projector))
    layers = [
        Module(f"projector {n}{which}", (x.weights, *a.projector_vectors[n::shares])) for n, x in enumerate(a.projector)
    ]
    return [Module(f"projector{which}", children=tuple(layers)), *layers]


@cache
def gathered(a: Architecture, tuning: Tuning, recompute: int, limits: Limits) -> Gathered:
    """What one micro-step gathers under ZeRO-3."""
    forward, backward = visits(a, tuning, recompute)
    walk = _Walk([*forward, *backward], limits)
    first = sum(walk.visit(step) for step in range(len(forward)))
    second = sum(walk.visit(len(forward) + step) for step in range(len(backward)))
    return Gathered(first, second, walk.calls, walk.most, walk.persistent)


class _Walk:
    """Plays the coordinator's rules over the modules in order."""

    def __init__(self, order: list[Module], limits: Limits):
        self.order, self.limits = order, limits
        every = {p: size for m in order for p, size in m.parameters(inside=True)}
        self.sizes = {p: size for p, size in every.items() if size > limits.persistent}
        self.persistent = sum(size for size in every.values() if size <= limits.persistent)
        self.own = [[p for p, _ in m.parameters(inside=False) if p in self.sizes] for m in order]
        self.queue = deque((p, step) for step, own in enumerate(self.own) for p in own)
        self.here: set[Parameter] = set()
        self.counted: dict[Parameter, int] = {}
        self.most = 0.0
        self.calls = 0

    def visit(self, step: int) -> float:
        """Runs the module at ``step``; the weights gathered for it and ahead of it."""
        own = self.own[step]
        missing = [p for p in own if p not in self.here]
        self.here.update(missing)
        while self.queue and self.queue[0][1] <= step:
            self.queue.popleft()
        ahead = self._ahead()
        self.calls += bool(missing) + bool(ahead)
        self.most = max(self.most, self._weights(self.here))
        self._let_go(step)
        return self._weights(missing) + self._weights(ahead)

    def _weights(self, parameters: Iterable[Parameter]) -> float:
        return sum(self.sizes[p] for p in parameters)

    def _ahead(self) -> list[Parameter]:
        """Gathers ahead until a bucket is full; what is already here is counted on for its later use."""
        room = min(self.limits.live - self._weights(self.here), self.limits.prefetch)
        found: list[Parameter] = []
        amount = 0.0
        while self.queue and amount < room:
            parameter, use = self.queue.popleft()
            self.counted[parameter] = max(use, self.counted.get(parameter, -1))
            if parameter not in self.here:
                self.here.add(parameter)
                found.append(parameter)
                amount += self.sizes[parameter]
        return found

    def _let_go(self, step: int) -> None:
        module = self.order[step]
        going = {p for p in self.own[step] if self.counted.get(p, -1) <= step}
        distance = 0
        for later in self.order[step + 1 :]:
            if distance >= self.limits.reuse or not going:
                break
            # As DeepSpeed does: from a leaf it looks into the modules behind, from others at their own parameters only.
            for parameter, size in later.parameters(inside=module.leaf) if module.leaf or not later.leaf else ():
                going.discard(parameter)
                distance += size
        self.here -= going
