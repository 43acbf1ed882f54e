"""``svco``: the single-process tools. Every command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__
from .basics.errors import exit_codes
from .basics.progress import shown
from .commands.probe import options as probe


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="svco",
        description="Tools around S-VCO fine-tuning. Training itself is started with "
        "'deepspeed launchers/train.py --ds ds_configs/zero3.json'.",
    )
    parser.add_argument("--version", action="version", version=f"svco {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    arguments = parser.parse_args()
    with exit_codes():
        sys.exit(arguments.run(arguments))


def _add_data(commands) -> None:
    parser = commands.add_parser("data", help="import, build, corrupt and verify shards")
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")

    importer = tools.add_parser("import", help="a released data set to records (JSONL)")
    importer.add_argument(
        "format", choices=("mvc-json", "jsonl"), help="mvc-json: the S-VCO authors' release; jsonl: svco's own"
    )
    importer.add_argument("file", type=Path, help="the file to import")
    importer.add_argument("--images", type=Path, required=True, help="folder that the image paths are relative to")
    importer.add_argument("-o", "--output", type=Path, default=Path("records.jsonl"), help="default: %(default)s")
    importer.add_argument(
        "--max-missing", type=float, default=0.0, help="share of pairs that may lack an image (default 0)"
    )
    importer.set_defaults(run=_import)

    builder = tools.add_parser("build", help="records to shards, split without an image in two splits")
    builder.add_argument("records", type=Path, help="records.jsonl")
    builder.add_argument("--images", type=Path, required=True, help="folder that the image paths are relative to")
    builder.add_argument("--seed", type=int, default=0)
    builder.add_argument("--val", type=float, default=0.02, help="share of validation pairs (default 0.02)")
    builder.add_argument("--heldout", type=float, default=0.02, help="share of held-out pairs (default 0.02)")
    _add_shard_options(builder)
    builder.set_defaults(run=_build)

    _add_corrupt(tools)

    verifier = tools.add_parser("verify", help="read every byte of shards; exit code 1 when something is wrong")
    verifier.add_argument("shards", nargs="+", help="paths, brace patterns, directories or URLs")
    verifier.set_defaults(run=_verify)


def _add_corrupt(tools) -> None:
    corrupter = tools.add_parser(
        "corrupt",
        help="shards to pairs of an image with its right answer and the same image corrupted with the wrong one",
        description="Pairs as mDPO and others train on them: side 0 is a side of the pair as it is, side 1 its image corrupted "
        "with the other side's answer. Keys, questions and contrast types stay.",
    )
    corrupter.add_argument("shards", nargs="+", help="paths, brace patterns, directories or URLs")
    corrupter.add_argument("--side", type=int, choices=(0, 1), default=0, help="the side that is kept (default 0)")
    corrupter.add_argument(
        "--kind", choices=("crop", "noise", "grey", "zero"), default="crop", help="default: %(default)s"
    )
    corrupter.add_argument(
        "--scale",
        type=float,
        nargs=2,
        default=(0.01, 0.2),
        metavar=("LEAST", "MOST"),
        help="crop: share of the area kept",
    )
    corrupter.add_argument("--step", type=int, default=500, help="noise: step of the diffusion (default %(default)s)")
    corrupter.add_argument("--seed", type=int, default=0, help="another number, other crops and noise")
    _add_shard_options(corrupter)
    corrupter.set_defaults(run=_corrupt)


def _add_shard_options(parser: argparse.ArgumentParser) -> None:
    """Of the tools that write shards."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="empty folder for the shards")
    parser.add_argument("--pairs-per-shard", type=int, default=512)
    parser.add_argument(
        "--max-unreadable", type=float, default=0.0, help="share of pairs that may be bad and are left out (default 0)"
    )


def _import(arguments: argparse.Namespace) -> int:
    from .commands.data.importers import IMPORTERS
    from .commands.data.records import drop_missing, missing_lines, write_records

    records = IMPORTERS[arguments.format](arguments.file)
    kept, missing = drop_missing(records, arguments.images, arguments.max_missing, shown(True))
    write_records(arguments.output, kept)
    print(f"{len(kept)} of {len(records)} pairs written to {arguments.output}. {missing_lines(missing)}".rstrip())
    print(f"next: svco data build {arguments.output} --images {arguments.images} -o shards")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from .commands.data.build import BuildPlan, build
    from .commands.data.records import read_records

    plan = BuildPlan(
        arguments.seed, arguments.val, arguments.heldout, arguments.pairs_per_shard, arguments.max_unreadable
    )
    manifest = build(read_records(arguments.records), arguments.images, arguments.output, plan, shown(True))
    for split, count in manifest["pairs"].items():
        print(f"{split:<8}{count:>9} pairs")
    print(f"left out: {manifest['left_out']['unreadable']} unreadable, {manifest['left_out']['duplicate']} repeated")
    print(f"next: svco data verify {arguments.output}")
    return 0


def _corrupt(arguments: argparse.Namespace) -> int:
    from .commands.data.corrupt import corrupt_shards
    from .recipe.config import Config, CorruptConfig
    from .recipe.limits import check

    config = CorruptConfig(arguments.kind, tuple(arguments.scale), arguments.step, arguments.seed)
    check(Config(corrupt=config))
    manifest = corrupt_shards(
        arguments.shards,
        arguments.output,
        config,
        side=arguments.side,
        pairs_per_shard=arguments.pairs_per_shard,
        max_unreadable=arguments.max_unreadable,
        progress=shown(True),
    )
    for split, count in manifest["pairs"].items():
        print(f"{split:<8}{count:>9} pairs")
    for reason in manifest["left_out"]["unreadable"]:
        print(f"left out: {reason}")
    print(f"next: svco data verify {arguments.output}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from .commands.data.verify import verify

    found = verify(arguments.shards, None, shown(True))
    for split, count in found.pairs.items():
        print(f"{split:<12}{count:>9} pairs")
    for kind, count in sorted(found.types.items()):
        print(f"  {kind:<10}{count:>9}")
    for problem in found.problems:
        print(f"problem: {problem}")
    print(
        f"{len(found.problems)} problems"
        if found.problems
        else "all is well: every shard, sample and picture reads, no pair is repeated, no picture is in two splits"
    )
    return 1 if found.problems else 0


def _add_export(commands) -> None:
    parser = commands.add_parser(
        "export",
        help="a run as a PEFT adapter, an adapter merged into its base, or a whole model",
        description="Writes what a run trained for plain transformers and peft: finished, or stopped and with a valid "
        "checkpoint. Also converts a PEFT adapter or a model between the names of transformers 4 and 5.",
    )
    parser.add_argument(
        "source", type=Path, help="a run folder, a checkpoint folder of one, a PEFT adapter folder or a model folder"
    )
    parser.add_argument("--to", type=Path, help="new or empty folder (default: export/FORMAT in the run)")
    parser.add_argument(
        "--format",
        choices=("adapter", "merged", "full"),
        help="adapter: PEFT; merged: the adapter in its base; full: a fully tuned model (default: adapter of LoRA, else full)",
    )
    parser.add_argument(
        "--checkpoint", help="step-N or latest of a run (default: its final weights, or its newest valid checkpoint)"
    )
    parser.add_argument(
        "--names", choices=("4", "5"), help="names of transformers 4 or 5 (default: the base's own; of an adapter 5)"
    )
    parser.add_argument("--shard-size", default="5GB", help="largest weight file (default %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: the run's)")
    parser.add_argument("--base", help="where the base model is now, folder or hub id (default: where the run had it)")
    parser.add_argument(
        "--base-name", help="what to call the base in public (default: its hub id or its folder's name)"
    )
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from .export import Wanted, export

    wanted = Wanted(
        arguments.source,
        arguments.to,
        arguments.format,
        arguments.checkpoint,
        arguments.names,
        arguments.shard_size,
        arguments.dtype,
        arguments.base,
        arguments.base_name,
    )
    target = export(wanted, shown(True))
    told = "; its README.md says what it is and how to load it" if (target / "README.md").is_file() else ""
    print(f"exported to {target}{told}")
    return 0


def _add_status(commands) -> None:
    from .record.status import EXIT_CODES, EXIT_ORDER

    codes = ", ".join(f"{code} {' or '.join(s for s in EXIT_CODES if EXIT_CODES[s] == code)}" for code in EXIT_ORDER)
    parser = commands.add_parser(
        "status",
        help="how runs are, and what to do next",
        description="State, progress, last checkpoint and what to do next of runs.",
        epilog=f"Exit code: {codes}; 2 when there is no such run. Of several runs the one named first here. A launcher's exit "
        "code says less: go by this one.",
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, default=[Path("runs")], help="run folders, or folders of runs (default: runs)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read every byte of the last checkpoint, not only its sizes"
    )
    parser.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    from .record.status import EXIT_ORDER, find_runs, look

    seen = [look(run, arguments.verify) for run in find_runs(arguments.runs)]
    print("\n\n".join(text for text, _ in seen))
    return min((code for _, code in seen), key=EXIT_ORDER.index)


def _add_plan(commands) -> None:
    parser = commands.add_parser(
        "plan",
        help="memory, traffic and time of a recipe on a machine, before it is run",
        description="What a recipe needs and takes on a machine, in seconds and without weights or GPUs.",
    )
    parser.add_argument("recipe", help="recipe YAML")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="recipe values to override")
    parser.add_argument(
        "--ds", metavar="FILE", default="all", help="DeepSpeed JSON; all (default): compare those of ds_configs/"
    )
    parser.add_argument("--gpus", type=int, default=8, help="GPUs a node (default %(default)s)")
    parser.add_argument("--nodes", type=int, default=1, help="nodes (default %(default)s)")
    parser.add_argument(
        "--gpu", default="h100-80g", help="kind of GPU (default %(default)s); an unknown one lists them"
    )
    parser.add_argument(
        "--interconnect", default="400gb", help="network of a node: 100gb, 400gb, 8x400gb (default %(default)s)"
    )
    parser.add_argument("--prompt", type=float, default=40, help="where shards are not here: text tokens of a prompt")
    parser.add_argument("--response", type=float, default=60, help="the same: tokens of a response")
    parser.add_argument("--image-tokens", type=float, default=0, help="the same: tokens of an image (0: of 640 × 480)")
    parser.add_argument("--pairs", type=int, default=11_000, help="the same: training pairs")
    parser.add_argument(
        "--calibration", metavar="FILE", help="*_calibration.json of launchers/gpu_check.py, or the folder of a run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw strong and weak scaling to 1,024 GPUs")
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from .commands.plan.command import run

    return run(arguments)


COMMANDS = (_add_data, _add_status, _add_export, _add_plan, probe.add)
"""One function a command: adds its parser and sets ``run``."""

if __name__ == "__main__":
    main()
