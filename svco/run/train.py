"""The story of a run: resolve, load, fit, compare before with after."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import engine as engines
from ..basics.dist import World, naming_lost_ranks
from ..basics.errors import RESUBMIT, Stopped, UserError
from ..basics.files import write_whole
from ..basics.progress import shown
from ..basics.strict_json import json_text
from ..batches.loader import naming_lost_workers
from ..engine.optimizer import learning_rate
from ..model.load import load_tuned, outline, resolve_dtype
from ..model.recompute import RecomputeDial
from ..recipe.ds_config import fill
from ..recipe.limits import get, kinds
from ..recipe.paper import deviations
from ..record.board import METRICS_FILE, TENSORBOARD, Board
from ..record.checkpoint import Checkpoints
from ..record.identity import Identity
from ..record.manifest import Position, best_of, save_seconds
from ..record.state import Heartbeat
from ..scores.before_after import table
from .clock import Clock
from .describe import describe, dry_run_text
from .folder import RunFolder
from .health import BadWatch, Watches
from .job import Job, make_job
from .launch import Launch
from .resuming import ResumePoint, resume_point
from .session import Session
from .skipping import SkipWatch
from .step import take_step
from .stopping import StopRequests
from .tally import Tally

if TYPE_CHECKING:
    import torch


def run(launch: Launch, world: World, stops: StopRequests | None = None) -> Path | None:
    """Runs a recipe from start to the table at its end, or until ``stops`` hears that it should stop. Called on every rank; the
    run's folder, or None of a dry run."""
    config = launch.config
    dtype = resolve_dtype(config.model, world.device)
    ds = None
    if launch.ds is not None:
        name = str(dtype).removeprefix("torch.")
        ds = fill(dict(launch.ds), config, world.size, name, launch.ds_path, world.local_size)
    elif world.size > 1:
        raise UserError(
            f"Without a DeepSpeed config one process runs, but the launcher started {world.size}. Give one, e.g. "
            "ds_configs/zero3.json."
        )
    job = make_job(config, world, shown(world.is_main))
    if launch.dry_run:
        if world.is_main:
            print(dry_run_text(job, world, ds, dtype))
        return None
    outlined = partial(outline, config, job.family, dtype)
    with RunFolder.open(config, launch.recipe, world) as folder:
        with naming_lost_ranks():
            point = resume_point(job, folder, dtype, world)
        with (
            Heartbeat(folder.path, world.is_main, world.size, launch.command, config.run.timeout_minutes) as heartbeat,
            naming_lost_ranks(),
            naming_lost_workers(),
            engines.swapping(ds, outlined, folder.path.name, job.reference, world) as ds,
        ):
            load_and_fit(job, folder, point, ds, dtype, world, stops or StopRequests(world), heartbeat)
    return folder.path


def load_and_fit(
    job: Job,
    folder: RunFolder,
    point: ResumePoint,
    ds: dict[str, Any] | None,
    dtype: torch.dtype,
    world: World,
    stops: StopRequests,
    heartbeat: Heartbeat,
) -> None:
    """Loads the model, begins or resumes, and runs to the end."""
    config, checkpoints, before = job.config, point.checkpoints, point.before
    heartbeat.tell(doing="loading the model", step=before.step if before else 0, steps=job.steps)
    with engines.loading(ds):
        tuned = load_tuned(config, job.family, dtype, job.reference, world.device, progress=world.is_main)
    engine = engines.make_engine(tuned, config.optim, world, ds, point.folder)
    stops.saved(0.0 if point.folder is None else save_seconds(point.folder))
    # Everything is accepted: only now is anything in the folder replaced.
    folder.describe(config, world, ds)
    aside = checkpoints.set_aside(before.step) if before else []
    told = {key: get(config, key) for key, _ in kinds()}
    board = Board(folder.path, world.is_main, before.step if before else 0, config.run.report_to, told)
    board.note(f"run {folder.path}\n{describe(job, world)}")
    board.note(deviations(config, dtype))
    board.note(f"attention: {tuned.attention} ({tuned.why_attention})")
    if not tuned.scorer.narrows:
        board.note("last layer: all rows of it, since its queries are no linear layer of their own")
    board.note("\n".join(f"changed deliberately: {line}" for line in point.changes))
    board.note(f"set aside, later than where the run goes on: {', '.join(aside)}" if aside else "")
    session = Session(job, tuned, engine, world, board, stops, heartbeat, folder)
    try:
        session.precompute(resumed=before is not None)
        fit(session, checkpoints, before)
        finish(session, checkpoints.identity)
    except Stopped as stopped:
        board.note(
            f"\nstopped: {stopped}. Exit code {RESUBMIT}; to continue: the same command with run.resume=auto "
            f"run.name={folder.path.name}"
        )
        raise
    finally:
        board.close()


def fit(session: Session, checkpoints: Checkpoints, before: Position | None) -> None:
    """The train loop: steps of global batches of micro-batches. Raises Stopped, after a save, when the ranks agree to stop."""
    job, engine, world, board, stops = session.job, session.engine, session.world, session.board, session.stops
    config = job.config
    start = job.position if before is None else before
    clock, tally = Clock(world.device), Tally()
    watches = Watches(config.objective, world.is_main, board.lines())
    bads = BadWatch(config.data.max_bad_fraction, start.bad, job.verify_command)
    skips = SkipWatch(session.folder.path, config.optim, world, start.step)
    pairs = start.pairs
    dial = RecomputeDial(session.tuned.scorer, config.optim, world, job.largest_pack(world))

    # A validation that a stop cut short is made up for.
    if before is not None and session.validates(before.step) and not world.broadcast(board.validated(before.step)):
        stop, score = session.validate(before.step)
        checkpoints.judge(before.step, score)
        if stop:
            raise Stopped(stop)
    session.begin("training")
    engine.train()
    loader = job.loader(world, start.step, session.references.get("train"))
    for part in clock.over("data", board.progress(loader, start.step, job.steps)):
        step = part.step + 1
        lr = learning_rate(config.optim, part.step, job.steps)
        taken = take_step(job, engine, world, part, lr, clock, tally)
        watches.stepped(taken.norm)
        skips.add(step, taken, engine.scaled, at_end=step == job.steps)
        board.note(dial.settle())
        pairs += part.slots
        bads.add(part.bad)
        stop = stops.agreed()
        session.heartbeat.step(step, stop)
        saving = bool(stop) or job.due(step, config.checkpoint.every)
        # The step of a checkpoint, or of what may become one, is logged: what is being averaged never spans a resume.
        if saving or session.validates(step) or job.due(step, config.run.log_every):
            bads.check(world.sum(bads.take()), pairs, at_end=step == job.steps)
            metrics = tally.reduce(world) | watches.norms() | {"lr": lr, "epoch": part.epoch, "pairs": pairs}
            metrics |= {"imbalance": part.imbalance, "skipped": skips.total} | watches.add(metrics, step)
            board.write(step, metrics | bads.metrics() | clock.lap(world))
        score = None
        if session.validates(step) and not stop:
            stop, score = session.validate(step)
            saving = saving or (score is not None and checkpoints.improves(score))
        if saving or stop:
            here = replace(start, step=step, epoch=part.epoch, pairs=pairs, bad=dict(bads.counts))
            session.save(checkpoints, here, score)
        if stop:
            raise Stopped(stop)


def finish(session: Session, identity: Identity) -> None:
    """What was learned, on disk with the run's ``identity``, and what it changed on the held-out pairs."""
    from .outcome import describe_tuned, draw_samples, keep_scores, save_tuned, show_samples

    job, tuned, world, board, folder = session.job, session.tuned, session.world, session.board, session.folder
    session.heartbeat.tell(doing="exporting")
    session.check_before_writing()
    weights = save_tuned(folder, tuned, session.engine, job.config, world, identity)
    lines = [f"{'adapter' if tuned.wrapped else 'model'}:      {weights}"]
    results: dict[str, float] = {}
    if "heldout" in job.splits:
        summary, scores, split = session.compare("heldout")
        if world.is_main:
            write_whole(folder.path / "heldout.json", json_text(summary, indent=1))
            results = {f"heldout/{name}": value for name, value in summary["after"].items()}
            kept = keep_scores(folder, split.shards, scores)
            lines.insert(0, table(summary, "held-out pairs, before and after training") + "\n")
            if job.config.evaluate.pictures:
                picture = draw_samples(folder, split.shards, kept, job.config.evaluate.pictures)
                show_samples(board, picture, job.steps)
                lines.append(f"pictures:     {picture}")
    if best := best_of(folder.path / "checkpoints", job.config.checkpoint.keep_best):
        lines.append(f"best:         {best[0].name}, {best[1]}: svco export {folder.path} --checkpoint best")
    if TENSORBOARD in job.config.run.report_to:
        lines.append(f"TensorBoard:  tensorboard --logdir {folder.path / TENSORBOARD}")
    lines += [
        f"metrics:      {folder.path / METRICS_FILE}",
        f"to look at:   svco report {folder.path}",
    ]
    board.finish(job.steps, results or board.last_numbers())
    if world.is_main:
        describe_tuned(folder, weights)
    board.note("\n" + "\n".join(lines), out=sys.stdout)
