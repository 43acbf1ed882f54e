"""What ``launchers/gpu_check.py`` runs: every kernel against float32, one step against the baseline, the noise of Δ, the ladder.

Every function takes a device and a shape, so that a CPU runs the same code at a tiny shape.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from ...basics.errors import UserError
from ...batches.pack import PackedCollate
from ...model.attention import BACKENDS, blocked, choose_backend, kernel_of
from ...model.logprobs import LogProbHead, attach
from ...objectives.table import make_objective
from ...recipe.config import ObjectiveConfig
from .count import floor_flops
from .ladder import LADDER, PRODUCT, ROWS, Tune, activate, build, ladder, make_batch, make_models, unique_tokens
from .run import wait
from .shapes import Shape, SyntheticFamily, random_pairs


@dataclass(frozen=True)
class Check:
    """One check's outcome."""

    name: str
    """What was compared."""
    error: float
    """Largest difference relative to the largest value of the truth."""
    tolerance: float | None
    """What it may be; None: not judged."""
    note: str = ""
    """Why it was not run."""

    @property
    def passed(self) -> bool:
        if self.note:
            return True
        if self.tolerance is None:
            return math.isfinite(self.error)
        return self.error <= self.tolerance

    def row(self) -> list[str]:
        """Its line in the table: comparison, difference, tolerance, verdict."""
        if self.note:
            return [self.name, "–", "–", f"not run: {self.note}"]
        bound, word = ("–", "measured") if self.tolerance is None else (f"{self.tolerance:.0e}", "passed")
        return [self.name, f"{self.error:.1e}", bound, word if self.passed else "**FAILED**"]


def relative(ours: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest difference relative to the largest value of ``truth``."""
    return ((ours.double() - truth.double()).abs().max() / truth.double().abs().max()).item()


def check_attention(shape: Shape, device: torch.device, dtype: torch.dtype) -> list[Check]:
    """Each backend, forward and gradients, against masked attention in float32 on the same half-precision inputs."""
    layout = PackedCollate()(random_pairs(shape, 1, 0), SyntheticFamily(shape)).layout
    layout = layout.map(lambda tensor: tensor.to(device))
    total, head = layout.queries[-1][1], shape.hidden // shape.heads
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(1, heads, total, head, generator=generator).to(device, dtype)
        for heads in (shape.heads, shape.groups, shape.groups)
    ]

    def run(kernel: Callable[..., torch.Tensor], exact: bool) -> list[torch.Tensor]:
        leaves = [(x.float() if exact else x).detach().clone().requires_grad_() for x in inputs]
        output = kernel(*leaves, layout, head**-0.5)
        slopes = torch.linspace(-1, 1, output.numel(), device=device).view_as(output).to(output.dtype)
        return [output.detach(), *torch.autograd.grad(output, leaves, slopes)]

    truth = run(blocked, exact=True)
    tolerance = 2e-2 if dtype != torch.float32 else 1e-5
    checks = []
    for backend in BACKENDS:
        try:
            choose_backend(backend, device, dtype)
        except UserError as error:
            checks.append(Check(f"attention, {backend}", 0.0, tolerance, str(error)))
            continue
        for part, ours, exact in zip(("output", "dQ", "dK", "dV"), run(kernel_of(backend), False), truth):
            checks.append(Check(f"attention, {backend}, {part}", relative(ours, exact), tolerance))
    return checks


def check_head(shape: Shape, device: torch.device, dtype: torch.dtype) -> list[Check]:
    """The log-prob head against float32 logits of the same half-precision weights."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(shape.hidden, shape.vocabulary, bias=False, device=device, dtype=dtype).requires_grad_(False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * shape.hidden**-0.5)
    hidden = torch.randn(300, shape.hidden, generator=generator).to(device, dtype).requires_grad_()
    targets = torch.randint(0, shape.vocabulary, (300,), generator=generator).to(device)
    direction, (logps,) = LogProbHead(head)(targets, hidden.detach(), derivative=True)
    (ours,) = torch.autograd.grad(attach(hidden, logps, direction).sum(), hidden)
    exact = hidden.detach().float().requires_grad_()
    truth = -torch.nn.functional.cross_entropy(exact @ head.weight.float().t(), targets, reduction="none")
    (theirs,) = torch.autograd.grad(truth.sum(), exact)
    half = dtype != torch.float32
    return [
        Check("log-prob head, values", relative(logps, truth.detach()), 1e-3 if half else 1e-5),
        Check("log-prob head, gradient", relative(ours, theirs), 1e-2 if half else 1e-5),
    ]


def check_step(shape: Shape, device: torch.device, dtype: torch.dtype, backend: str) -> list[Check]:
    """One lockstep step in ``dtype`` against six separate forward passes of the same weights in float32.

    On a CPU bfloat16 is off by 0.6 to 1.3% in Δ and 1.1 to 2.4% in gradients, and siblings that see each other by 10 to 19%
    and 5 to 33% (tiny shape; two layers of 7B at an eighth of its width; 2026-11-24): the tolerance lies between.
    """
    objective, family, pairs = make_objective(ObjectiveConfig()), SyntheticFamily(shape), random_pairs(shape, 2, 0)
    scores, gradients = {}, {}
    for name, kind in ((LADDER[0].name, torch.float32), (PRODUCT, dtype)):
        # The same values on both sides: what dtype can hold, then widened.
        models = make_models(shape, family, Tune(False, 16), dtype, device)
        if kind != dtype:  # not otherwise: it would round the rotary frequencies, which stay in float32
            models.policy.to(kind)
        tuned = build(ROWS[name], models, family, backend if kind == dtype else "sdpa")
        tuned.scorer.train()
        batch = make_batch(ROWS[name], objective, pairs, family, None).to(device)
        policy, reference = tuned.scorer(batch)
        objective(policy, reference)[0].mean().backward()
        scores[name] = (policy.logps - reference.logps).detach()
        slopes = [p.grad for p in tuned.trainable.values() if p.grad is not None]
        gradients[name] = torch.cat([slope.flatten().double().cpu() for slope in slopes])
        del tuned, models
    truth, ours = gradients[LADDER[0].name], gradients[PRODUCT]
    half = dtype != torch.float32
    exact = scores[LADDER[0].name]
    size = exact.abs().max().item()
    error = ((ours - truth).norm() / truth.norm()).item()
    return [
        Check(
            f"lockstep step, Δ (up to {size:.2g} nats) against float32",
            relative(scores[PRODUCT], exact),
            5e-2 if half else 1e-4,
        ),
        Check("lockstep step, all gradients norm-wise against float32", error, 5e-2 if half else 1e-4),
    ]


def noise_floor(shape: Shape, device: torch.device, dtype: torch.dtype, backend: str) -> list[Check]:
    """How far Δ is from 0 when policy and reference are the same model: live, and with the reference from another pack."""
    family, pairs = SyntheticFamily(shape), random_pairs(shape, 4, 0)
    models = make_models(shape, family, Tune(False, 16), dtype, device)
    with torch.no_grad():
        for name, parameter in models.policy.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
        tuned = build(ROWS[PRODUCT], models, family, backend)
        together = PackedCollate()(pairs, family).to(device)
        policy, reference = tuned.scorer(together)
        alone = torch.cat([tuned.scorer(PackedCollate()([pair], family).to(device))[1].logps for pair in pairs])
    live = (policy.logps - reference.logps).abs().max().item()
    cached = (policy.logps - alone).abs()
    return [
        Check("noise of Δ at the start, live reference, nats (absolute)", live, 0.0),
        Check("noise of Δ at the start, reference from other packs, nats: largest", cached.max().item(), None),
        Check("noise of Δ at the start, reference from other packs, nats: mean", cached.mean().item(), None),
    ]


@dataclass
class Timed:
    """A row of the ladder on one device."""

    row: str
    """Its name."""
    seconds: list[float]
    """Forward and backward of every repetition."""
    peak: int = 0
    """Bytes: peak of the allocator, weights included, without the frozen copy where the row has no use for it; 0 on a CPU."""
    floor_flops: float = 0.0
    """Of a step, without which no implementation does: see :func:`~svco.commands.bench.count.floor_flops`."""
    loss: float = 0.0
    """Of the last repetition."""
    failed: str = ""
    """Why it has no figures, e.g. out of memory."""


@dataclass(frozen=True)
class Setting:
    """How ladders are timed."""

    device: torch.device
    """Where."""
    dtype: torch.dtype
    """Of all weights."""
    backend: str
    """Attention kernel."""
    pairs: int
    """Pairs a step."""
    repetitions: int
    """Timed steps a row."""


def time_ladder(shape: Shape, setting: Setting, full: bool) -> tuple[list[Timed], Callable[[], Any]]:
    """Forward and backward of every row, in turn, all rows on the same weights; and the product's step, for a profiler."""
    device, backend, pairs = setting.device, setting.backend, setting.pairs
    objective, family, drawn = make_objective(ObjectiveConfig()), SyntheticFamily(shape), random_pairs(shape, pairs, 0)
    models = make_models(shape, family, Tune(full), setting.dtype, device)
    with torch.no_grad():  # what the row with a cached reference is given
        product = build(ROWS[PRODUCT], models, family, backend, shared=True)
        stored = product.scorer(PackedCollate()(drawn, family).to(device))[1].logps
    unique = unique_tokens(shape, objective)
    contestants, results = [], []
    rows = ladder(full)
    for row in rows:
        tuned = build(row, models, family, backend, shared=True)
        batch = make_batch(row, objective, drawn, family, stored).to(device)
        floor = floor_flops(tuned, *unique, full, row.reference == "live") * pairs
        results.append(Timed(row.name, [], floor_flops=floor))
        contestants.append((partial(activate, row, tuned), partial(_step, tuned, batch, objective)))
    for repetition in range(setting.repetitions + 1):
        for (prepare, step), timed in zip(contestants, results, strict=True):
            prepare()
            _time(step, timed, device, keep=repetition > 0)
    idle = sum(p.numel() * p.element_size() for p in models.reference.parameters()) if models.reference else 0
    for row, timed in zip(rows, results, strict=True):
        if timed.peak and row.reference == "cached":
            timed.peak -= idle
    prepare, step = next(c for c, timed in zip(contestants, results, strict=True) if timed.row == PRODUCT)
    prepare()
    return results, step


def _step(tuned: Any, batch: Any, objective: Any) -> torch.Tensor:
    tuned.scorer.train()
    loss = objective(*tuned.scorer(batch))[0].mean()
    loss.backward()
    for parameter in tuned.trainable.values():
        parameter.grad = None
    return loss.detach()


def _time(step: Callable[[], Any], timed: Timed, device: torch.device, keep: bool) -> None:
    if timed.failed:
        return
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    wait(device)
    began = time.perf_counter()
    try:
        loss = step()
        wait(device)
    except torch.OutOfMemoryError:
        timed.failed = "out of memory"
        torch.cuda.empty_cache()
        return
    if keep:
        timed.seconds.append(time.perf_counter() - began)
    timed.loss = float(loss)
    if device.type == "cuda":
        timed.peak = torch.cuda.max_memory_allocated(device)


def top_kernels(step: Callable[[], Any], device: torch.device, count: int = 12) -> list[tuple[str, float]]:
    """(kernel, share of the time) of one step of the product, the costliest first."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CUDA] if device.type == "cuda" else [ProfilerActivity.CPU]
    with profile(activities=kinds) as profiler:
        step()
        wait(device)
    name = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, name))
    total = sum(getattr(event, name) for event in events) or 1.0
    return [(event.key[:90], getattr(event, name) / total) for event in events[:count]]


def seconds(timed: Timed) -> float | None:
    """The median; None without any."""
    return median(timed.seconds) if timed.seconds else None


def cut(shape: Shape, layers: int) -> Shape:
    """``shape`` at ``layers`` decoder layers, everything else true."""
    return replace(shape, layers=layers, cut=f"{layers} of {shape.layers} layers")
