"""Numbers that are not finite: in a pair, in a gradient, in the base."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import launch
from places import ROOT
from poison import poisoned_base

from faults.stage import STEPS, Stage, must, told
from faults.table import Row

LETS_BE = ("optim.max_skipped_steps=6", "optim.max_skipped_fraction=1")


def rows(_: int) -> list[Row]:
    return [
        Row(
            "not-finite/pair",
            "NaN in what some pairs read: the base's embedding of one word",
            "in the steps that have such a pair",
            "those steps are skipped and counted, their pairs named; every weight and every number in JSON is finite",
            pair,
        ),
        Row(
            "not-finite/pair/limit",
            "the same",
            "in the steps that have such a pair, with optim.max_skipped_fraction=0",
            "exit code 2, one sentence with pairs and checkpoint; no adapter",
            limit,
        ),
        Row(
            "not-finite/gradient",
            "NaN in the gradient of a loss that is finite (an objective of one's own)",
            "in steps after the first",
            "those steps are skipped and counted, their pairs named; every weight and every number in JSON is finite",
            gradient,
        ),
        Row(
            "not-finite/base",
            "NaN in every pair: a base with a NaN in one weight of a layer",
            "from the first step",
            "exit code 2, one sentence, nothing that looks like a result",
            base,
            short=True,
        ),
        Row(
            "not-finite/control",
            "control: the sound base",
            "in all steps",
            "nothing is skipped, so that the check of skipped steps breaks",
            partial(pair, sound=True),
            control=True,
        ),
    ]


def skipped(run: Path) -> dict[int, list[str]]:
    file = run / "bad_steps.jsonl"
    lines = map(json.loads, file.read_text().splitlines() if file.exists() else ())
    return {line["step"]: [pair["key"] for pair in line["pairs"]] for line in lines}


def only_finite(run: Path) -> None:
    import torch
    from safetensors.torch import load_file

    for file in run.rglob("*.safetensors"):
        must(all(torch.isfinite(tensor).all() for tensor in load_file(file).values()), f"{file.name} is not finite")
    for file in (*run.rglob("*.json"), *run.rglob("*.jsonl")):
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(text, parse_constant=lambda word, file=file: must(False, f"{word} in {file.name}"))


def pair(stage: Stage, sound: bool = False) -> None:
    changes = [*LETS_BE, "data.validation=", "data.heldout=", "model.reference=lockstep"]
    keys: set[str] = set()
    if not sound:
        base, keys = poisoned_base(stage.folder / "poisoned", f"{stage.data}/train-*.tar", 2, 8)
        changes.append(f"model.base={base}")
    told(stage.train(*changes), 0)
    found = skipped(stage.run())
    must(found, "no step was skipped")
    must(set().union(*found.values()) <= keys, "pairs are named that have nothing to do with it")
    lines = {line["step"]: line for line in launch.metrics(stage.run()) if "pairs" in line}
    must(set(lines) == set(range(1, STEPS + 1)), f"steps {sorted(lines)}")
    must({step for step, line in lines.items() if "loss" not in line} == set(found), "a skipped step has a loss")
    must(lines[STEPS]["skipped"] == len(found), "the count of skipped steps is another")
    must(lines[STEPS]["pairs"] == 4 * STEPS, "pairs lost or doubled")
    only_finite(stage.run())


def limit(stage: Stage) -> None:
    base, _ = poisoned_base(stage.folder / "poisoned", f"{stage.data}/train-*.tar", 2, 8)
    changes = ("data.validation=", "data.heldout=", "model.reference=lockstep", f"model.base={base}")
    told(
        stage.train(*changes, "optim.max_skipped_steps=6", "optim.max_skipped_fraction=0"),
        2,
        "not finite in many steps",
        "step-000004",
    )
    must(not (stage.run() / "adapter").exists(), "it wrote an adapter")


def gradient(stage: Stage) -> None:
    changes = (*LETS_BE, "objective.name=odd-gradient", "model.reference=lockstep", "optim.lr=5e-3")
    odd = [str(ROOT / "tests" / "odd_gradient.py"), "--ds", "none", *stage.options("run", "auto", *changes)]
    told(stage.end(stage.fork(odd)), 0)
    found = skipped(stage.run())
    must(0 < len(found) < STEPS and all(found.values()), f"skipped: {found}")
    lines = {line["step"]: line for line in launch.metrics(stage.run()) if "pairs" in line}
    must(lines[STEPS]["skipped"] == len(found), "the count of skipped steps is another")
    only_finite(stage.run())


def base(stage: Stage) -> None:
    from safetensors.torch import load_file, save_file

    file = stage.base / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("q_proj.weight") and "language_model" in name)
    weights[name][:] = float("nan")
    save_file(weights, file, {"format": "pt"})
    changes = (f"model.base={stage.base}", "data.validation=", "data.heldout=", "model.reference=lockstep")
    told(stage.train(*changes), 2, "4 steps in a row and 4 in all were skipped", "bad_steps.jsonl")
    must(not (stage.run() / "adapter").exists(), "it wrote an adapter")
    only_finite(stage.run())
