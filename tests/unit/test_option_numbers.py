"""Every number that a command line takes is bounded: what lies outside, or is none, ends with a sentence and exit code 2."""

import argparse
import ast
import importlib
import math
import sys

import pytest
from places import ROOT

from svco.basics.intervals import Number, real, whole, within, words
from svco.cli import COMMANDS, main

TYPED = ("nan", "inf", "-inf", "-5", "0", "0.5", "1e30", "1e-320", str(10**30), "9" * 5000, "", "x")


def actions(parser):
    """Every option of ``parser`` and of its tools."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for tool in action.choices.values():
                yield from actions(tool)
        else:
            yield action


def numbers():
    """(what is typed before it, option) of every number of every command."""
    for name, (package, _) in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"svco.{package}.options").add(parser)
        for action in actions(parser):
            if isinstance(action.type, Number):
                yield pytest.param(action, id=f"{name} {action.option_strings[-1]}")


@pytest.mark.parametrize("action", list(numbers()))
def test_each_takes_what_it_documents_and_nothing_else(action, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--it", type=action.type)
    low, high = (float(end) for end in action.type.interval[1:-1].split(","))
    assert math.isfinite(low) and math.isfinite(high), "a count that no computation overflows"
    defaults = action.default if isinstance(action.default, tuple) else [action.default]
    assert all(default is None or within(default, action.type.interval) for default in defaults)
    for typed in TYPED:
        try:
            taken = parser.parse_args([f"--it={typed}"]).it
        except SystemExit as ended:
            said = capsys.readouterr().err
            assert ended.code == 2 and ("must be" in said or "is no " in said), said
        else:
            assert taken == action.type.kind(typed) and low <= taken <= high


def test_no_option_takes_a_number_without_bounds():
    found = []
    for path in (*(ROOT / "svco").rglob("*.py"), *(ROOT / "launchers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                found += [(path.name, word.value) for word in node.keywords if word.arg == "type"]
    assert not [name for name, kind in found if isinstance(kind, ast.Name) and kind.id in ("int", "float")]
    assert sum(isinstance(kind, ast.Call) and kind.func.id in ("whole", "real") for _, kind in found) >= 40, (
        "the control"
    )


def test_intervals_in_words():
    assert words(whole(1).interval) == "at least 1 and at most 2147483647"
    assert words(real("(0, 1]").interval) == "above 0 and at most 1"
    assert not within(math.nan, "(-inf, inf)") and not within(math.inf, "[0, inf)")


@pytest.mark.parametrize("words", [
    ["--pairs", "-5"],
    ["--pairs", "nan"],
    ["--prompt", "nan"],
    ["--interconnect", "0x100gb"],
    ["--interconnect", f"{'9' * 400}gb"],
    ["--gpus", "0"],
    ["--pairs", "1000000000000"],
    ["--pairs", "1"],
    ["--prompt", "1000000", "--response", "1000000", "--image-tokens", "1000000"],
    ["--gpus", "1024", "--nodes", "1000000"],
    ["optim.epochs=1000000"],
    ["optim.global_batch=2147483647"],
    ["optim.tokens_per_micro_batch=2147483647"],
    ["optim.tokens_per_micro_batch=1"],
    ["lora.rank=65536"],
])  # fmt: skip
def test_a_plan_of_any_numbers_is_a_plan_or_a_sentence(words, monkeypatch, capsys):
    """What is accepted is computed with, up to its ends."""
    monkeypatch.setattr(sys, "argv", ["svco", "plan", "llava15_13b_lora", "--ds", "zero3", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code == 2 and "error: " in err) or (ended.value.code in (0, 1) and "nan" not in out.split())
