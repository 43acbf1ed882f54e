"""The tasks of a study: what is trained and evaluated, by which commands, into which folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.ranks import under
from ...basics.shipped import DS_CONFIGS, RECIPES, find
from ...basics.strict_json import json_text
from ...recipe.config import Config, DataConfig, ModelConfig
from ...recipe.read import load_recipe
from ...record.board import METRICS_FILE, last_line
from .sources import identity, shards_of
from .spec import Group, Settings, Study

BASE = "BASE"
CHOSEN_BY = "validation/pair_accuracy"


class TrialsMissing(UserError):
    """A cell's settings are not chosen yet."""


@dataclass(frozen=True)
class Command:
    """One process of a task."""

    name: str
    """``train`` or ``eval``; a file ``NAME.done`` in the task's folder says that it need not be run again."""
    line: tuple[str, ...]
    """The command."""


@dataclass(frozen=True)
class Task:
    """One row and seed of one group, one trial, or the base."""

    method: str
    """Method, or BASE."""
    data: str
    """Training set; empty for BASE."""
    seed: int
    """``run.seed``."""
    settings: Settings
    """Recipe keys, the study's and the method's together."""
    folder: Path
    """Where it keeps its log and what is done."""
    commands: tuple[Command, ...]
    """In order."""
    run: Path | None = None
    """The run's folder; None for BASE."""
    evaluation: Path | None = None
    """What svco eval writes; None for trials."""
    group: str = ""
    """Name of the group; empty for trials."""
    trial: Settings | None = None
    """What a trial tries."""

    @property
    def label(self) -> str:
        """Its name for people."""
        if self.trial is not None:
            return f"{self.method}, {self.data}: {in_words(self.trial)}"
        return f"{self.method}, {self.data}, seed {self.seed}" if self.data else self.method

    @property
    def finished(self) -> bool:
        return all((self.folder / f"{command.name}.done").exists() for command in self.commands)


def in_words(settings: Settings) -> str:
    """Settings in a few words: ``lr 0.001, beta 0.1``."""
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items())


def unique(tasks: Iterable[Task]) -> list[Task]:
    """Without repetitions: groups that ask the same of one run hold the same task."""
    return list({(task.folder, task.commands): task for task in tasks}.values())


def trial_tasks(study: Study, only: tuple[str, ...] = ()) -> tuple[Task, ...]:
    """A task for every trial of every method and data set whose choice some group (of ``only`` those named) reads."""
    groups = [group for group in study.groups if not only or group.name in only]
    pairs = dict.fromkeys((m, group.tuned_on or d) for group in groups for m, d in group.cells)
    return tuple(_trial(study, method, data, trial) for method, data in pairs for trial in study.trials_for(method))


def _trial(study: Study, method: str, data: str, trial: Settings) -> Task:
    settings = {**study.settings, **study.methods[method], **trial, "run.seed": study.trial_seed}
    settings |= {"data.train": shards_of(study, study.data[data]), "data.heldout": ()}
    settings |= {"data.validation": shards_of(study, study.validation)}
    folder = _place(study, "trials", method, data, settings, _sources(study, data, study.validation))
    run = _run_folder(study, folder)
    return Task(method, data, study.trial_seed, settings, folder, (_train(study, settings, run),), run, trial=trial)


def cell_tasks(study: Study, only: tuple[str, ...] = ()) -> tuple[Task, ...]:
    """BASE and every row and seed of every group (of ``only`` those named); UserError while a trial is missing."""
    return tuple(make() for make in _makers(study, only))


def known_cells(study: Study, only: tuple[str, ...] = ()) -> tuple[Task, ...]:
    """Those of :func:`cell_tasks` whose trials are finished."""
    found = []
    for make in _makers(study, only):
        with suppress(TrialsMissing):
            found.append(make())
    return tuple(found)


def cell_count(study: Study, only: tuple[str, ...] = ()) -> int:
    """How many :func:`cell_tasks` are, whatever the trials say."""
    return sum(1 for _ in _makers(study, only))


def _makers(study: Study, only: tuple[str, ...]) -> Iterator[Callable[[], Task]]:
    """What makes each cell, in an order that the trials do not change: an element of an array keeps its number."""
    # Seed by seed: a study that is stopped has every row at fewer seeds, not fewer rows.
    for group in study.groups:
        if only and group.name not in only:
            continue
        yield partial(_base_task, study, group)
        for seed in study.seeds:
            for method, data in group.cells:
                yield partial(_cell, study, group, method, data, seed)


def _base_task(study: Study, group: Group) -> Task:
    config = load_recipe(study.recipe, _overrides(study.settings))
    folder = _place(study, "base", BASE, group.name, {"model": config.model.base}, _tests(study, group))
    evaluate = _evaluate(study, group, folder / "eval", config.model.base, None, config)
    return Task(BASE, "", 0, {}, folder, (evaluate,), None, folder / "eval", group.name)


def _cell(study: Study, group: Group, method: str, data: str, seed: int) -> Task:
    settings = {**study.settings, **study.methods[method], **choice(study, method, group.tuned_on or data)}
    settings |= {"run.seed": seed, "data.train": shards_of(study, study.data[data])}
    settings |= {"data.heldout": (), "data.validation": ()}
    if group.compute_of:
        settings["optim.steps"] = equal_steps(study, group.compute_of, settings)
    folder = _place(study, "cells", method, data, settings, _sources(study, data, study.data[data]))
    run, config = _run_folder(study, folder), load_recipe(study.recipe, _overrides(settings))
    full = config.model.tune == "full"
    evaluation = folder / _place(study, "eval", group.name, "", {}, _tests(study, group)).name
    model, adapter = (str(run / "model"), None) if full else (config.model.base, run / "adapter")
    evaluate = _evaluate(study, group, evaluation, model, adapter, config)
    commands = (_train(study, settings, run), evaluate)
    return Task(method, data, seed, settings, folder, commands, run, evaluation, group.name)


def _place(study: Study, stage: str, method: str, data: str, settings: Settings, sources: Any) -> Path:
    """A folder whose name changes with everything that decides what is in it."""
    ds = study.ds if study.ds == "none" else _digest(find(study.ds, DS_CONFIGS, "DeepSpeed config"))
    deciding = {
        "recipe": _digest(find(study.recipe, RECIPES, "recipe file")),
        "settings": settings,
        "sources": sources,
        "ds": ds,
    }
    digest = hashlib.sha256(json_text(deciding, sort_keys=True, default=list).encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "-", f"{method} {data}".lower()).strip("-")
    seed = f"-s{settings['run.seed']}" if "run.seed" in settings else ""
    return Path(study.root) / stage / f"{words}{seed}-{digest}"


@cache
def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{file}, which the study names, cannot be read: {error.strerror}.") from None


def _sources(study: Study, data: str, other: Any) -> Any:
    return [identity(study, study.data[data]), identity(study, other)]


def _tests(study: Study, group: Group) -> Any:
    tests = {name: identity(study, study.tests[name]) for name in group.tests}
    return [tests, group.generate, study.benchmarks if group.kind == "methods" else {}]


def _run_folder(study: Study, folder: Path) -> Path:
    """All runs of a study have one root: they share its cached references."""
    return Path(study.root) / "runs" / f"{folder.parent.name}-{folder.name}"


def _train(study: Study, settings: Settings, run: Path) -> Command:
    fixed = [f"run.root={run.parent}", f"run.name={run.name}"]
    line = [*under(study.launch, "train"), "--ds", study.ds, "--recipe", study.recipe]
    return Command("train", (*line, *_overrides(settings), *fixed, "run.resume=auto"))


def _evaluate(study: Study, group: Group, folder: Path, model: str, adapter: Path | None, config: Config) -> Command:
    line = [*under(study.launch, "eval"), "--base", model, "--out", str(folder)]
    line += _as_trained(config)
    line += ["--adapter", str(adapter)] if adapter else []
    for name in group.tests:
        for spec in shards_of(study, study.tests[name]):
            line += ["--set", f"{name}={spec}"]
    if group.generate:
        line += ["--generate", str(group.generate), "--generate-on", group.tests[0]]
    if group.kind == "methods":
        for name, place in study.benchmarks.items():
            line += ["--benchmark", f"{name}={place}"]
    return Command(folder.name, tuple(line))


def _as_trained(config: Config) -> list[str]:
    """Options of svco eval for what a run's recipe says of reading pairs; nothing for defaults."""
    options = (
        ("--dtype", config.model.dtype, ModelConfig.dtype),
        ("--quantise", config.model.quantise, ModelConfig.quantise),
        ("--attention", config.model.attention, ModelConfig.attention),
        ("--max-text-tokens", config.data.max_text_tokens, DataConfig.max_text_tokens),
        ("--cache", config.data.cache_dir, DataConfig.cache_dir),
        ("--allow-overlap", config.data.allow_overlap, DataConfig.allow_overlap),
    )
    words = []
    for option, value, default in options:
        if value != default:
            words += [option, str(value)]
    return words + (["--paper-compat"] if config.model.paper_compat else [])


def _overrides(settings: Settings) -> list[str]:
    return [f"{key}={json_text(value, default=list)}" for key, value in settings.items()]


def choice(study: Study, method: str, data: str) -> Settings:
    """The trial of ``method`` on ``data`` with the best validation pair accuracy; of equal ones the first."""
    trials = study.trials_for(method)
    if not trials:
        return {}
    scores = [trial_score(_trial(study, method, data, trial)) for trial in trials]
    found = [score for score in scores if score is not None]
    if len(found) < len(scores):
        raise TrialsMissing(
            f"The trials of {method} on {data} are not finished, and they choose its settings. Run the study's stage 'trials' "
            "first (svco study without --stage does both)."
        )
    return trials[scores.index(max(found))]


def trial_score(task: Task) -> float | None:
    """The validation pair accuracy at the end of a trial, or None while it is not finished; −∞ of one that ended without."""
    if task.run is None or not task.finished:
        return None
    found = last_line(task.run / METRICS_FILE).get(CHOSEN_BY)
    return float("-inf") if found is None else found


def equal_steps(study: Study, method: str, settings: Settings) -> int:
    """Steps in which ``settings`` take as many FLOPs as ``method`` does in the study's own."""
    theirs = {**study.settings, **study.methods[method], "data.train": settings["data.train"]}
    config = load_recipe(study.recipe, _overrides(theirs))
    steps = config.optim.steps
    if not steps:
        raise UserError("A group with 'compute_of' needs optim.steps among the study's settings.")
    return max(1, round(steps * pair_flops(study, theirs) / pair_flops(study, settings)))


def pair_flops(study: Study, settings: Settings) -> float:
    """FLOPs of an average training pair, without those of a cached reference."""
    # Only what decides the FLOPs: rows that differ in seed or learning rate share what is computed.
    deciding = {k: v for k, v in settings.items() if k.startswith(("objective", "model", "lora", "data"))}
    return _flops(study.recipe, tuple(_overrides(deciding)))


@cache
def _flops(recipe: str, overrides: tuple[str, ...]) -> float:
    from ..plan.flops import flops
    from ..plan.question import Assumed, ask

    question = ask(recipe, load_recipe(recipe, overrides), Assumed())
    return flops(question.architecture, question.tuning, question.pair, 0, False).total
