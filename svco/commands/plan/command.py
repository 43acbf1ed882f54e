"""What ``svco plan`` does with its arguments."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...basics.files import write_whole, writing
from ...basics.shipped import DS_CONFIGS, names
from ...basics.strict_json import json_text
from ...recipe.ds_config import read_ds_config
from ...recipe.read import load_recipe
from .calibration import calibrated
from .machine import Machine, find_gpu, network
from .planner import advise, plan_all
from .question import Assumed, ask
from .report import as_json, text


def run(arguments: Namespace) -> int:
    """Prints the plan, and writes what is asked for; 1 when nothing fits."""
    config = load_recipe(arguments.recipe, arguments.overrides)
    assumed = Assumed(arguments.prompt, arguments.response, arguments.image_tokens, arguments.pairs)
    machine = make_machine(arguments)
    configs = ds_configs(arguments.ds)
    question = ask(Path(arguments.recipe).stem, config, assumed)
    if arguments.calibration:
        only = next(iter(configs.items())) if len(configs) == 1 else None
        machine = calibrated(machine, arguments.calibration, question, only)
    plans, refused = plan_all(question, machine, configs)
    advice = advise(question, plans)
    print(text(question, plans, refused, advice))
    if arguments.json:
        with writing(arguments.json):
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            write_whole(arguments.json, json_text(as_json(question, plans, refused, advice), indent=1))
    if arguments.figure:
        from .scaling import figure

        figure(question, machine, {p.ds: configs[p.ds] for p in plans}, arguments.figure)
        print(f"\nscaling (model, not measured): {arguments.figure}")
    return 0 if advice.plan else 1


def make_machine(arguments: Namespace) -> Machine:
    """The machine that the arguments describe; UserError for one that cannot be."""
    speed = network(arguments.interconnect)
    return Machine(find_gpu(arguments.gpu), arguments.gpus, arguments.nodes, speed, arguments.interconnect)


def ds_configs(wanted: str) -> dict[str, Mapping[str, Any]]:
    """Name -> JSON of the DeepSpeed config ``wanted``, or of all that are shipped."""
    files = names(DS_CONFIGS).values() if wanted == "all" else [Path(wanted)]
    return {file.stem: read_ds_config(file) for file in files}
