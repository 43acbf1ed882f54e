"""Runs a ladder: counts at the true shape without weights, then every row's step in turn with real engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ... import engine as engines
from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...basics.views import views_of
from ...model.attention import choose_backend
from ...objectives.table import Objective, make_objective
from ...recipe.config import Config, ObjectiveConfig
from ...recipe.ds_config import fill
from . import fused
from .clocks import clock_of
from .count import count_step, floor_flops
from .ladder import BASELINE, Row, Tune, bench_config, build, ladder, make_batch, make_models, unique_tokens
from .shapes import SHAPES, Shape, SyntheticFamily, random_pairs


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    shape: str = "tiny"
    """Name of the shape."""
    layers: int = 0
    """Decoder layers of the timed models; 0: all."""
    scale: float = 1.0
    """Factor on widths and heads of the timed models."""
    vocabulary: int = 0
    """Token ids of the timed models; 0: all."""
    objective: str = "svco"
    """Objective."""
    full: bool = False
    """Full fine-tuning instead of LoRA."""
    pairs: int = 1
    """Pairs a step and rank, in one micro-batch."""
    repetitions: int = 5
    """Timed steps a row; rows take turns."""
    rows: tuple[str, ...] = ()
    """Rows to run; empty: all."""

    @property
    def true_shape(self) -> Shape:
        return SHAPES[self.shape]

    @property
    def cut_shape(self) -> Shape:
        return self.true_shape.reduced(self.layers, self.scale, self.vocabulary)

    @property
    def ladder(self) -> tuple[Row, ...]:
        return tuple(row for row in ladder(self.full) if not self.rows or row.name in self.rows)


@dataclass
class Measured:
    """One row's results."""

    row: str
    """Its name."""
    counts: dict[str, Any] = field(default_factory=dict)
    """At the true shape, a pair: see :class:`~svco.commands.bench.count.Counts`."""
    cut_counts: dict[str, Any] = field(default_factory=dict)
    """The same at the timed shape."""
    floor_flops: float = 0.0
    """At the timed shape, a pair: what no implementation avoids."""
    loss: float = 0.0
    """Loss of the timed batch, over all ranks."""
    logps: list[float] = field(default_factory=list)
    """Policy's and reference's log-probs of rank 0's timed batch."""
    model_bytes: int = 0
    """Weights of all models in the row, at the timed shape."""
    collectives: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Collective -> (calls, bytes) of one step."""
    grad_norm: float = 0.0
    """Norm of the gradients of all trained parameters."""
    seconds: list[float] = field(default_factory=list)
    """Every timed step."""


def tight(ds: dict[str, Any], live: int) -> dict[str, Any]:
    """``ds`` with every weight partitioned and no more than about two layers (``live`` weights) gathered at once.

    With DeepSpeed's defaults a small model is gathered once and never let go, which hides what a large one costs.
    """
    zero = ds["zero_optimization"] | {
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 2 * live,
        "stage3_max_reuse_distance": live // 2,
        "stage3_prefetch_bucket_size": live,
    }
    return ds | {"zero_optimization": zero}


def run_plans(
    plans: Sequence[Plan], ds: dict[str, Any] | None, world: World, progress: Progress
) -> list[dict[str, Any]]:
    """Every row of every plan, counted and timed; the same on every rank. A collective.

    All is counted before anything is built: ZeRO-3 replaces torch's linear function for good, and with it what recomputation
    leaves out.
    """
    measured = [count_plan(plan, world, progress) for plan in plans]
    world.barrier()
    return [time_plan(plan, rows, ds, world, progress) for plan, rows in zip(plans, measured)]


def count_plan(plan: Plan, world: World, progress: Progress) -> list[Measured]:
    """The rows of ``plan`` with their counts, on rank 0; elsewhere without."""
    objective, tune = make_objective(ObjectiveConfig(name=plan.objective)), Tune(plan.full)
    measured = [Measured(row.name) for row in plan.ladder]
    if world.is_main:
        for row, result in zip(progress(plan.ladder, "counting"), measured):
            result.counts = true_counts(plan.true_shape, row, objective, tune)
            whole = plan.cut_shape == plan.true_shape
            result.cut_counts = result.counts if whole else true_counts(plan.cut_shape, row, objective, tune)
    return measured


def time_plan(
    plan: Plan, measured: list[Measured], ds: dict[str, Any] | None, world: World, progress: Progress
) -> dict[str, Any]:
    """Builds the rows of ``plan`` and times them in turn; everything known of them."""
    ceiling = matmul_ceiling(world)
    bench = Bench(plan, make_objective(ObjectiveConfig(name=plan.objective)), ds, world)
    reference = None
    contestants = []
    for row, result in zip(progress(plan.ladder, "building"), measured):
        contestant = bench.enter(row, result, reference)
        if reference is None:  # what the row with a cached reference is given
            reference = contestant.reference
        contestants.append(contestant)
    for _ in progress(range(plan.repetitions + 1), "timing, rows in turn"):
        for contestant in contestants:
            contestant.timed_step()
    for contestant in contestants:
        contestant.result.seconds = contestant.result.seconds[1:]
    return {
        "plan": asdict(plan),
        "cut": plan.cut_shape.cut,
        "ranks": world.size,
        "ds": None if ds is None else ds["zero_optimization"],
        "ceiling": ceiling,
        "rows": [asdict(result) for result in measured],
        "machine": bench.facts(),
    }


def true_counts(shape: Shape, row: Row, objective: Objective, tune: Tune) -> dict[str, Any]:
    """Counts of one pair at the true shape in bfloat16, on the meta device: shapes without values."""
    family, meta = SyntheticFamily(shape), torch.device("meta")
    tuned = build(row, make_models(shape, family, tune, torch.bfloat16, meta), family, fused.NAME)
    pairs = random_pairs(shape, 1, 0)
    batch = make_batch(row, objective, pairs, family, torch.zeros(1, 2, len(views_of(objective.cells)))).to(meta)
    counts = count_step(tuned, shape, batch, 1, lambda scores: objective(*scores)[0].mean())
    counts.floor = floor_flops(tuned, *unique_tokens(shape, objective), tune.full, row.reference == "live")
    return asdict(counts)


def matmul_ceiling(world: World, seconds: float = 1.0) -> float:
    """FLOP/s of large matrix products on this rank's device, all ranks at once: what a step could reach."""
    size = 8192 if world.device.type == "cuda" else 1024
    dtype = torch.bfloat16 if world.device.type == "cuda" else torch.float32
    a = torch.randn(size, size, device=world.device, dtype=dtype)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        wait(world.device)
        before = time.perf_counter()
        a @ a
        wait(world.device)
        best = min(best, time.perf_counter() - before)
    return min(world.gather(2 * size**3 / best))


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Bench:
    """Builds the rows of a plan, each with an engine of its own."""

    def __init__(self, plan: Plan, objective: Objective, ds: dict[str, Any] | None, world: World):
        self.plan, self.objective, self.ds, self.world = plan, objective, ds, world
        self.shape, self.tune = plan.cut_shape, Tune(plan.full)
        self.family = SyntheticFamily(self.shape)
        self.dtype = torch.bfloat16 if world.device.type == "cuda" else torch.float32
        self.pairs = random_pairs(self.shape, plan.pairs, seed=world.rank)
        self.config: Config = bench_config(self.tune)

    def facts(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype), "device": str(self.world.device.type), "torch": torch.__version__}

    def enter(self, row: Row, result: Measured, reference: torch.Tensor | None) -> Contestant:
        """A row ready to run; counted at the timed shape, its collectives too."""
        backend, _ = choose_backend("auto", self.world.device, self.dtype)
        device = self.world.device if self.ds is None else torch.device("cpu")
        models = make_models(self.shape, self.family, self.tune, self.dtype, device)
        tuned = build(row, models, self.family, backend)
        layer = next(iter(self.family.parts(tuned.policy).layers))
        self.live = sum(p.numel() for p in layer.parameters()) * (2 if self.tune.full else 1)
        weights = [p for model in filter(None, (tuned.policy, tuned.reference)) for p in model.parameters()]
        result.model_bytes = sum(p.numel() * p.element_size() for p in weights)
        batch = make_batch(row, self.objective, self.pairs, self.family, reference).to(self.world.device)
        unique = unique_tokens(self.shape, self.objective)
        result.floor_flops = floor_flops(tuned, *unique, self.tune.full, row.reference == "live")
        ds = self.ds
        if ds is not None:
            sized = tight(ds, self.live) if ds["zero_optimization"]["stage"] == 3 else ds
            ds = fill(sized, self.config, self.world.size, str(self.dtype).removeprefix("torch."))
        engine = engines.make_engine(tuned, self.config.optim, self.world, ds, None)
        engine.train()
        contestant = Contestant(engine, batch, self._loss, self.world, result)
        contestant.count_collectives(counting=ds is not None)
        return contestant

    def _loss(self, scores: Any) -> torch.Tensor:
        return self.objective(*scores)[0].mean()


class Contestant:
    """One row with its engine and batch."""

    def __init__(self, engine: Any, batch: Any, loss_of: Callable[[Any], torch.Tensor], world: World, result: Measured):
        self.engine, self.batch, self.loss_of, self.world, self.result = engine, batch, loss_of, world, result
        self.reference: torch.Tensor | None = None

    def step(self) -> torch.Tensor:
        """A whole optimiser step at learning rate 0: every row stays at the same weights."""
        with self.engine.accumulation():
            scores = self.engine(self.batch)
            loss = self.loss_of(scores)
            self.engine.backward(loss)
        self.result.grad_norm = float(self.engine.step(0.0))
        self.reference = scores[1].logps.detach()
        self.result.logps = torch.cat([s.logps.detach().flatten() for s in scores]).tolist()
        return loss.detach()

    def count_collectives(self, counting: bool) -> None:
        """Two steps to settle ZeRO-3's trace, then one whose collectives are counted."""
        for _ in range(2):
            self.step()
        none: AbstractContextManager[dict[str, tuple[int, int]]] = nullcontext({})
        with engines.counting_collectives(self.world) if counting else none as found:
            loss = self.step()
        self.result.collectives = dict(found)
        self.result.loss = sum(self.world.gather(float(loss))) / self.world.size

    def timed_step(self) -> None:
        self.world.barrier()
        clock = clock_of(self.world)
        wait(self.world.device)
        before = clock()
        self.step()
        wait(self.world.device)
        self.result.seconds.append(max(self.world.gather(clock() - before)))


def baseline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row that the others are compared with: the ladder's BASELINE, or the first where that is left out."""
    return next((row for row in rows if row["row"] == BASELINE), rows[0])


def agree(rows: Sequence[dict[str, Any]], tolerance: float) -> float:
    """Largest difference of the rows' log-probs, or of their gradients' norm by ten, from the baseline's, relative to their size;
    UserError beyond ``tolerance``: rows that compute different things cannot be compared."""
    base = baseline(rows)
    truth = torch.tensor(base["logps"])
    differences = {
        row["row"]: max(
            ((torch.tensor(row["logps"]) - truth).norm() / truth.norm()).item(),
            abs(row["grad_norm"] / base["grad_norm"] - 1) / 10,
        )
        for row in rows
    }
    if not max(differences.values()) <= tolerance:
        raise UserError(f"The rows compute different log-probs or gradients, relative to {base['row']}: {differences}")
    return max(differences.values())


def save(results: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json_text(results, indent=1))
