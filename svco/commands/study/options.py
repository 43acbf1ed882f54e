"""The options of ``svco study``."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from ...basics.errors import UserError
from ...basics.intervals import whole
from ...basics.shipped import at_home
from .spec import STAGES


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``study`` takes."""
    parser.description = (
        "Trains and evaluates every (method, data, seed) of a study through svco train and svco eval, after trials that choose "
        "each method's settings on the validation set, and writes the tables. What is finished is not run again: the same "
        "command goes on with a study that was stopped."
    )
    parser.add_argument(
        "--recipe",
        default="study_tiny",
        metavar="FILE",
        help="study YAML, a file or the name of one that comes with svco (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="the study's shorter form, its section 'quick'")
    parser.add_argument(
        "--root", type=at_home, metavar="DIR", help="folder of the study (default: the recipe's 'root')"
    )
    parser.add_argument(
        "--jobs",
        type=whole(0, 100_000),
        default=0,
        metavar="N",
        help="tasks at a time (default: one a core without a launcher, else 1); with --submit: jobs of an array at a time "
        "(default: no limit)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="GROUP", help="only this group's cells; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the tasks; with --submit: the lines for sbatch")
    parser.add_argument(
        "--collect", action="store_true", help="say what is missing, and write tables and figures of the rest"
    )
    parser.add_argument(
        "--submit", action="store_true", help="submit to SLURM: one array of trials, one of cells behind it"
    )
    parser.add_argument(
        "--sbatch",
        default="",
        metavar="OPTIONS",
        help="with --submit: further options for sbatch, as one word: --sbatch='--partition=gpu --time=2:00:00'",
    )
    parser.add_argument("--stage", choices=STAGES, help="only this stage")
    parser.add_argument(
        "--task", type=whole(), metavar="N", help="with --stage: only its task N, what one job of an array runs"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs, lists, submits or collects the study; 0, 75 when something is left to do, 1 when a task failed."""
    from .spec import load_study

    study = load_study(arguments.recipe, arguments.quick)
    study = replace(study, root=arguments.root or at_home(study.root))
    if unknown := sorted(set(arguments.only) - {group.name for group in study.groups}):
        raise UserError(
            f"There is no group {unknown[0]!r} in {arguments.recipe}; it has {', '.join(group.name for group in study.groups)}."
        )
    if arguments.task is not None and arguments.stage not in ("trials", "cells"):
        raise UserError("--task needs --stage trials or --stage cells.")
    from . import conduct

    if arguments.submit:
        jobs_by_default = 0
    elif study.launch or arguments.task is not None:
        jobs_by_default = 1
    else:
        jobs_by_default = os.cpu_count() or 1
    how = conduct.How(
        jobs=arguments.jobs or jobs_by_default,
        only=tuple(arguments.only),
        stages=(arguments.stage,) if arguments.stage else STAGES,
        task=arguments.task,
    )
    if arguments.submit:
        from .slurm import submit

        return submit(study, how, arguments.recipe, arguments.quick, arguments.sbatch, arguments.dry_run)
    if arguments.dry_run:
        return conduct.show(study, how)
    if arguments.collect:
        return conduct.tell(study, how)
    return conduct.conduct(study, how)
