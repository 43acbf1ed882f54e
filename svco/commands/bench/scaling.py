"""Throughput over numbers of ranks or nodes, and how much of a step is waiting for the others.

Each number is a launch of its own, exactly as a run is launched. In it two engines step in turn on the same batch:

- *together*: the run's engine (``--ds``), with all its collectives;
- *alone*: on the same rank and at the same time as on all others, the same step with whole weights and no other rank: it
  computes what the first computes and sends nothing.

Together minus alone is what a step does besides computing and does not hide behind it: waiting for collectives, and ZeRO's
own bookkeeping. At one rank nothing is sent, so there the difference is the bookkeeping; exposed communication is what more
ranks add to it.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.intervals import within
from ...basics.markdown import markdown
from ...basics.ranks import under
from ...basics.strict_json import json_text
from ...objectives.table import make_objective
from ...recipe.config import ObjectiveConfig
from .count import moved
from .ladder import PRODUCT, ROWS
from .run import Bench, Measured, Plan

MARK = "scaling-result: "


@dataclass(frozen=True)
class Point:
    """What one launch measured."""

    ranks: int
    """Processes."""
    hosts: int
    """Machines."""
    pairs: int
    """Pairs a step, over all ranks."""
    together: list[float]
    """Seconds of each step with the others; the slowest rank's."""
    alone: list[float]
    """Seconds of each step without; the slowest rank's."""
    gathered: int
    """Bytes of the weights gathered in a step, whole."""
    reduced: int
    """Bytes of the gradients reduced in a step."""
    machine: str
    """What it ran on."""


def measure(plan: Plan, ds: dict[str, Any] | None, world: World) -> Point:
    """Times both engines in turn. A collective."""
    objective, row = make_objective(ObjectiveConfig(name=plan.objective)), ROWS[PRODUCT]
    together = Bench(plan, objective, ds, world).enter(row, Measured("together"), None)
    alone = Bench(plan, objective, None, World(0, 1, world.local_rank)).enter(row, Measured("alone"), None)
    alone.world = world  # its steps begin with everyone's, and the slowest counts
    for _ in range(plan.repetitions + 1):
        together.timed_step()
        alone.timed_step()
    hosts = world.gather(socket.gethostname())
    return Point(
        ranks=world.size,
        hosts=len(set(hosts)),
        pairs=plan.pairs * world.size,
        together=together.result.seconds[1:],
        alone=alone.result.seconds[1:],
        gathered=moved(together.result.collectives, "gather")[1],
        reduced=moved(together.result.collectives, "reduce")[1],
        machine=describe_machine(),
    )


def overhead(point: Point) -> float:
    """Seconds: the median step minus the median step alone."""
    return median(point.together) - median(point.alone)


def describe_machine() -> str:
    """Processor or GPU, and versions."""
    chip = f"{os.cpu_count()} CPU cores, {platform.machine()}, gloo"
    if torch.cuda.is_available():
        chip = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()} a host, NCCL"
    return f"{chip}, torch {torch.__version__}"


def tell(point: Point) -> None:
    """On rank 0: hands ``point`` to the process that launched this, whichever host it is on."""
    print(f"{MARK}{json_text(asdict(point))}", flush=True)


def run_scaling(arguments: Namespace) -> str:
    """Launches a benchmark for each number of ``--scaling``, one after another; the table."""
    try:
        numbers = [int(n) for n in arguments.scaling.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(within(number, "[1, 1000000]") for number in numbers):
        raise UserError(f"--scaling is {arguments.scaling!r}: write numbers of ranks (or nodes), e.g. 1,2,4.")
    if arguments.ds == "none":
        raise UserError("--scaling needs --ds, the DeepSpeed config whose communication it measures.")
    if "{n}" not in arguments.launch:
        raise UserError(f"--launch is {arguments.launch!r}: it must contain {{n}}, the place of the number.")
    points = [launch(number, arguments) for number in numbers]
    return table(points, arguments)


def launch(number: int, arguments: Namespace) -> Point:
    """One launch, whose output is shown on stderr; UserError when it fails."""
    line = [*under(arguments.launch.replace("{n}", str(number)), "bench"), "--one-point"]
    for name in ("ds", "shape", "layers", "scale", "vocab", "objective", "tune", "pairs", "repetitions"):
        line += [f"--{name}", str(getattr(arguments, name))]
    print(f"$ {shlex.join(line)}", file=sys.stderr, flush=True)
    try:
        process = subprocess.Popen(line, text=True, stdout=subprocess.PIPE)
    except FileNotFoundError:
        raise UserError(f"--launch: there is no program {line[0]!r}.") from None
    found = None
    with process:
        for text in process.stdout or ():
            _, mark, point = text.partition(MARK)
            if mark:
                found = Point(**json.loads(point))
            else:
                print(text, end="", file=sys.stderr, flush=True)
    if process.returncode or found is None:
        raise UserError(f"The launch for {number} failed (exit code {process.returncode}); its output is above.")
    return found


_HEAD = [
    "ranks on hosts",
    "step, s",
    "pairs/s",
    "efficiency",
    "alone, s",
    "step − alone, s",
    "exposed communication, s",
    "gathered a step, MB",
    "reduced, MB",
]


def table(points: list[Point], arguments: Namespace) -> str:
    """Markdown: pairs/s, efficiency and exposed communication of each launch, and what they ran on."""
    first = points[0]
    bookkeeping = next((overhead(p) for p in points if p.ranks == 1), None)
    rows = []
    for p in points:
        step, speed = median(p.together), p.pairs / median(p.together)
        efficiency = speed / p.ranks / (first.pairs / median(first.together) / first.ranks)
        seconds = overhead(p) - (bookkeeping or 0.0)
        bound = "at most " if bookkeeping is None else ""
        exposed = f"{bound}{seconds:.3f} ({seconds / step:.0%})"
        rows.append(
            [
                f"{p.ranks} on {p.hosts}",
                f"{step:.3f}",
                f"{speed:.2f}",
                f"{efficiency:.0%}",
                f"{median(p.alone):.3f}",
                f"{overhead(p):.3f}",
                exposed,
                f"{p.gathered / 1e6:,.1f}",
                f"{p.reduced / 1e6:,.1f}",
            ]
        )
    cut = Plan(arguments.shape, arguments.layers, arguments.scale, arguments.vocab).cut_shape.cut
    return "\n".join(
        [
            f"### Scaling: {arguments.shape} ({cut or 'nothing cut'}), {arguments.objective}, {arguments.tune}, "
            f"{Path(arguments.ds).name}",
            "",
            f"{time.strftime('%Y-%m-%d')}; {first.machine}; {arguments.pairs} pairs a step and rank (weak scaling), medians of "
            f"{arguments.repetitions} steps; launched by `{arguments.launch}`.",
            "",
            markdown([_HEAD, *rows]),
            "",
            "Efficiency: pairs/s a rank, relative to the first row's. Alone: the same step with whole weights and no collective, "
            "on every rank at once. Exposed communication: step − alone, less the same at one rank (ZeRO's bookkeeping), in "
            "brackets as a share of the step; without a row of one rank that is not known, and what is said is an upper bound.",
        ]
    )
