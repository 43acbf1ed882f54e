"""Starting the ranks of a command on this machine. Over several machines others start them."""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import signal
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .errors import RESUBMIT, UserError
from .intervals import whole

PROGRAM = Path(__file__).resolve().parents[1] / "__main__.py"
"""``svco`` as a file. A rank is started from it rather than as a module, which the working directory could hide."""
PATIENCE = 30
"""Seconds for the others after a rank has failed, as under DeepSpeed's launcher."""
_PORTS = range(29510, 29610)
"""Always the same, as DeepSpeed's shared memory is named after the port and stays behind; and not DeepSpeed's own, 29500, which
its launcher may be about to take."""
_claims: list[socket.socket] = []
"""Names of ports in use by this process until it ends: seconds pass before its ranks listen, and another start must not choose
the same one meanwhile."""


def add_ranks(parser: argparse.ArgumentParser, when: str = "") -> None:
    """The options of a command that runs on several ranks; ``when`` says under which other options it does."""
    parser.add_argument(
        "--ranks",
        type=whole(1, 1_000_000),
        metavar="N",
        help=f"processes that svco starts on this machine{when} (default: one for each GPU, one on a machine without); "
        "of no account where a launcher (deepspeed, torchrun, srun) has started them",
    )
    parser.add_argument("--local_rank", type=whole(-1), help=argparse.SUPPRESS)  # given by the deepspeed launcher


def under(launcher: str, command: str) -> list[str]:
    """The words that start ``svco COMMAND`` under ``launcher``, such as ``deepspeed --num_gpus 8``; empty: this Python. Where the
    launcher makes no ranks, it is one."""
    return [*(shlex.split(launcher) or [sys.executable]), str(PROGRAM), command, "--ranks", "1"]


def start_ranks(typed: Sequence[str], ranks: int | None, several: bool = True) -> None:
    """Starts ``ranks`` ranks of the command line ``typed`` on this machine, waits for their ends and ends with their exit code, 0
    or that of the first that ended with another. Returns where there is nothing to start: in a rank that a launcher started, in a
    script that others start (whose first word is not ``svco``), and where one rank is wanted, which is this process itself.

    ``ranks`` None: one for each GPU, or one; one as well unless ``several``. UserError for more than there are GPUs.
    """
    if typed[0] != "svco" or is_rank() or ranks == 1 or (ranks is None and not several):
        return
    devices = visible_gpus()
    if devices and (ranks or 1) > len(devices):
        raise UserError(f"--ranks is {ranks}, and there are {len(devices)} GPUs here; a rank needs one of its own.")
    count = ranks or len(devices) or 1
    if count == 1:
        return
    words = list(typed[1:])
    if not ranks:
        words += ["--ranks", str(count)]  # so that the run can say how it is continued
    environment = dict(os.environ)
    # DeepSpeed compiles operators with programs of the environment, which need not be the shell's.
    environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_port())}
    environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices[:count])
    sys.stdout.flush()
    sys.exit(_look_after([sys.executable, "-u", str(PROGRAM), *words], environment, count))


def _look_after(line: list[str], environment: Mapping[str, str], count: int) -> int:
    """Runs ``line`` as ``count`` ranks, tells them of the signals that this process gets, and returns their exit code.

    torch's and DeepSpeed's launchers do the same and import torch first: 2 seconds in which nothing has begun.
    """
    running: set[int] = set()

    def tell(number: int) -> None:
        for pid in list(running):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    signal.signal(signal.SIGUSR1, lambda *_: tell(signal.SIGUSR1))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: tell(signal.SIGTERM))
    signal.signal(signal.SIGALRM, lambda *_: tell(signal.SIGKILL))
    for rank in range(count):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        running.add(os.posix_spawn(line[0], line, {**environment, **place}))
    first = 0
    while running:
        pid, status = os.wait()
        running.discard(pid)
        if code := os.waitstatus_to_exitcode(status):
            first = first or (code if code > 0 else 128 - code)  # of a signal, as a shell says it
            if code != RESUBMIT:  # a rank that stops has agreed on it with the others: they are on their way
                tell(signal.SIGTERM)
                signal.alarm(PATIENCE)
    return first


def is_rank() -> bool:
    """Whether a launcher started this process: deepspeed, torchrun, or srun with several tasks."""
    given = os.environ
    return "RANK" in given or "WORLD_SIZE" in given or int(given.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them. torch is asked, whose import takes 2 seconds,
    unless there is no driver that it could ask."""
    if not _has_a_driver():
        return []
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(number) for number in range(count)]


def _has_a_driver() -> bool:
    """Whether this machine has NVIDIA's driver, without whose library torch sees no GPU, or AMD's."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def _port() -> int:
    """``MASTER_PORT``, or a port that no other process listens at and no other start has taken."""
    if given := os.environ.get("MASTER_PORT"):
        return int(given)
    for port in _PORTS:
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind(f"\0svco-port-{port}")
                probe.bind(("", port))
            except OSError:
                claim.close()
                continue
        _claims.append(claim)
        return port
    raise UserError("This machine has no free port for the ranks to meet at; give one as MASTER_PORT.")
