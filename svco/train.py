"""The story of a run: resolve, load, fit, compare before with after."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from .model import Tuned, load_tuned, resolve_dtype
from .optimizer import learning_rate
from .order import ORDER_VERSION
from .run_folder import RunFolder
from .tally import Tally
from .watch import BadWatch, MatchWatch

if TYPE_CHECKING:
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
        else fill(dict(launch.ds), config, world.size, str(dtype).removeprefix("torch."), launch.ds_path)
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
    with engines.loading(ds):
        tuned = load_tuned(config, job.family, dtype, progress=world.is_main)
    engine = engines.make_engine(tuned, config.optim, world, ds, resume)
    before = None if resume is None else read_position(resume)
    board = Board(folder.path, enabled=world.is_main, start=before.step if before else 0)
    board.note(f"run {folder.path}\n{describe(job, world)}")
    try:
        fit(job, engine, world, board, checkpoints, before)
        finish(job, tuned, engine, world, board, folder)
    finally:
        board.close()


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


def fit(
    job: Job, engine: Engine, world: World, board: Board, checkpoints: Checkpoints, before: Position | None
) -> None:
    """The train loop: steps of global batches of micro-batches."""
    config = job.config
    start = position_of(job) if before is None else before
    start.check(position_of(job), checkpoints.folder)
    clock, tally, matches = Clock(world.device), Tally(), MatchWatch(world.is_main)
    bads = BadWatch(config.data.max_bad_fraction, start.bad)
    pairs = start.pairs

    def due(step: int, every: int) -> bool:
        return step == job.steps or (every > 0 and step % every == 0)

    engine.train()
    loader = board.progress(job.loader(world, start.step), start.step, job.steps)
    for batches in clock.over("data", loader):
        step = batches.step + 1
        lr = learning_rate(config.optim, batches.step, job.steps)
        norm = take_step(job, engine, world, batches, lr, clock, tally)
        pairs += batches.slots
        bads.add(batches.bad)
        saving = due(step, config.checkpoint.every)
        # A checkpoint's step is always logged, so that what is being averaged never spans one.
        if saving or due(step, config.run.log_every):
            bads.check(world.sum(bads.take()), pairs, at_end=step == job.steps)
            metrics = tally.reduce(world) | {"grad_norm": float(norm), "lr": lr, "epoch": batches.epoch, "pairs": pairs}
            board.write(step, metrics | bads.metrics() | clock.lap(world))
            matches.add(metrics, step)
        if config.data.validation and due(step, config.evaluate.every):
            validate(job, engine, world, board, step)
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
            "step fits (results do not depend on it); optim.gradient_checkpointing=true saves more, and ZeRO-3 on more "
            "ranks shards the model further."
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


def validate(job: Job, engine: Engine, world: World, board: Board, step: int) -> None:
    """The metrics of the validation pairs into the log."""
    summary = compare(job, engine, world, job.config.data.validation)[0]
    board.write(step, {f"validation/{name}": value for name, value in summary["after"].items()})


def compare(job: Job, engine: Engine, world: World, specs: tuple[str, ...]) -> tuple[dict[str, Any], Any, Split]:
    """(summary, scores, split) of the pairs of ``specs`` under the reference (before) and the policy (after)."""
    progress = Progress.over(world.is_main)
    split = Split.open(specs, job.family, cache_dir(job.config), world, progress)
    loader = evaluation_loader(split, job, world, job.config.evaluate.max_pairs)
    engine.train(False)
    scores = score_pairs(engine, progress(loader, "scoring pairs"), world)
    engine.train()
    return summarise(scores, {i: split.shards.read_text(i).contrast for i in scores.index.tolist()}), scores, split


def finish(job: Job, tuned: Tuned, engine: Engine, world: World, board: Board, folder: RunFolder) -> None:
    """What was learned, on disk, and what it changed on the held-out pairs."""
    from .run_folder import draw_samples, save_tuned

    weights = save_tuned(folder, tuned, engine, job.config, world)
    lines = [f"{'adapter' if tuned.wrapped else 'model'}:      {weights}"]
    if job.config.data.heldout:
        summary, scores, split = compare(job, engine, world, job.config.data.heldout)
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
