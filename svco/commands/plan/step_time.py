"""How long a step takes: work over what the machine reaches, and what of the traffic no work hides."""

from __future__ import annotations

from dataclasses import dataclass

from . import delta
from .architecture import Architecture
from .flops import Flops
from .machine import Machine
from .sharding import Sharding
from .traffic import Gathered
from .workload import NF4, Micros, Row, Tuning

_LAUNCH = 5e-6
"""Seconds from one kernel to the next at least: an assumption."""
_KERNELS = 60
"""Kernels of a decoder layer's forward pass: an assumption."""
_LATENCY = 20e-6
"""Seconds of a collective without bytes and ranks: an assumption."""
_HOP = 2e-6
"""Seconds more of it for each rank in the ring: an assumption."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step."""

    compute: float
    """Forward, recomputation and backward of all micro-batches."""
    gather: float
    """Gathers of weights, hidden or not."""
    reduce: float
    """Reductions of gradients, hidden or not."""
    offload: float
    """Traffic to host and disks, hidden or not."""
    exposed: float
    """What of gather, reduce and offload no computation hides."""
    optimizer: float
    """AdamW."""
    uncertainty: float
    """All that may be off by this share."""

    @property
    def total(self) -> float:
        return self.compute + self.exposed + self.optimizer


@dataclass(frozen=True)
class Travel:
    """Bytes of a step; gathers and reductions count whole tensors."""

    gathered: float
    """Weights gathered, all micro-batches."""
    across: float
    """Of these, between nodes."""
    reduced: float
    """Gradients reduced."""


def travel(
    a: Architecture, tuning: Tuning, sharding: Sharding, machine: Machine, count: int, found: Gathered | None
) -> Travel:
    """What travels in a step of ``count`` micro-batches; nothing on one GPU."""
    b, trained = tuning.weight_bytes, tuning.trained(a)
    if machine.ranks == 1:
        return Travel(0.0, 0.0, 0.0)
    reduced = b * trained * (count if tuning.full else 1)
    if found is None:  # the updated weights, once a step
        return Travel(b * trained, b * trained * (machine.nodes > 1), reduced)
    gathers = b * (count * found.total + found.persistent)
    if machine.nodes == 1:
        return Travel(gathers, 0.0, reduced)
    if sharding.group > 1:  # frozen weights stay in the second partition for good, trained ones until they change
        return Travel(gathers, b * trained * (0.5 if sharding.quantized_weights else 1), reduced)
    return Travel(gathers, gathers * (0.5 if sharding.quantized_weights else 1), reduced)


def step_time(
    a: Architecture,
    tuning: Tuning,
    sharding: Sharding,
    machine: Machine,
    micros: Micros,
    work: Flops,
    found: Gathered | None,
) -> StepTime:
    """The time of a step. Traffic runs beside the computation of the same pass, but for the first layer's gather."""
    reached, count = machine.reached, micros.count
    compute = count * compute_seconds(a, tuning, machine, micros.row, work)
    moved = travel(a, tuning, sharding, machine, count, found)
    gather = _collective(machine, moved.gathered, moved.across, (found.calls * count) if found else 1)
    quantized = 0.25 if sharding.quantized_gradients else 1.0
    both_ways = 1 if sharding.stage == 3 else 2
    buckets = max(1.0, moved.reduced / max(1.0, tuning.weight_bytes * sharding.bucket))
    amount = moved.reduced * both_ways * quantized
    reduce = _collective(machine, amount, amount * (machine.nodes > 1), buckets) if machine.ranks > 1 else 0.0
    to_host, update = _offload(a, tuning, sharding, machine, count, found)
    hidden = gather + to_host + (reduce if tuning.full else 0.0)
    first = gather / max(1, a.layers) / max(1, 2 * count)
    exposed = max(0.0, hidden - compute) + min(first, hidden) + (0.0 if tuning.full else reduce)
    if found is None and machine.ranks > 1:  # ZeRO-1 and -2 gather after the update, when nothing else runs
        exposed = max(0.0, hidden - gather - compute) + gather + (0.0 if tuning.full else reduce)
    return StepTime(compute, gather, reduce, to_host, exposed, update, reached.uncertainty)


def compute_seconds(a: Architecture, tuning: Tuning, machine: Machine, row: Row, work: Flops) -> float:
    """Seconds of one micro-batch without traffic."""
    gpu, reached = machine.gpu, machine.reached
    products = work.total / (gpu.flops * reached.matmul)
    between = row.tokens * _between(a, tuning, row, work) * (0.4 if tuning.compiled else 1.0) + _unpacked(
        a, tuning, work
    )
    # Policy and reference forward, backward as two, and forward again where layers are recomputed.
    passes = 1 + tuning.live + 2 + (work.recompute > 0)
    launches = a.layers * passes * _KERNELS * _LAUNCH
    return max(products + between / (gpu.bandwidth * reached.memory), launches) * reached.slower


def _between(a: Architecture, tuning: Tuning, row: Row, work: Flops) -> float:
    """Bytes a token that move between a layer's products: norms, rotation, gathered keys, SwiGLU, LoRA's sums, eager.

    The reference goes once through its layers, the policy once and again where it is recomputed, and its backward pass moves
    about twice as much.
    """
    again = work.recompute / max(1.0, work.forward)
    if a.delta:
        adapters, plain = delta.moved_bytes(a, a.delta, tuning)
        others = len(a.delta.numbers) * ((plain + adapters) * (3 + again) + plain * tuning.live)
        return others + _between(a.attending, tuning, row, work)
    b = tuning.weight_bytes
    queries, keys = a.heads * a.head_size, a.groups * a.head_size
    norms = 2 * (6 * b + 24) * a.hidden
    attention = 9 * b * (queries + keys) + 4 * b * keys * row.keys / max(1.0, row.tokens) + 2 * b * queries
    sums = 6 * b * a.hidden + 5 * b * a.intermediate
    adapters = tuning.adding * b * sum(x.outputs for x in a.linears if tuning.adapter(x))
    plain = norms + attention + sums
    return a.layers * ((plain + adapters) * (3 + again) + plain * tuning.live)


def _unpacked(a: Architecture, tuning: Tuning, work: Flops) -> float:
    """Bytes that move when matrices of 4 bits are made whole: in every pass over the layers, whatever the number of tokens."""
    passes = 2 + tuning.live + work.recompute / max(1.0, work.forward)
    return tuning.packed(a) * (NF4 + tuning.weight_bytes) * passes


def _collective(machine: Machine, inside: float, across: float, calls: float) -> float:
    """Seconds of ring collectives: ``inside`` bytes over the links of a node, ``across`` bytes also over its network."""
    n, reached = machine.ranks, machine.reached
    share = (n - 1) / n
    near = inside * share / (machine.gpu.peers * reached.peers) if machine.per_node > 1 else 0.0
    far = across * share / (machine.network * reached.network) if machine.nodes > 1 else 0.0
    return max(near, far) + calls * (_LATENCY + _HOP * n) * (n > 1)


def _offload(
    a: Architecture, tuning: Tuning, sharding: Sharding, machine: Machine, count: int, found: Gathered | None
) -> tuple[float, float]:
    """(seconds of weights between host or disk and GPU, seconds of the update)."""
    b, trained, ranks = tuning.weight_bytes, tuning.trained(a), machine.ranks
    reached, gpu = machine.reached, machine.gpu
    link = gpu.host * reached.host
    moving = 0.0
    if sharding.parameters != "gpu" and found is not None:
        mine = b * count * found.total / ranks
        moving = mine / link
        if sharding.parameters == "nvme":
            moving = max(moving, mine * machine.per_node / machine.nvme)
    # AdamW reads gradient, master and moments and writes master, moments and weight.
    update = (16 + 12 + b) * trained / ranks
    if sharding.optimizer == "gpu":
        return moving, update / (gpu.bandwidth * reached.memory)
    seconds = update * machine.per_node / machine.host_flops_bytes + (4 + b) * trained / ranks / link
    if sharding.optimizer == "nvme":
        seconds = max(seconds, 24 * trained / ranks * machine.per_node / machine.nvme)
    return moving, seconds
