"""What ``svco bench`` does with its arguments."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.progress import shown
from .ladder import ROWS, ladder
from .report import ideas, page, plot
from .run import Plan, run_plans, save
from .shapes import SHAPES


def run(arguments: Namespace, ds: dict[str, Any] | None, world: World) -> None:
    """One benchmark, on every rank; rank 0 prints and writes."""
    results: list[dict[str, Any]] = []
    stem = arguments.out
    if arguments.one_point:
        from .scaling import measure, tell

        point = measure(plans(arguments)[0], ds, world)
        if world.is_main:
            tell(point)
        return
    if arguments.validate_plan:
        from . import plan_table

        plan_table.run(stem, ds, world, shown(world.is_main))
        return
    if arguments.peer:
        from .peer import run_peer

        arguments.objective, arguments.tune = "dpo", "lora"
        text = run_peer(arguments.peer, arguments.peer_python, plans(arguments)[0], ds, world)
    elif arguments.data:
        from .data import bench_data

        text = bench_data(arguments.data, plans(arguments)[0], world)
    elif arguments.evaluation:
        from .evaluation import bench_evaluation

        text = bench_evaluation(plans(arguments)[0], world)
    elif arguments.head:
        from .head import bench_head

        text = bench_head(plans(arguments)[0].true_shape, world)
    else:
        progress = shown(world.is_main)
        results = run_plans(plans(arguments), ds, world, progress)
        if world.is_main and stem:  # before the rows are compared, which may end it
            save(results, Path(f"{stem}.json"))
        text = "\n\n".join(["Rows, each with what it adds:", ideas(), *map(page, results)])
    if not world.is_main:
        return
    _tell(text, stem)
    if stem:
        if results:
            plot(results, Path(f"{stem}.png"))
        print(f"\nwritten: {stem}.*", file=sys.stderr)


def run_scaling(arguments: Namespace) -> None:
    """``--scaling``, in a process that no launcher started: prints the table and writes it."""
    from . import scaling

    plans(arguments)  # refuses what no launch could run
    _tell(scaling.run_scaling(arguments), arguments.out)


def _tell(text: str, stem: str | None) -> None:
    """Prints ``text`` and, where there is a ``stem``, writes it to ``stem``.md."""
    print(text)
    if stem:
        Path(stem).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(f"{stem}.md"), text + "\n")


def plans(arguments: Namespace) -> list[Plan]:
    """One plan for each thing to tune."""
    if arguments.shape not in SHAPES:
        raise UserError(f"--shape is {arguments.shape!r}; known: {', '.join(SHAPES)}.")
    rows = tuple(filter(None, arguments.rows.split(",")))
    if unknown := set(rows) - ROWS.keys():
        raise UserError(f"--rows: unknown {sorted(unknown)}; known: {', '.join(ROWS)}.")
    if rows and arguments.tune != "lora" and not {row.name for row in ladder(full=True)} & {*rows}:
        raise UserError(f"--rows {arguments.rows}: full fine-tuning has no adapters, so there is nothing to measure.")
    return [
        Plan(
            shape=arguments.shape,
            layers=arguments.layers,
            scale=arguments.scale,
            vocabulary=arguments.vocab,
            objective=arguments.objective,
            full=full,
            pairs=arguments.pairs,
            repetitions=arguments.repetitions,
            rows=rows,
        )
        for full in {"lora": (False,), "full": (True,), "both": (False, True)}[arguments.tune]
    ]
