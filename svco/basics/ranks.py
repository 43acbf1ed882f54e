"""Starting the ranks of a command on this machine, by DeepSpeed's launcher. Over several machines others start them."""

from __future__ import annotations

import argparse
import base64
import os
import shlex
import socket
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError
from .intervals import whole
from .strict_json import json_text

PROGRAM = Path(__file__).resolve().parents[1] / "__main__.py"
"""``svco`` as a file. A rank is started from it rather than as a module, which the working directory could hide."""
_PORT = 29500
"""DeepSpeed's own port, if it is free: its shared memory is named after the port and stays behind."""


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
    """Replaces this process by DeepSpeed's launcher with ``ranks`` ranks of the command line ``typed``; signals and exit code are
    then the launcher's. Returns where there is nothing to start: in a rank that a launcher started, in a script that others start
    (whose first word is not ``svco``), and where one rank is wanted, which is this process itself.

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
    places = devices[:count] or [str(number) for number in range(count)]
    # The `deepspeed` command above this one would be one process more, which leaves the ranks behind when it is ended.
    line = [sys.executable, "-u", "-m", "deepspeed.launcher.launch", "--quiet", "--no_local_rank"]
    line += [f"--world_info={world_info(places)}", f"--master_port={_port()}"]
    environment = dict(os.environ)
    # DeepSpeed compiles operators with programs of the environment, which need not be the shell's.
    environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    sys.stdout.flush()
    os.execve(sys.executable, [*line, str(PROGRAM), *words], environment)


def is_rank() -> bool:
    """Whether a launcher started this process: deepspeed, torchrun, or srun with several tasks."""
    given = os.environ
    return "RANK" in given or "WORLD_SIZE" in given or int(given.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(number) for number in range(count)]


def world_info(devices: Sequence[str]) -> str:
    """What DeepSpeed's launcher reads of a world of one machine: a rank for each of ``devices``."""
    return base64.urlsafe_b64encode(json_text({"localhost": list(devices)}).encode()).decode()


def _port() -> int:
    """``MASTER_PORT``, or DeepSpeed's own port, or where that is taken one that is free."""
    if given := os.environ.get("MASTER_PORT"):
        return int(given)
    for port in (_PORT, 0):  # 0: whichever is free
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise UserError("This machine has no free port for the ranks to meet at.")
