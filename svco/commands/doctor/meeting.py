"""A world that needs nothing but rank 0's port: ranks meet at a store, long before gloo or NCCL are asked to work."""

from __future__ import annotations

import base64
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...basics.dist import World
from ...basics.errors import UserError, first_line
from ...basics.strict_json import json_text, parse_json

if TYPE_CHECKING:
    import torch.distributed


LIMIT = 64 << 20
"""Bytes of a value: the facts of a rank name every shard."""


@dataclass(frozen=True)
class Meeting(World):
    """Collectives over a key-value store, for a handful of small values: of JSON, so that whoever else reaches the port can say
    something false and make nothing run. Tuples arrive as lists.

    Where a rank does not arrive within ``timeout``, the others raise a UserError that names it.
    """

    store: torch.distributed.Store | None = None
    """Rank 0's; None where there is one rank."""
    timeout: float = 60.0
    """Seconds to wait for the others, at each collective."""
    hosts: dict[int, str] = field(default_factory=dict)
    """Rank -> host name, of those that have arrived."""
    _rounds: Iterator[int] = field(default_factory=itertools.count)

    def gather(self, value: Any) -> list[Any]:
        if self.store is None:
            return [value]
        key = f"svco/{next(self._rounds)}"
        try:
            self.store.set(f"{key}/{self.rank}", json_text(value))
            if absent := self._wait(self.store, key):
                raise UserError(self._absent(absent))
            return [_heard(rank, self.store.get(f"{key}/{rank}")) for rank in range(self.size)]
        except RuntimeError as error:  # of the store, whose host is gone
            reason = first_line(error)
            raise UserError(f"Rank 0 is gone ({reason}); its messages are above, or in its host's log.") from None

    def broadcast(self, value: Any) -> Any:
        return self.gather(value if self.is_main else None)[0]

    def part(self) -> None:
        """Leaves: rank 0, whose store it is, last."""
        if self.store is not None:
            self.store.set(f"svco/gone/{self.rank}", "")
            if self.is_main:
                self._wait(self.store, "svco/gone")

    def _wait(self, store: torch.distributed.Store, key: str) -> list[int]:
        """Ranks that have not set ``key`` when the time is over."""
        deadline = time.monotonic() + self.timeout
        absent = list(range(self.size))
        while absent := [rank for rank in absent if not store.check([f"{key}/{rank}"])]:
            for rank in set(range(self.size)) - set(absent) - set(self.hosts):
                self.hosts[rank] = store.get(f"svco/host/{rank}").decode()
            if time.monotonic() > deadline:
                return absent
            time.sleep(0.05)
        return []

    def _absent(self, absent: list[int]) -> str:
        expected = expected_hosts()
        there = [f"{host} (rank {rank})" for rank, host in sorted(self.hosts.items()) if rank not in absent]
        missing = [f"rank {rank}" + (f" on {expected[rank]}" if rank in expected else "") for rank in absent]
        return (
            f"{len(absent)} of {self.size} ranks did not arrive within {self.timeout:g} s: {', '.join(missing)}. "
            f"Arrived: {', '.join(there) or 'none'}. Look on the missing hosts for a process that did not start (its "
            "messages are above), or for a firewall between them and rank 0."
        )


def _heard(rank: int, told: bytes) -> Any:
    if len(told) > LIMIT:
        raise UserError(
            f"Rank {rank} sent {len(told):,} bytes, which no doctor does. Is another program using the port?"
        )
    try:
        return parse_json(told)
    except ValueError as error:
        raise UserError(
            f"Rank {rank} sent no JSON ({error}). Is it another version of svco, or another program?"
        ) from None


def meet(world: World, timeout: float) -> Meeting:
    """All ranks at rank 0's store, under the launcher's MASTER_ADDR and MASTER_PORT; UserError naming who did not come."""
    if world.size == 1:
        return Meeting(timeout=timeout)
    import torch.distributed

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # torchrun's agent already serves a store there.
    serving = world.is_main and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = torch.distributed.TCPStore(
            address,
            port,
            is_master=serving,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (torch.distributed.DistError, RuntimeError) as error:
        reason = first_line(error)
        what = "cannot listen at" if serving else "cannot reach rank 0 at"
        raise UserError(
            f"Host {socket.gethostname()} {what} {address}:{port} ({reason}). The address must be one of rank 0's that "
            "every host can reach, not a loopback one, and the port open between them: --master_addr and --master_port "
            "of the launcher."
        ) from None
    store.set(f"svco/host/{world.rank}", socket.gethostname())
    meeting = Meeting(world.rank, world.size, world.local_rank, world.local_size, store, timeout)
    meeting.barrier()
    return meeting


def expected_hosts() -> dict[int, str]:
    """Rank -> host of the hostfile, as DeepSpeed's launcher, this process's parent, was told; empty under another launcher."""
    try:
        arguments = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
        encoded = next(a.partition("=")[2] for a in arguments if a.startswith("--world_info="))
        slots = json.loads(base64.urlsafe_b64decode(encoded))
    except (OSError, ValueError, StopIteration):
        return {}
    return dict(enumerate(host for host, numbers in slots.items() for _ in numbers))
