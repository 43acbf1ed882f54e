"""A plan as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .planner import Advice, Plan, usable
from .question import Question


def gb(size: float) -> str:
    if size < 1e7:
        return f"{size / 1e9:.1g}" if size else "0"
    return f"{size / 1e9:,.2f}" if size < 99.5e9 else f"{size / 1e9:,.0f}"


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0]) + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))
        for row in rows
    ]
    return ["", title, *(f"  {line.rstrip()}" for line in lines)]


def text(question: Question, plans: Sequence[Plan], refused: dict[str, str], advice: Advice) -> str:
    """The whole report."""
    machine = plans[0].machine
    a, tuning = question.architecture, question.tuning
    kind = "full fine-tuning" if tuning.full else f"LoRA r={tuning.rank}"
    kind += " beside a base in 4 bits" if tuning.quantised else ""
    lines = [
        f"Plan of {question.recipe} on {machine}",
        "",
        f"base          {a.name}: {a.weights / 1e9:.2f} B weights ({a.tower.weights / 1e9:.2f} B vision tower), "
        f"{a.layers} layers",
        f"trained       {tuning.trained(a) / 1e6:,.1f} M weights, {kind}; reference: {tuning.reference}",
        f"pairs         {question.pairs:,}; {question.steps:,} steps of {question.config.optim.global_batch}; "
        f"{question.pair.tokens:,.0f} tokens a pair and stream",
        *(f"              {line}" for line in question.assumptions),
        f"efficiency    {machine.reached.source}: {machine.reached.matmul:.0%} of the peak FLOP/s in products, "
        f"{machine.reached.network:.0%} of the network, {machine.reached.peers:.0%} of the links in a node; what computes "
        f"takes {machine.reached.slower:.2f} times that",
        *_memory(plans),
        *_host(plans),
        *_work(plans),
    ]
    room = f"{usable(machine) / 1e9:.0f} GB: a tenth of the GPU is left to CUDA, NCCL and fragmentation"
    lines += ["", f"Memory is compared with {room}."]
    lines += [f"{name}: {why}" for name, why in refused.items()]
    heading = "Recommended: " if len(plans) > 1 and advice.plan else ""
    return "\n".join([*lines, "", heading + advice.why])


def _memory(plans: Sequence[Plan]) -> list[str]:
    def row(title: str, term: str) -> tuple[str, ...]:
        return (title, *(gb(getattr(plan.memory, term)) for plan in plans))

    return _table(
        "Memory of one GPU, GB",
        [
            ("", *(plan.ds for plan in plans)),
            row("parameters (shard or whole, frozen copy)", "weights"),
            row("adapters", "adapters"),
            row("optimizer: float32 masters and moments", "optimizer"),
            row("gradients and reduction buffers", "gradients"),
            row("live parameters, gathered at once", "live"),
            row("activations kept", "activations"),
            row("worst moment beside them", "transient"),
            row("total", "total"),
            row("  (log-prob head, when it runs)", "head"),
            row("  (vision tower, when it runs)", "vision"),
            ("fits", *("yes" if plan.fits else f"no: {plan.memory.largest}" for plan in plans)),
            ("layers recomputed", *(str(plan.memory.recompute) for plan in plans)),
            (
                "largest optim.tokens_per_micro_batch",
                *(f"{p.largest_budget:,}" if p.largest_budget else "none" for p in plans),
            ),
        ],
    )


def _host(plans: Sequence[Plan]) -> list[str]:
    def row(title: str, term: str) -> tuple[str, ...]:
        return (title, *(gb(getattr(plan.host, term)) for plan in plans))

    return _table(
        "Memory and disks of one node, and shared storage, GB",
        [
            ("", *(plan.ds for plan in plans)),
            row("host memory, training", "memory"),
            row("host memory, loading", "loading"),
            row("node's NVMe", "nvme"),
            row("base model on disk", "base"),
            row("a checkpoint", "checkpoint"),
            row("the result", "export"),
        ],
    )


def _work(plans: Sequence[Plan]) -> list[str]:
    def seconds(term: str) -> tuple[str, ...]:
        return tuple(f"{getattr(plan.time, term):.3g}" for plan in plans)

    return _table(
        "A step",
        [
            ("", *(plan.ds for plan in plans)),
            ("micro-batches a GPU", *(str(plan.micros.count) for plan in plans)),
            ("tokens of a micro-batch, one stream", *(f"{plan.micros.row.tokens:,.0f}" for plan in plans)),
            ("TFLOP a GPU", *(f"{plan.work.total * plan.micros.count / 1e12:,.0f}" for plan in plans)),
            ("gathered, GB", *(gb(plan.travel.gathered) for plan in plans)),
            ("  of these between nodes, GB", *(gb(plan.travel.across) for plan in plans)),
            ("reduced, GB", *(gb(plan.travel.reduced) for plan in plans)),
            ("compute, s", *seconds("compute")),
            ("gather, s", *seconds("gather")),
            ("reduce, s", *seconds("reduce")),
            ("host and disks, s", *seconds("offload")),
            ("  of these not hidden, s", *seconds("exposed")),
            ("update, s", *seconds("optimizer")),
            ("step, s", *seconds("total")),
            ("  may be off by", *(f"± {plan.time.uncertainty:.0%}" for plan in plans)),
            ("run, hours", *(f"{plan.hours:.2f}" for plan in plans)),
            ("  of these load, saves, result, minutes",
             *(f"{plan.load / 60:.1f}, {plan.save / 60:.1f}, {plan.export / 60:.1f}" for plan in plans)),
        ],
    )  # fmt: skip


def as_json(question: Question, plans: Sequence[Plan], refused: dict[str, str], advice: Advice) -> dict[str, Any]:
    """Everything the report says, in bytes, seconds and FLOPs."""
    return {
        "recipe": question.recipe,
        "assumptions": list(question.assumptions),
        "architecture": asdict(question.architecture),
        "tuning": asdict(question.tuning),
        "pair": asdict(question.pair),
        "plans": [
            asdict(plan)
            | {
                "fits": plan.fits,
                "hours": plan.hours,
                "memory": asdict(plan.memory) | {"total": plan.memory.total},
                "work": asdict(plan.work) | {"total": plan.work.total},
                "time": asdict(plan.time) | {"total": plan.time.total},
            }
            for plan in plans
        ],
        "refused": refused,
        "recommended": advice.plan.ds if advice.plan else None,
        "why": advice.why,
    }
