"""Steps a second from 1 to 1,024 GPUs, as the model has them. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...basics.files import writing
from .machine import Machine
from .planner import Plan, make_plan
from .question import Question

RANKS = tuple(2**n for n in range(11))
"""1 to 1,024."""


@dataclass(frozen=True)
class Point:
    """One number of GPUs."""

    ranks: int
    """GPUs."""
    pairs_per_second: float
    """Of all of them; 0 where it does not fit."""
    exposed: float
    """Share of the step that is traffic and nothing else."""


def curve(question: Question, machine: Machine, name: str, ds: Mapping[str, Any], weak: bool) -> list[Point]:
    """Throughput over :data:`RANKS`: ``weak`` keeps the pairs of a GPU (of the recipe on ``machine``), else those of a step,
    1,024 at least, so that every GPU has one."""
    strong_batch, weak_pairs = _pairs(question, machine)
    points = []
    for ranks in RANKS:
        pairs = weak_pairs * ranks if weak else strong_batch
        optim = replace(question.config.optim, global_batch=pairs)
        asked = replace(question, config=replace(question.config, optim=optim))
        plan = make_plan(asked, _with(machine, ranks), name, ds)
        points.append(_point(plan, pairs))
    return points


def _pairs(question: Question, machine: Machine) -> tuple[int, int]:
    """(pairs of a step in strong scaling, pairs of a GPU and step in weak scaling)."""
    batch = question.config.optim.global_batch
    return max(batch, RANKS[-1]), -(-batch // machine.ranks)


def _with(machine: Machine, ranks: int) -> Machine:
    """``machine`` with other numbers of nodes of eight GPUs, or of as many as it has in one."""
    return replace(machine, per_node=max(8, machine.per_node)).of(ranks)


def _point(plan: Plan, pairs: int) -> Point:
    if not plan.fits:
        return Point(plan.machine.ranks, 0.0, 0.0)
    return Point(plan.machine.ranks, pairs / plan.time.total, plan.time.exposed / plan.time.total)


def figure(question: Question, machine: Machine, configs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Strong and weak scaling under each of ``configs``, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    strong_batch, weak_pairs = _pairs(question, machine)
    titles = (f"strong: {strong_batch:,} pairs a step", f"weak: {weak_pairs} pair(s) a GPU and step")
    for axis, weak, title in zip(axes, (False, True), titles):
        for name, ds in configs.items():
            points = [point for point in curve(question, machine, name, ds, weak) if point.pairs_per_second]
            if not points:
                continue
            ranks, speeds = [p.ranks for p in points], [p.pairs_per_second for p in points]
            (line,) = axis.plot(ranks, speeds, marker="o", markersize=3.5, label=name)
            ideal = [speeds[0] / ranks[0] * n for n in ranks]
            axis.plot(ranks, ideal, linestyle=":", linewidth=0.8, color=line.get_color())
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xticks(RANKS, [str(n) for n in RANKS])
        axis.set_xlabel("GPUs")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("pairs a second (dotted: ideal)")
    axes[1].legend(title="DeepSpeed config", fontsize=8)
    reached = machine.reached
    drawing.suptitle(
        f"MODEL, NOT MEASURED: {question.recipe} on {machine.gpu.name}, {machine.network_name} a node; "
        f"efficiencies {reached.source}, ± {reached.uncertainty:.0%}",
        fontsize=9,
    )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, dpi=130)
    pyplot.close(drawing)
