"""A study as jobs of SLURM: its data, an array of its trials, and an array of its cells behind them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.shipped import located
from ...basics.strict_json import json_text
from .cells import cell_count, cell_tasks, trial_tasks
from .conduct import How, first_of_run
from .sources import missing
from .spec import Study

SCRIPT = "launchers/study.slurm"
JOBS = "jobs.json"
"""Numbers of the jobs that were submitted last, in the folder ``slurm`` of the study."""


def submit(study: Study, how: How, recipe: str, quick: bool, options: str = "", dry: bool = False) -> int:
    """Submits what is not finished: a job a stage, each behind the one before; ``dry`` only prints the lines. Exit code 0.

    ``options``: of sbatch, for every job; they win over those of the script. ``how.jobs``: elements of an array that run at a
    time, 0 for no limit. UserError without sbatch, for what sbatch refuses, and while jobs of this study are still queued.
    """
    common = _words(study, how, recipe, quick)
    stages = [(stage, array) for stage, array in _stages(study, how) if stage in how.stages]
    if not dry and stages:
        _ready(study)
    jobs: dict[str, str] = {}
    for stage, array in stages:
        # Data, then trials, then cells: who waits for the last needs not wait for those before it.
        after = next(reversed(jobs.values()), None)
        line = _line(study, how, stage, array, options, after, common)
        print(shlex.join(line), flush=True)
        jobs[stage] = f"{stage.upper()}_JOB" if dry else _sbatch(line, jobs)
        if not dry:
            print(f"  {stage}: job {jobs[stage]}", flush=True)
            write_whole(_folder(study) / JOBS, json_text(list(jobs.values())) + "\n")
    if not stages:
        print("Everything is finished.")
    print(f"to collect: {shlex.join(['svco', 'study', *common, '--collect'])}")
    return 0


def _words(study: Study, how: How, recipe: str, quick: bool) -> list[str]:
    """What names the study on its command line."""
    words = ["--recipe", str(recipe), *(["--quick"] if quick else []), "--root", study.root]
    return words + [word for group in how.only for word in ("--only", group)]


def _stages(study: Study, how: How) -> Iterable[tuple[str, str]]:
    """(stage, elements of its array as sbatch writes them, empty for no array) of what is not finished."""
    if missing(study):
        yield "data", ""
    trials = trial_tasks(study, how.only)
    if left := [number for number, task in enumerate(trials) if not task.finished]:
        yield "trials", spans(left)
        # Which cells there are is known, which settings they have is not.
        yield "cells", spans(range(cell_count(study, how.only)))
        return
    cells = cell_tasks(study, how.only)
    if left := sorted({first_of_run(cells, number) for number, task in enumerate(cells) if not task.finished}):
        yield "cells", spans(left)


def spans(numbers: Iterable[int]) -> str:
    """Ascending numbers as sbatch writes them: ``0,3,7-9``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _line(
    study: Study, how: How, stage: str, array: str, options: str, after: str | None, common: Sequence[str]
) -> list[str]:
    log = "%x-%A_%a.log" if array else "%x-%j.log"
    line = ["sbatch", "--parsable", f"--job-name=svco-{study.name}-{stage}", f"--output={_folder(study) / log}"]
    line += [] if array else ["--gpus-per-node=0"]
    line += shlex.split(options)
    line += [f"--array={array}{f'%{how.jobs}' if how.jobs else ''}"] if array else []
    # A stage whose predecessor failed would wait for ever.
    line += [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []
    return [*line, located(SCRIPT), *common, "--stage", stage]


def _folder(study: Study) -> Path:
    return Path(study.root) / "slurm"


def _ready(study: Study) -> None:
    """Makes the folder of the logs, without which SLURM ends a job unheard; UserError for what stands in the way."""
    _folder(study).mkdir(parents=True, exist_ok=True)
    try:
        before = json.loads((_folder(study) / JOBS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    # %F: the number of an element's array.
    queued = _call(["squeue", "--me", "--noheader", "--format=%F"]).split()
    if busy := [job for job in before if job in queued]:
        raise UserError(
            f"Jobs {', '.join(busy)} of this study are still queued or running, and would be run twice. Wait for them, or end "
            f"them first: scancel {' '.join(busy)}"
        )


def _sbatch(line: Sequence[str], before: dict[str, str]) -> str:
    """The number of the job that ``line`` submits."""
    try:
        return _call(line).strip().partition(";")[0]  # number;cluster
    except UserError:
        if before:
            print(f"already submitted: scancel {' '.join(before.values())}", file=sys.stderr)
        raise


def _call(line: Sequence[str]) -> str:
    try:
        done = subprocess.run(line, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"There is no {line[0]} here: --submit needs a machine from which SLURM jobs are submitted. --dry-run --submit shows "
            "the lines; without --submit the study runs here."
        ) from None
    if done.returncode:
        raise UserError(f"{line[0]} refused: {done.stderr.strip()} It was asked: {shlex.join(line)}")
    return done.stdout
