"""The options of ``svco data rewrite``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ....basics.errors import UserError
from ....basics.intervals import whole
from ....basics.progress import shown
from ....basics.shipped import typed
from ....endpoint.options import add_asking, asked
from ..common_options import add_images


def add(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the tool to those of ``svco data``."""
    parser = tools.add_parser(
        "rewrite",
        help="captions, or pictures alone, to a shared question and two answers, through a model's endpoint or by templates",
        description="Asks a model behind any OpenAI-compatible endpoint (environment: OPENAI_BASE_URL, OPENAI_API_KEY) for a "
        "question that suits both pictures of a pair, then for two answers that differ where the pictures do. What comes is "
        "checked; what does not pass is kept apart with the reason. Replies are kept in a file: a command given again asks for "
        "nothing that is known.",
    )
    parser.add_argument("records", type=typed, help="records.jsonl")
    parser.add_argument("-o", "--output", type=typed, default=Path("rewritten.jsonl"), help="default: %(default)s")
    add_images(parser, " (needed where prompts send pictures)")
    parser.add_argument(
        "--backend",
        choices=("endpoint", "template"),
        default="endpoint",
        help="template: without a model (default endpoint)",
    )
    parser.add_argument("--model", help="the model's name, as the endpoint knows it")
    parser.add_argument(
        "--prompts",
        default="captions",
        help="captions, pictures (both are sent), ask (the record's question, of each picture alone), or a file in their form; "
        "of the template backend: template, or a file in its form",
    )
    _add_effort(parser)
    parser.set_defaults(work=run)


def _add_effort(parser: argparse.ArgumentParser) -> None:
    add_asking(parser, "beside the records")
    parser.add_argument("--limit", type=whole(1), metavar="N", help="only the first N records")
    parser.add_argument(
        "--turns",
        type=whole(1, 1000),
        default=2,
        metavar="N",
        help="how often a pair is asked for until its texts pass (default %(default)s)",
    )
    parser.add_argument(
        "--batch",
        choices=("submit", "collect"),
        help="the endpoint's Batch API: hand requests in, fetch their replies; once for each stage",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the tool; its exit code."""
    from .command import Wanted, rewrite

    if arguments.backend == "endpoint" and not arguments.model:
        raise UserError("Name the model with --model, or use --backend template, which needs none.")
    if arguments.backend == "template" and (arguments.model or arguments.batch):
        raise UserError("--backend template asks no model: leave out --model and --batch.")
    wanted = Wanted(
        records=arguments.records,
        output=arguments.output,
        images=tuple(arguments.images),
        backend=arguments.backend,
        model=arguments.model or "",
        prompts=arguments.prompts,
        turns=arguments.turns,
        limit=arguments.limit,
        batch=arguments.batch,
        **asked(arguments),
    )
    return rewrite(wanted, shown(True))
