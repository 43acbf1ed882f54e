"""The options of ``svco table``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ...basics.errors import UserError
from ...basics.intervals import whole
from ...basics.shipped import at_home, typed
from ...recipe.config import Dtype
from ..evaluation.options import add_benchmarks
from ..evaluation.quantise import add_quantise, asked_quantise
from ..judge.options import add_judging

if TYPE_CHECKING:
    from .by_harness import Beside

PAPER = ("auto", "llava-1.5", "interleave", "both", "none")
"""Whose rows may stand beside."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds what ``table`` takes."""
    parser.description = (
        "The paper's table: nine columns and TOTAL of a base and of runs, with errors and paired tests, the paper's own rows "
        "beside them. Evaluates what is not evaluated yet, each model in processes of its own; the same command goes on "
        "where it was stopped. Nothing is downloaded: what is not there is a gap, with the line that fetches it."
    )
    parser.add_argument("--base", required=True, help="folder or hub id of the base")
    parser.add_argument(
        "--run", action="append", default=[], type=typed, dest="runs", metavar="DIR", help="a run; may be given again"
    )
    add_benchmarks(parser)
    parser.add_argument("-o", "--out", type=typed, required=True, metavar="DIR", help="folder of the table")
    parser.add_argument(
        "--paper",
        choices=PAPER,
        default="auto",
        help="the paper's rows beside: of its model that the base's name says, else of both (auto)",
    )
    _add_evaluation(parser)
    _add_harness(parser)
    judge = parser.add_argument_group("the judge of MMHal-Bench, MM-Vet and LLaVA-Bench-W (see svco judge)")
    judge.add_argument("--judge", metavar="MODEL", help="its name, as the endpoint knows it (default: nobody judges)")
    add_judging(judge, "judge.sqlite in --out")


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ranks", type=whole(1, 1_000_000), metavar="N", help="processes of an evaluation (default: one for each GPU)"
    )
    parser.add_argument("--dtype", default="auto", choices=get_args(Dtype), help="of the weights")
    add_quantise(parser)
    parser.add_argument(
        "--max-new-tokens",
        type=whole(1, 1_000_000),
        help="tokens of an answer (default: 64; 1,024 of one that is judged)",
    )
    parser.add_argument("--paper-compat", action="store_true", help="evaluate as the S-VCO authors do (see svco eval)")
    parser.add_argument("--tokens-per-batch", type=whole(1), default=16384, help="of a forward pass on a rank")
    parser.add_argument(
        "--answers-per-batch", type=whole(1), default=16, help="generated side by side (default %(default)s)"
    )
    parser.add_argument(
        "--digests",
        type=at_home,
        default="",
        metavar="DIR",
        help="where digests of weights are remembered (default: ~/.cache/svco)",
    )


def _add_harness(parser: argparse.ArgumentParser) -> None:
    harness = parser.add_argument_group("figures of another harness beside, in an environment of its own")
    harness.add_argument(
        "--harness", choices=("lmms-eval",), help="launchers/install/lmms_eval.sh makes its environment"
    )
    harness.add_argument("--harness-env", type=at_home, metavar="DIR", help="that environment")
    harness.add_argument(
        "--harness-task",
        action="append",
        default=[],
        metavar="NAME",
        help="a benchmark; may be given again (default: mmvp)",
    )
    harness.add_argument(
        "--harness-data",
        type=typed,
        metavar="DIR",
        help="its data sets under their hub names: DIR/lmms-lab-eval/MMVP/data/*.parquet (default: those in the hub's cache)",
    )
    harness.add_argument("--harness-online", action="store_true", help="it may fetch data sets")


def _beside(arguments: argparse.Namespace) -> Beside | None:
    """What is asked of the harness; UserError for half of it."""
    from ..evaluation.benchmarks.table import known
    from ..harness.running import Harness
    from .by_harness import Beside

    if not arguments.harness:
        for name in ("harness_env", "harness_task", "harness_data", "harness_online"):
            if getattr(arguments, name):
                raise UserError(f"--{name.replace('_', '-')} goes with --harness lmms-eval.")
        return None
    if not arguments.harness_env:
        raise UserError(
            "--harness lmms-eval needs its environment: bash launchers/install/lmms_eval.sh ENV makes it, --harness-env ENV."
        )
    settings = {"dtype": arguments.dtype} | ({"paper_compat": True} if arguments.paper_compat else {})
    settings |= asked_quantise(arguments)
    harness = Harness(
        Path(arguments.harness_env),
        arguments.harness_data,
        arguments.harness_online,
        arguments.ranks or 1,
        arguments.answers_per_batch,
        model_args=settings,
    )
    return Beside(harness, tuple(known(name) for name in arguments.harness_task) or ("mmvp",))


def run(arguments: argparse.Namespace) -> int:
    """Makes the table; its exit code."""
    from ..evaluation.benchmarks.table import chosen_benchmarks
    from ..judge.options import judging
    from .columns import with_variants
    from .conduct import conduct
    from .wanted import Wanted

    benchmarks = with_variants(chosen_benchmarks(arguments.benchmarks, arguments.benchmark))
    if not benchmarks:
        raise UserError("Nothing to evaluate on: give --benchmarks DIR or --benchmark NAME=DIR.")
    words = ["--tokens-per-batch", str(arguments.tokens_per_batch), "--answers-per-batch"]
    words += [str(arguments.answers_per_batch), *(["--cache", arguments.digests] if arguments.digests else [])]
    wanted = Wanted(
        base=arguments.base,
        runs=tuple(arguments.runs),
        where=arguments.benchmarks or typed("DIR"),
        benchmarks=benchmarks,
        out=arguments.out,
        judge=judging(arguments, arguments.judge) if arguments.judge else None,
        paper=arguments.paper,
        ranks=arguments.ranks,
        settings={
            "dtype": arguments.dtype,
            "max-new-tokens": arguments.max_new_tokens,
            "paper-compat": arguments.paper_compat,
            **asked_quantise(arguments),
        },
        beside=_beside(arguments),
        effort=tuple(words),
        cache=arguments.digests,
    )
    return conduct(wanted)
