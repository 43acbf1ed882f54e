"""GPUs and networks as their vendors describe them, and what of that is reached.

Sources: NVIDIA's data sheets of A100 (40 and 80 GB SXM), H100 SXM, H200 SXM, DGX B200 (divided by eight GPUs), L40S, and the
Ada GPU architecture white paper for the RTX 4090: memory, dense bfloat16 with float32 accumulation, memory bandwidth, and
NVLink (or PCIe) in one direction. What of a peak is reached is an assumption until a calibration replaces it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ...basics.errors import UserError

GB = 1e9


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    """As on the command line."""
    memory: float
    """Bytes."""
    flops: float
    """bfloat16 FLOP/s, dense."""
    bandwidth: float
    """Bytes/s of its memory."""
    peers: float
    """Bytes/s in one direction to the GPUs of its node together: NVLink, or PCIe."""
    host: float
    """Bytes/s in one direction to the host's memory (PCIe)."""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40g", 40 * GB, 312e12, 1555 * GB, 300 * GB, 32 * GB),
        Gpu("a100-80g", 80 * GB, 312e12, 2039 * GB, 300 * GB, 32 * GB),
        Gpu("h100-80g", 80 * GB, 989e12, 3350 * GB, 450 * GB, 64 * GB),
        Gpu("h200-141g", 141 * GB, 989e12, 4800 * GB, 450 * GB, 64 * GB),
        Gpu("b200-180g", 180 * GB, 2250e12, 8000 * GB, 900 * GB, 64 * GB),
        Gpu("l40s-48g", 48 * GB, 362e12, 864 * GB, 32 * GB, 32 * GB),
        Gpu("rtx4090-24g", 24 * GB, 165e12, 1008 * GB, 32 * GB, 32 * GB),
    )
}


@dataclass(frozen=True)
class Reached:
    """What of a peak is reached, and how sure that is."""

    matmul: float = 0.62
    """Of the peak FLOP/s, in large matrix products and attention."""
    memory: float = 0.8
    """Of the memory's bandwidth, in what lies between products."""
    peers: float = 0.75
    """Of NVLink or PCIe between GPUs, in collectives."""
    network: float = 0.8
    """Of the network between nodes, in collectives."""
    host: float = 0.75
    """Of PCIe to the host."""
    slower: float = 1.0
    """Factor on the compute that is left when all of the above is known: launches, gaps, stragglers."""
    uncertainty: float = 0.35
    """The time may be off by this share, either way."""
    source: str = "assumed, not measured"
    """Where that comes from."""


@dataclass(frozen=True)
class Machine:
    """Nodes of equal GPUs."""

    gpu: Gpu
    """Each of them."""
    per_node: int
    """GPUs a node."""
    nodes: int
    """Nodes."""
    network: float
    """Bytes/s of a node's network in one direction."""
    network_name: str = "400gb"
    """As on the command line."""
    reached: Reached = Reached()
    """What of all that is reached."""
    disk: float = 2 * GB
    """Bytes/s that a node reads from shared storage or writes to it: an assumption."""
    nvme: float = 6 * GB
    """Bytes/s of a node's own NVMe disks: an assumption."""
    host_flops_bytes: float = 100 * GB
    """Bytes/s of a node's memory in an optimizer step on the CPU: an assumption."""

    @property
    def ranks(self) -> int:
        return self.per_node * self.nodes

    def of(self, ranks: int) -> Machine:
        """The same with ``ranks`` GPUs in all, nodes filled one after another."""
        per_node = min(self.per_node, ranks)
        return replace(self, per_node=per_node, nodes=-(-ranks // per_node))

    def __str__(self) -> str:
        nodes = f"{self.nodes} nodes × {self.per_node}" if self.nodes > 1 else f"{self.per_node}"
        return f"{nodes} {self.gpu.name}" + (f", {self.network_name} a node" if self.nodes > 1 else "")


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``; UserError, listing those known, for another."""
    if name not in GPUS:
        raise UserError(f"--gpu is {name!r}; known: {', '.join(GPUS)}.")
    return GPUS[name]


def network(name: str) -> float:
    """Bytes/s of ``400gb`` or ``8x400gb``: a node's network cards, in gigabits."""
    found = re.fullmatch(r"(?:(\d{1,3})x)?(\d{1,6})gb", name.lower())
    if not found or not int(found[2]) * int(found[1] or 1):
        raise UserError(f"--interconnect is {name!r}; write the network of a node in gigabits: 100gb, 400gb, 8x400gb.")
    return int(found[1] or 1) * int(found[2]) * GB / 8
