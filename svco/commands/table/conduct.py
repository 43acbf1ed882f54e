"""A table from its models and benchmarks to its page: evaluated where they are not, judged where that is asked for, and told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...basics.errors import RESUBMIT, UserError
from ...basics.files import writing
from ...basics.progress import shown
from ...basics.ranks import PROGRAM
from ...record.lock import FolderLock
from ..evaluation.benchmarks.table import BENCHMARKS
from ..judge.command import Wanted as Judging
from ..judge.command import judge
from ..study.run import LOG, Children
from .by_harness import evaluate_by
from .figures import Evaluated
from .models import Model, models_of
from .pages import write_table
from .wanted import Wanted

_LOG_TAIL = 12
"""Lines of a failed evaluation that are shown."""


def conduct(wanted: Wanted, say: Callable[[str], None] = print) -> int:
    """Makes the table; 0, 1 where an evaluation failed, 75 when it was stopped: the same command goes on. UserError for what
    cannot be begun, and, after the page is written, where a judge's price waits to be agreed to."""
    with writing(wanted.out):
        wanted.out.mkdir(parents=True, exist_ok=True)
    with FolderLock(wanted.out) as lock:
        if not lock.take():
            raise UserError(f"Another svco table is at work in {wanted.out}. Wait for it, or give another --out.")
        return _conduct(wanted, say)


def _conduct(wanted: Wanted, say: Callable[[str], None]) -> int:
    children = Children()
    heard = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, children.stop) for number in heard}
    try:
        models = _evaluate(wanted, children, say)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    unjudged: UserError | None = None
    if wanted.judge and not children.stopping:
        try:
            _judge(wanted.judge, models, wanted.out, say)
        except UserError as error:
            unjudged = error
    for file in write_table(models, wanted, say):
        say(f"table: {file}")
    if children.stopping:
        say("stopped: the same command goes on")
        return RESUBMIT
    if unjudged:
        raise unjudged
    return 1 if any(model.failed for model in models) else 0


def _evaluate(wanted: Wanted, children: Children, say: Callable[[str], None]) -> list[Evaluated]:
    """The models with their evaluations, those that were not there made now. A release that cannot be read keeps back
    no other."""
    root, found = wanted.out / "evaluations", []
    models = models_of(wanted.base, wanted.runs, say)
    for model in models:
        digest = model.digest(dict(wanted.settings), wanted.cache)
        told = {"base": model.base, "adapter": model.adapter and str(model.adapter), "weights": digest}
        found.append(Evaluated(model.name, root / f"{Path(model.name).name}-{digest[:10]}", told))
    problems = {}
    for name in [name for name in wanted.benchmarks if not all(one.has(name) for one in found)]:
        try:
            BENCHMARKS[name].read(wanted.benchmarks[name])
        except UserError as error:
            problems[name] = str(error)
    readable = replace(wanted, benchmarks={n: path for n, path in wanted.benchmarks.items() if n not in problems})
    rows = [_evaluated(model, one, readable, children, say) for model, one in zip(models, found, strict=True)]
    if wanted.beside:
        evaluate_by(wanted.beside, models, rows, children, os.cpu_count() or 1, say)
    return [replace(row, problems=problems) for row in rows]


def _evaluated(
    model: Model, found: Evaluated, wanted: Wanted, children: Children, say: Callable[[str], None]
) -> Evaluated:
    """``found`` of ``model`` with what was not there, made in processes of their own."""
    folder, root = found.folder, found.folder.parent
    left = [name for name in wanted.benchmarks if not found.has(name)]
    if not left or children.stopping:
        return found
    if not folder.exists() and (others := sorted(root.glob(f"{Path(model.name).name}-{'?' * 10}"))):
        say(
            f"{model.run or model.base} has other weights, or is evaluated otherwise, than in {others[-1]}: it is evaluated anew"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    say(f"evaluating {model.name} on {', '.join(left)}; log: {folder / LOG}")
    code = children.run(_line(model, wanted, folder), folder / LOG, os.cpu_count() or 1)
    if code and not children.stopping:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        print(f"\nfailed: {model.name} ({folder / LOG}):", *text.splitlines()[-_LOG_TAIL:], sep="\n", file=sys.stderr)
    return replace(found, failed=bool(code) and not children.stopping)


def _line(model: Model, wanted: Wanted, folder: Path) -> list[str]:
    """The command line that evaluates ``model`` on whatever is not there."""
    line = [sys.executable, str(PROGRAM), "eval", "--apart", "--out", str(folder), "--base", model.base]
    if model.adapter:
        line += ["--adapter", str(model.adapter)]
    if wanted.ranks:
        line += ["--ranks", str(wanted.ranks)]
    for name, path in wanted.benchmarks.items():
        line += ["--benchmark", f"{name}={path}"]
    for name, value in wanted.settings.items():
        if value is True:
            line.append(f"--{name}")
        elif value not in (None, False):
            line += [f"--{name}", str(value)]
    return [*line, *wanted.effort]


def _judge(how: Judging, models: Sequence[Evaluated], out: Path, say: Callable[[str], None]) -> None:
    judged = [name for name, benchmark in BENCHMARKS.items() if benchmark.judging]
    folders = tuple(model.folder / name for name in judged for model in models if model.has(name))
    if folders:
        judge(replace(how, folders=folders, cache=how.cache or out / "judge.sqlite"), shown(True), say)
