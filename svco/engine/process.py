"""Joining and leaving the ranks, loading partitioned weights, and counting what the ranks exchange."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

from ..basics.dist import World
from ..basics.errors import Stopped, UserError
from ..basics.progress import saying_when_slow
from ..recipe.ds_config import COMPRESSED, with_leaf_sizes

ALONE = timedelta(seconds=5)
"""How long a rank that an error ends waits for the others on its way out."""

_left = False
"""Whether this process has been one of the ranks and is no more."""
_linear: Any = None
"""torch's linear function, in whose place ZeRO-3 puts its own, for good unless it is put back."""


def start(world: World, timeout_minutes: float = 30.0) -> None:
    """Joins the ranks (gloo on CPU, NCCL on GPUs). The launcher's environment must be set.

    ``timeout_minutes``: how long one may wait for the others. DeepSpeed's own 10 are few for a save to slow storage.

    Alone under ``python`` rather than a launcher, it supplies the variables a world of one needs. UserError after ``stop``.
    """
    global _linear
    if _left:
        raise UserError(
            "This process has finished a run with a DeepSpeed config, and DeepSpeed keeps that run's process groups for as long "
            "as the process lives. Start a process for each such run; runs without one may follow each other."
        )
    # srun tells under other names what DeepSpeed reads here.
    place: dict[str, int | str] = {"RANK": world.rank, "WORLD_SIZE": world.size, "LOCAL_RANK": world.local_rank}
    if world.size == 1:
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    for key, value in place.items():
        os.environ.setdefault(key, str(value))
    import torch

    _linear = torch.nn.functional.linear
    if torch.cuda.is_available():
        # Before the first collective: NCCL runs on the current device, which is GPU 0 for everyone unless said otherwise.
        torch.cuda.set_device(world.local_rank)
    else:
        # Told so, DeepSpeed does not warn on every rank that it looked for a GPU in vain.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed calls collectives by names that torch has since changed; nobody who runs svco can do anything about it.
    renamed = r"`torch\.distributed\.[\w.]+` (is|will be) "
    warnings.filterwarnings("ignore", renamed, FutureWarning, r"torch\.distributed")
    import deepspeed

    slow = (
        "waiting for all ranks to join (on a machine's first run DeepSpeed compiles an operator too: a minute or more)"
    )
    with saying_when_slow(world.is_main, slow), _not_telling_what_was_built():
        deepspeed.init_distributed(verbose=False, timeout=timedelta(minutes=timeout_minutes))
        world.barrier()
    _drop_name_of_buffer(world)


def _drop_name_of_buffer(world: World) -> None:
    """Takes the name from the shared memory of DeepSpeed's CPU collectives (66 MB a rank), which all ranks have mapped by now: it
    goes with the last of them, however that ends. DeepSpeed (0.19.8) leaves it, named after user, address, port and rank."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    Path(f"/dev/shm/deepspeed_allreduce_buffer_{os.getuid()}_{address}_{port}_{world.rank}").unlink(missing_ok=True)


@contextmanager
def _not_telling_what_was_built() -> Iterator[None]:
    """Inside, what is printed waits until the end, without DeepSpeed's line that it built an operator: every rank has it at
    every start."""
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        lines = printed.getvalue().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if not line.rstrip().endswith("_op built successfully"))


def can_build_async_io() -> bool:
    """Whether DeepSpeed's operator for NVMe offload can be compiled here, or was."""
    from deepspeed.ops.op_builder import AsyncIOBuilder

    return AsyncIOBuilder().is_compatible(verbose=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop() -> None:
    """Leaves the ranks, together with the others, and gives torch its own linear function back: what runs in this process
    afterwards is to compute as if nothing had run before. Quiet when ``start`` was never called.

    In a ``finally`` it waits for seconds only where an error ends this rank, which the others may not have met.
    """
    import torch.distributed

    global _left
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        import deepspeed.comm

        error = sys.exc_info()[1]
        _settle(None if error is None or isinstance(error, Stopped) else ALONE)
        deepspeed.comm.destroy_process_group()
        torch.nn.functional.linear = _linear
        _left = True


def _settle(patience: timedelta | None) -> None:
    """Waits until nothing is on its way in any group of this rank; at most ``patience``, or a group's own timeout.

    ZeRO-3 gathers weights ahead of a forward pass that may never come. Such a gather ends when the slowest rank joins it, and a
    gloo thread that then lets go of its tensors in a process whose interpreter is leaving aborts that process. A barrier waits
    for all that was begun before it in its own group, and DeepSpeed's groups are not torch's default one. The second barrier
    gets past the lock under which the group's threads let go.
    """
    import torch.distributed

    # torch has no public list of a process's groups; destroying them all walks this one.
    groups = torch.distributed.distributed_c10d._world.pg_names
    for group in sorted(groups, key=lambda group: groups[group]):
        if torch.distributed.get_backend(group) != "gloo":
            continue
        options = torch.distributed.BarrierOptions()
        if patience is not None:
            options.timeout = patience
        try:
            for _ in range(2):
                group.barrier(options).wait()
        except RuntimeError:  # a rank that is gone, or does not come: nothing is left to wait for
            return


@contextmanager
def loading(ds: dict[str, Any] | None) -> Iterator[None]:
    """Inside, ``from_pretrained`` partitions weights as it loads them when ``ds`` says ZeRO-3: each rank holds its share.

    transformers looks for a live ``HfDeepSpeedConfig``; it must stay referenced for as long as models are loaded. UserError for
    8-bit gathers without a GPU.
    """
    if ds is None or ds["zero_optimization"]["stage"] < 3:
        yield
        return
    import torch

    asked = [key for key in COMPRESSED if ds["zero_optimization"].get(key)]
    if asked and not torch.cuda.is_available():
        raise UserError(
            f"The DeepSpeed config sets {', '.join(asked)}, which are CUDA kernels, and there is no CUDA GPU here. Set them to "
            "false; zero_hpz_partition_size works without."
        )
    from transformers.integrations import HfDeepSpeedConfig

    alive = HfDeepSpeedConfig(with_leaf_sizes(ds, None))
    yield
    del alive


@contextmanager
def counting_collectives(world: World) -> Iterator[dict[str, tuple[int, int]]]:
    """Fills the yielded dict on leaving: collective -> (calls, bytes of the whole tensors they move). They block meanwhile.

    DeepSpeed logs the bytes a rank puts in; a gathered tensor has ``world.size`` times as many.
    """
    import deepspeed.comm

    found: dict[str, tuple[int, int]] = {}
    deepspeed.comm.comms_logger.reset_data()
    deepspeed.comm.configure(enabled=True, prof_all=True, verbose=False)
    try:
        yield found
    finally:
        deepspeed.comm.configure(enabled=False)
    for name, sizes in deepspeed.comm.comms_logger.comms_dict.items():
        times = world.size if "gather" in name else 1
        found[name] = sum(s[0] for s in sizes.values()), sum(times * size * s[0] for size, s in sizes.items())
