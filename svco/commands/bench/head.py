"""The log-prob head against plain logits and torch's own fused cross-entropy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from torch import nn

from ...basics.dist import World
from ...basics.markdown import markdown
from ...model.logprobs import LogProbHead, TrainedLogProbHead, attach
from .count import LiveBytes
from .run import wait
from .shapes import Shape

Scored = Callable[[torch.Tensor], torch.Tensor]


def contestants(head: nn.Linear, targets: torch.Tensor, trained: bool) -> dict[str, Scored]:
    """Ways to log-probabilities (R,) of ``targets`` from hidden states (R, hidden); the first is plain logits."""
    ours = TrainedLogProbHead(head) if trained else LogProbHead(head)

    def plain(hidden: torch.Tensor) -> torch.Tensor:
        return -nn.functional.cross_entropy(head(hidden).float(), targets, reduction="none")

    def once(hidden: torch.Tensor) -> torch.Tensor:
        direction, (logps,) = ours(targets, hidden.detach(), derivative=True)
        return attach(hidden, logps, direction)

    ways: dict[str, Scored] = {
        "plain logits": plain,
        "log-prob head": (lambda hidden: ours(targets, hidden)) if trained else once,
    }
    # Only newer versions of torch have it.
    fused = getattr(nn.functional, "linear_cross_entropy", None)
    options = getattr(nn, "LinearCrossEntropyOptions", None)
    if fused is not None and options is not None:
        ways["torch's linear_cross_entropy, chunked"] = lambda hidden: (
            -fused(hidden, head.weight, targets, reduction="none", options=options())
        )
    return ways


def bench_head(shape: Shape, world: World, rows: int = 1440, repetitions: int = 3) -> str:
    """Seconds of forward and backward, in turn, and the widest (tokens, vocabulary) tensor each makes."""
    hidden = min(shape.hidden, 1024) if world.device.type == "cpu" else shape.hidden
    dtype = torch.bfloat16 if world.device.type == "cuda" else torch.float32
    lines = [
        f"### The head: {rows} tokens × {hidden} × {shape.vocabulary:,}, {str(dtype).removeprefix('torch.')}",
        "",
    ]
    table = [["", "forward + backward, s", "× plain", "widest logits, MB", "largest difference: log-prob", "gradients"]]
    for trained in (False, True):
        torch.manual_seed(0)
        head = nn.Linear(hidden, shape.vocabulary, bias=False, device=world.device, dtype=dtype)
        head.requires_grad_(trained)
        inputs = torch.randn(rows, hidden, device=world.device, dtype=dtype, requires_grad=True)
        targets = torch.randint(0, shape.vocabulary, (rows,), device=world.device)
        table += _duel(
            contestants(head, targets, trained), head, inputs, repetitions, replace(shape, hidden=hidden), trained
        )
    return "\n".join([*lines, markdown(table)])


def _duel(
    ways: dict[str, Scored], head: nn.Linear, inputs: torch.Tensor, repetitions: int, shape: Shape, trained: bool
) -> list[list[str]]:
    """A row of the table for each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = {}
    for name, way in ways.items():
        with LiveBytes(iter((inputs, head.weight)), shape) as live:
            logps = way(inputs)
            wanted = [inputs, head.weight] if trained else [inputs]
            gradients = torch.cat([g.flatten() for g in torch.autograd.grad(logps.sum(), wanted)])
        found[name] = logps.detach(), gradients, live.largest_logits
    for _ in range(repetitions):
        for name, way in ways.items():
            wait(inputs.device)
            began = time.perf_counter()
            way(inputs).sum().backward()
            wait(inputs.device)
            seconds[name].append(time.perf_counter() - began)
            inputs.grad = head.weight.grad = None
    base, truth = median(seconds["plain logits"]), found["plain logits"]
    kind = "trained" if trained else "frozen"
    return [
        [
            f"{name}, {kind} head",
            f"{median(seconds[name]):.3g}",
            f"{median(seconds[name]) / base:.2f}",
            f"{widest / 1e6:.0f}",
            f"{(logps - truth[0]).abs().max():.1e}",
            f"{(gradients - truth[1]).abs().max():.1e}",
        ]
        for name, (logps, gradients, widest) in found.items()
    ]
