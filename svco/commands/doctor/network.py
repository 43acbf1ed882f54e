"""The ranks' own network: whether gloo or NCCL connects them all, and how fast it carries what training sends."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from ...basics.errors import UserError, first_line
from .checks import FAIL, GB, OK, WARN, Check
from .meeting import Meeting

if TYPE_CHECKING:
    import torch.distributed

SLOW = 2 * GB
"""Bytes a second between GPUs of several hosts below which NCCL is hardly on a fast network."""
REPETITIONS = 5


def check_network(meeting: Meeting, seconds: float, sizes: tuple[int, ...], several_hosts: bool) -> list[Check]:
    """Joins all ranks by gloo (CPU) or NCCL, then times collectives of ``sizes`` bytes. A collective over ``meeting``."""
    import torch.distributed as dist

    device = meeting.device
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = meeting.store
    if store is None:
        return [Check(OK, "network", "one rank: nothing to connect")]
    # In a thread, since gloo's own timeouts add up to several times what it is given.
    answers: list[str] = []
    trial = threading.Thread(target=lambda: answers.append(_join(meeting, store, backend, seconds)), daemon=True)
    trial.start()
    trial.join(seconds)
    problems = meeting.gather(answers[0] if answers else f"no answer within {seconds:g} s")
    if any(problems):
        first = next(rank for rank, text in enumerate(problems) if text)
        text = f"{backend} does not connect all ranks: rank {first}: {problems[first]}"
        return [Check(FAIL, "network", text, _remedy(backend))]
    try:
        checks = [Check(OK, "network", f"{backend} connects all {meeting.size} ranks")]
        checks += [_bandwidth(name, sizes, device, several_hosts) for name in ("all-gather", "all-reduce")]
    finally:
        dist.destroy_process_group()
    return checks


def _join(meeting: Meeting, store: torch.distributed.Store, backend: str, seconds: float) -> str:
    """Makes the process group and sums the ranks' numbers over it; why that failed, or an empty text."""
    import torch
    import torch.distributed as dist

    if meeting.device.type == "cuda":
        torch.cuda.set_device(meeting.device)
    try:
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("doctor", store),
            rank=meeting.rank,
            world_size=meeting.size,
            timeout=timedelta(seconds=seconds),
        )
        total = torch.tensor([float(meeting.rank)], device=meeting.device)
        dist.all_reduce(total)
        if total.item() != meeting.size * (meeting.size - 1) / 2:
            raise UserError(f"the sum of all rank numbers came out as {total.item():g}")
    except (RuntimeError, UserError) as error:  # every error of torch.distributed is a RuntimeError
        return first_line(error)[:300]
    return ""


def _remedy(backend: str) -> str:
    if backend == "gloo":
        return "GLOO_SOCKET_IFNAME must name the interface between the hosts, and any port be open between them"
    return (
        "NCCL_DEBUG=INFO says more; NCCL_SOCKET_IFNAME must name the interface between the hosts, NCCL_IB_DISABLE=1 "
        "shows whether it is InfiniBand, and any port must be open between them"
    )


def _bandwidth(name: str, sizes: tuple[int, ...], device: torch.device, several_hosts: bool) -> Check:
    rates = [_rate(name, size, device) for size in sizes]
    text = ", ".join(f"{size / 1e6:g} MB {rate / GB:.3g} GB/s" for size, rate in zip(sizes, rates))
    if several_hosts and device.type == "cuda" and max(rates) < SLOW:
        remedy = "NCCL_DEBUG=INFO says which network it took (NET/IB or NET/Socket); NCCL_IB_HCA and NCCL_SOCKET_IFNAME choose"
        return Check(WARN, name, text, remedy)
    return Check(OK, name, f"{text} a rank (bus bandwidth)")


def _rate(name: str, size: int, device: torch.device) -> float:
    """Bytes a second that each rank must send for a result of ``size`` bytes: nccl-tests' bus bandwidth, the slowest rank's."""
    import torch
    import torch.distributed as dist

    ranks = dist.get_world_size()
    share = size // 4 // ranks
    whole = torch.zeros(share * ranks, device=device)
    part = torch.zeros(share, device=device)
    # Newer versions of torch have it under another name.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    seconds = []
    for _ in range(REPETITIONS + 1):
        dist.barrier()
        before = time.perf_counter()
        if name == "all-gather":
            gather(whole, part)
        else:
            dist.all_reduce(whole)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - before)
    slowest = torch.tensor([sorted(seconds[1:])[REPETITIONS // 2]], device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    factor = (1 if name == "all-gather" else 2) * (ranks - 1) / ranks
    return factor * share * ranks * 4 / slowest.item()
