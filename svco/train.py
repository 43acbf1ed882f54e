"""The story of a run: resolve, load, fit, compare before with after."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import engine as engines
from .board import Board, Progress
from .checkpoint import Checkpoints, Position, read_position
from .clock import Clock
from .config import Config
from .dist import World
from .ds_config import fill
from .engine import Engine
from .errors import UserError
from .evaluate import score_pairs, summarise, table
from .job import Job, Split, cache_dir, describe, evaluation_loader, make_job
from .loader import StepBatches
from .memory import RecomputeDial
from .model import Tuned, load_tuned, outline, resolve_dtype
from .optimizer import learning_rate
from .order import ORDER_VERSION
from .precompute import Precompute
from .run_folder import RunFolder
from .tally import Tally
from .watch import BadWatch, MatchWatch

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Launch:
    """A recipe and how it was started."""

    config: Config
    """The resolved recipe."""
    recipe: str
    """Name of the recipe, for the run's folder."""
    ds: Mapping[str, Any] | None
    """The DeepSpeed JSON as read, or None to run one process without DeepSpeed."""
    ds_path: str
    """Where it was read, for messages."""
    dry_run: bool = False
    """Resolve and print only."""


def run(launch: Launch, world: World) -> None:
    """Runs a recipe from start to the table at its end. Called on every rank."""
    config = launch.config
    dtype = resolve_dtype(config.model.dtype, world.device)
    ds = (
        None
        if launch.ds is None
        else fill(
            dict(launch.ds), config, world.size, str(dtype).removeprefix("torch."), launch.ds_path, world.local_size
        )
    )
    if ds is None and world.size > 1:
        raise UserError(
            f"--ds none runs one process, but the launcher started {world.size}. Give --ds ds_configs/zero3.json."
        )
    job = make_job(config, world, Progress.over(world.is_main))
    if launch.dry_run:
        if world.is_main:
            print(dry_run_text(job, world, ds, str(dtype)))
        return
    folder = RunFolder.open(config, launch.recipe, world, ds)
    checkpoints = Checkpoints(folder.path / "checkpoints", config.checkpoint.keep, world)
    resume = resume_point(config, checkpoints)
    outlined = partial(outline, config, job.family, dtype)
    with engines.swapping(ds, outlined, folder.path.name, job.reference, world) as ds:
        with engines.loading(ds):
            tuned = load_tuned(config, job.family, dtype, job.reference, world.device, progress=world.is_main)
        engine = engines.make_engine(tuned, config.optim, world, ds, resume)
        before = None if resume is None else read_position(resume)
        board = Board(folder.path, enabled=world.is_main, start=before.step if before else 0)
        board.note(f"run {folder.path}\n{describe(job, world)}")
        board.note(f"attention: {tuned.attention} ({tuned.why_attention})")
        session = Session(job, tuned, engine, world, board)
        try:
            session.precompute(resumed=resume is not None)
            fit(session, checkpoints, before)
            finish(session, folder)
        finally:
            board.close()


@dataclass
class Session:
    """A run under way."""

    job: Job
    """What was decided before the model was loaded."""
    tuned: Tuned
    """The model."""
    engine: Engine
    """What steps it."""
    world: World
    """This rank among the others."""
    board: Board
    """Where metrics go."""
    references: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)
    """Shard specs -> cached log-probs of the reference; empty when it runs beside the policy."""

    def split(self, specs: tuple[str, ...]) -> Split:
        """The pairs of ``specs``. A collective."""
        job, progress = self.job, Progress.over(self.world.is_main)
        if specs == job.config.data.train:
            return job.train
        return Split.open(specs, job.family, cache_dir(job.config), self.world, progress)

    def precompute(self, resumed: bool) -> None:
        """Before the first step, while the model is still the base: what no reference stream will say. A collective."""
        data, strategy = self.job.config.data, self.job.reference
        wanted = {"cached": (data.train, data.validation, data.heldout), "none": (data.validation, data.heldout)}
        compute = Precompute(self.job, self.tuned, self.engine, self.world, Progress.over(self.world.is_main), resumed)
        for specs in filter(None, wanted.get(strategy, ())):
            self.references[specs] = compute(self.split(specs))


def dry_run_text(job: Job, world: World, ds: Mapping[str, Any] | None, dtype: str) -> str:
    from .recipe import dump

    shown = json.dumps(ds, indent=2) if ds else "none: one process without DeepSpeed"
    return f"{dump(job.config)}\ndtype: {dtype}\n{describe(job, world)}\n\nDeepSpeed config:\n{shown}"


def resume_point(config: Config, checkpoints: Checkpoints) -> Path | None:
    """The checkpoint folder to continue from, or None to begin."""
    from .checkpoint import damage

    if config.run.resume == "none":
        return None
    if config.run.resume == "auto":
        return checkpoints.newest()
    folder = Path(config.run.resume)
    if problem := damage(folder):
        raise UserError(
            f"run.resume is {folder}, which is no valid checkpoint: {problem}. run.resume=auto takes the newest "
            "valid one."
        )
    return folder


def fit(session: Session, checkpoints: Checkpoints, before: Position | None) -> None:
    """The train loop: steps of global batches of micro-batches."""
    job, engine, world, board = session.job, session.engine, session.world, session.board
    config = job.config
    start = position_of(job) if before is None else before
    start.check(position_of(job), checkpoints.folder)
    clock, tally, matches = Clock(world.device), Tally(), MatchWatch(world.is_main)
    bads = BadWatch(config.data.max_bad_fraction, start.bad)
    pairs = start.pairs
    dial = RecomputeDial(session.tuned.scorer, config.optim, world, job.largest_pack(world))

    def due(step: int, every: int) -> bool:
        return step == job.steps or (every > 0 and step % every == 0)

    engine.train()
    loader = job.loader(world, start.step, session.references.get(config.data.train))
    loader = board.progress(loader, start.step, job.steps)
    for batches in clock.over("data", loader):
        step = batches.step + 1
        lr = learning_rate(config.optim, batches.step, job.steps)
        norm = take_step(job, engine, world, batches, lr, clock, tally)
        board.note(dial.settle())
        pairs += batches.slots
        bads.add(batches.bad)
        saving = due(step, config.checkpoint.every)
        # A checkpoint's step is always logged, so that what is being averaged never spans one.
        if saving or due(step, config.run.log_every):
            bads.check(world.sum(bads.take()), pairs, at_end=step == job.steps)
            metrics = tally.reduce(world) | {"grad_norm": float(norm), "lr": lr, "epoch": batches.epoch, "pairs": pairs}
            metrics["imbalance"] = batches.imbalance
            board.write(step, metrics | bads.metrics() | clock.lap(world))
            matches.add(metrics, step)
        if config.data.validation and due(step, config.evaluate.every):
            validate(session, step)
        if saving:
            here = replace(start, step=step, epoch=batches.epoch, pairs=pairs, bad=dict(bads.counts))
            checkpoints.save(here, engine.save)


def take_step(
    job: Job, engine: Engine, world: World, batches: StepBatches, lr: float, clock: Clock, tally: Tally
) -> torch.Tensor:
    """One optimiser step over this rank's micro-batches; the gradient norm before clipping."""
    import torch

    # Dropout is a pure function of seed, step and rank, so a resumed run has no random state to restore.
    torch.manual_seed((job.config.run.seed * 1_000_003 + batches.step) * world.size + world.rank)
    with naming_the_budget(job.config.optim.tokens_per_micro_batch), engine.accumulation():
        for batch in batches.batches:
            batch = batch.to(world.device)
            with clock("forward"):
                policy, reference = engine(batch)
                losses, report = job.objective(policy, reference)
                # Mean over the global batch: the engine averages over ranks, so ranks / slots; fillers weigh 0.
                loss = (losses * batch.weight).sum() * (world.size / batches.slots)
            with clock("backward"):
                engine.backward(loss)
            tally.add({"loss": losses.detach(), **report}, batch.weight)
            clock.count(tokens=batch.llm_tokens, pairs=len(batch.weight))
    with clock("step"):
        return engine.step(lr)


@contextmanager
def naming_the_budget(tokens: int) -> Iterator[None]:
    """Turns running out of memory into a UserError that says what to lower."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise UserError(
            f"Out of memory ({str(error).strip().splitlines()[0]}). optim.tokens_per_micro_batch is {tokens}: halve it until a "
            "step fits (results do not depend on it); optim.recompute=all saves more, and ZeRO-3 on more ranks "
            "shards the model further."
        ) from None


def position_of(job: Job) -> Position:
    """Where ``job`` stands before its first step."""
    return Position(
        step=0,
        epoch=0,
        pairs=0,
        seed=job.config.run.seed,
        global_batch=job.order.global_batch,
        steps=job.steps,
        data=job.train.shards.digest,
        order=ORDER_VERSION,
        tune=job.config.model.tune,
        bad={},
    )


def validate(session: Session, step: int) -> None:
    """The metrics of the validation pairs into the log."""
    summary = compare(session, session.job.config.data.validation)[0]
    session.board.write(step, {f"validation/{name}": value for name, value in summary["after"].items()})


def compare(session: Session, specs: tuple[str, ...]) -> tuple[dict[str, Any], Any, Split]:
    """(summary, scores, split) of the pairs of ``specs`` under the reference (before) and the policy (after)."""
    job, engine, world = session.job, session.engine, session.world
    split, progress = session.split(specs), Progress.over(world.is_main)
    loader = evaluation_loader(split, job, world, job.config.evaluate.max_pairs, session.references.get(specs))
    engine.train(False)
    scores = score_pairs(engine, progress(loader, "scoring pairs"), world)
    engine.train()
    return summarise(scores, {i: split.shards.read_text(i).contrast for i in scores.index.tolist()}), scores, split


def finish(session: Session, folder: RunFolder) -> None:
    """What was learned, on disk, and what it changed on the held-out pairs."""
    from .run_folder import draw_samples, save_tuned

    job, tuned, world, board = session.job, session.tuned, session.world, session.board
    weights = save_tuned(folder, tuned, session.engine, job.config, world)
    lines = [f"{'adapter' if tuned.wrapped else 'model'}:      {weights}"]
    if job.config.data.heldout:
        summary, scores, split = compare(session, job.config.data.heldout)
        if world.is_main:
            (folder.path / "heldout.json").write_text(json.dumps(summary, indent=1))
            lines.insert(0, table(summary, "held-out pairs, before and after training") + "\n")
            if job.config.evaluate.pictures:
                picture = draw_samples(folder, split.shards, scores, job.config.evaluate.pictures)
                board.picture("samples", picture, job.steps)
                lines.append(f"pictures:     {picture}")
    lines += [
        f"TensorBoard:  tensorboard --logdir {folder.path / 'tensorboard'}",
        f"metrics:      {folder.path / 'metrics.jsonl'}",
    ]
    if world.is_main:
        folder.finished(job.steps)
    board.note("\n" + "\n".join(lines), out=sys.stdout)
