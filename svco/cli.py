"""``svco``: a table of names. Only the module of the command that is called is imported."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from . import __version__
from .basics.errors import UserError, exit_codes, nearest

COMMANDS = {
    "train": ("run", "train a recipe, alone or on the GPUs of this machine"),
    "eval": ("commands.evaluation", "score a model on shards and benchmarks: figures with errors, paired tests"),
    "judge": ("commands.judge", "have another model judge answers in free words: MMHal-Bench, MM-Vet, LLaVA-Bench-W"),
    "table": ("commands.table", "the paper's table of a base and of runs: nine columns, TOTAL, errors, tests"),
    "bench": ("commands.bench", "what each idea of the fast path is worth, counted and timed"),
    "doctor": ("commands.doctor", "look at every rank's machine before a run does"),
    "study": ("commands.study", "train and evaluate a matrix of methods, data and seeds, with its tables"),
    "data": ("commands.data", "import, filter, rewrite, view, build, corrupt, inspect and verify pairs and shards"),
    "plan": ("commands.plan", "memory, traffic and time of a recipe on a machine, before it is run"),
    "status": ("commands.status", "how runs are, and what to do next"),
    "export": ("commands.export", "a run as a PEFT adapter, an adapter merged into its base, or a whole model"),
    "probe": ("commands.probe", "perplexity with the image, without and with the other; token by token"),
    "ask": ("commands.ask", "one question about an image or two: base and tuned answers side by side"),
    "report": ("commands.report", "one page of one or several runs, to look at while they run and after"),
}
"""Name -> (the package whose module ``options`` has its ``add`` and ``run``, what it does)."""


def main() -> None:
    """The entry point ``svco``."""
    parser = argparse.ArgumentParser(
        prog="svco",
        usage="svco [-h] [--version] COMMAND ...",
        description="S-VCO fine-tuning of vision-language models on DeepSpeed ZeRO-3.",
        epilog="\n".join(["commands:", *(f"  {name:<8}{does}" for name, (_, does) in COMMANDS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"svco {__version__}")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # given by the deepspeed launcher
    parser.add_argument("command", metavar="COMMAND", help="one of those below; svco COMMAND --help says more")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    with exit_codes():
        given = parser.parse_args()
        if given.command not in COMMANDS:
            raise UserError(f"There is no command {given.command!r}.{nearest(given.command, COMMANDS)}")
        _run(given.command, f"svco {given.command}", given.words, ("svco", given.command))


def script(name: str, prog: str) -> None:
    """What ``launchers/*.py`` do: the command ``name`` in a file that launchers start. It starts no ranks itself."""
    with exit_codes():
        _run(name, prog, sys.argv[1:], (sys.argv[0],))


def _run(name: str, prog: str, words: Sequence[str], before: tuple[str, ...]) -> None:
    """Runs the command ``name`` with ``words``, which were typed after ``before``; its help calls it ``prog``."""
    options = importlib.import_module(f".{COMMANDS[name][0]}.options", __package__)
    parser = argparse.ArgumentParser(prog=prog)
    options.add(parser)
    try:
        arguments = parser.parse_intermixed_args(words)  # section.key=value may stand among the options
    except TypeError:  # a command of commands, where nothing can
        arguments = parser.parse_args(words)
    arguments.typed = (*before, *words)
    sys.exit(options.run(arguments))
