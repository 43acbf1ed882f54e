"""The memory of one GPU, its host and its disks, term by term."""

from __future__ import annotations

from dataclasses import dataclass

from .activations import Gradients, Kernels, activations
from .architecture import Architecture
from .sharding import MASTER, MOMENTS, Sharding, states
from .traffic import Gathered, gathered
from .workload import Micros, Tuning

SPARED = 0.1
"""Share of a GPU left alone, as the recomputation dial leaves it: CUDA's context, NCCL, fragmentation."""
WORKER = 0.7e9
"""Bytes of a process that runs Python, torch and the processor: an assumption."""
_TERMS = ("weights", "adapters", "optimizer", "gradients", "live", "activations", "transient")
"""What the memory of a GPU is the sum of."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the worst moment of a step."""

    weights: float
    """Shard of the base model and a frozen copy, or all of it; a second partition; small weights kept whole."""
    adapters: float
    """Shard of adapters, or all of them, in the weights' dtype."""
    optimizer: float
    """Float32 masters and moments."""
    gradients: float
    """Gradients: in float32, where they are made, and in reduction buffers."""
    live: float
    """Weights gathered at once."""
    activations: float
    """Kept for the backward pass."""
    transient: float
    """Beside that, at the worst moment: a layer's insides, the log-prob head's chunk or the vision tower."""
    head: float
    """Of one chunk of the log-prob head, for information: part of the transient bytes when the head is the worst moment."""
    vision: float
    """Of tower and projector, likewise."""
    recompute: int
    """Layers recomputed."""

    @property
    def total(self) -> float:
        return sum(getattr(self, term) for term in _TERMS)

    @property
    def largest(self) -> str:
        """The name of the largest term."""
        return max(_TERMS, key=lambda term: getattr(self, term))


@dataclass(frozen=True)
class Host:
    """Bytes of one node's memory and disks."""

    memory: float
    """Host memory while training: offloaded states, loader processes."""
    loading: float
    """Host memory while the model is loaded."""
    nvme: float
    """On the node's own disks: offloaded states."""
    base: float
    """Of the base model's files."""
    checkpoint: float
    """Of one checkpoint, on shared storage."""
    export: float
    """Of what the run leaves: adapter or model."""


def gpu_memory(
    a: Architecture, tuning: Tuning, sharding: Sharding, ranks: int, micros: Micros, recompute: int
) -> tuple[Memory, Gathered | None]:
    """(one GPU's memory with ``recompute`` layers recomputed, what ZeRO-3 gathers in a micro-step)."""
    b, zero3 = tuning.weight_bytes, sharding.stage == 3
    found = gathered(a, tuning, recompute, sharding.limits) if zero3 else None
    held = states(a, tuning, sharding, ranks, found.persistent if found else 0)
    made = activations(a, tuning, micros.largest, recompute, Kernels(zero3=zero3))
    parameters_here, optimizer_here = sharding.parameters == "gpu", sharding.optimizer == "gpu"
    memory = Memory(
        weights=(held.weights + held.copy) * parameters_here + held.second + held.persistent,
        adapters=held.adapters * parameters_here,
        optimizer=held.optimizer * optimizer_here,
        gradients=held.gradients * optimizer_here + held.local + held.bucket,
        live=b * found.most if found else 0.0,
        activations=made.kept,
        transient=made.peak(Gradients()) - made.kept,
        head=made.head,
        vision=made.vision,
        recompute=recompute,
    )
    return memory, found


def host_memory(a: Architecture, tuning: Tuning, sharding: Sharding, per_node: int, ranks: int, workers: int) -> Host:
    """What a node of ``per_node`` GPUs out of ``ranks`` needs beside its GPUs."""
    b, trained = tuning.weight_bytes, tuning.trained(a)
    held = states(a, tuning, sharding, ranks, 0)
    shards = per_node * (held.weights + held.copy + held.adapters)
    moments = per_node * (held.optimizer + held.gradients)
    # What is quantised goes to the GPU matrix by matrix; the rest of a model is whole in memory before it does.
    weights = held.weights if tuning.quantised else b * (a.weights + tuning.copy(a))
    on_host = shards * (sharding.parameters == "cpu") + moments * (sharding.optimizer == "cpu")
    return Host(
        memory=on_host + WORKER * per_node * (1 + workers),
        # ZeRO-3: rank 0 reads the whole model and its shares are spread; else every rank reads it all.
        loading=WORKER * per_node + (weights if sharding.stage == 3 else per_node * weights) + on_host,
        nvme=shards * (sharding.parameters == "nvme") + moments * (sharding.optimizer == "nvme"),
        base=2 * a.weights,
        checkpoint=trained * (MASTER + MOMENTS + (b if tuning.full else 0)),
        export=b * (a.weights if tuning.full else trained),
    )


def fewest_recomputed(
    a: Architecture, tuning: Tuning, sharding: Sharding, ranks: int, micros: Micros, usable: float
) -> int:
    """The fewest layers that must be recomputed for ``usable`` bytes; all of them when even that does not fit."""
    low, high = 0, a.layers
    while low < high:
        middle = (low + high) // 2
        if gpu_memory(a, tuning, sharding, ranks, micros, middle)[0].total <= usable:
            high = middle
        else:
            low = middle + 1
    return low
