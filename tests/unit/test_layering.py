"""The house: who may import whom, one door per dependency, and how large a room may be."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT

FLOORS = (
    ("basics",),
    ("recipe", "record"),
    ("data", "objectives", "endpoint"),
    ("families", "scores"),
    ("batches",),
    ("model",),
    ("engine", "tiny_world"),
    ("export",),
    ("run", "commands"),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a file imports from its own package and from those on lower floors, and never a private name of another
file."""
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}
NEIGHBOURS = {
    ("bench", "plan"),
    ("harness", "evaluation"),
    ("probe", "evaluation"),
    ("table", "harness"),
    ("report", "probe"),
    ("ask", "probe"),
    ("ask", "evaluation"),
    ("study", "plan"),
    ("study", "evaluation"),
    ("study", "data"),
    ("judge", "evaluation"),
    ("table", "evaluation"),
    ("table", "judge"),
    ("table", "study"),
}
"""(command, another one it uses); there are no others."""
DOORS = {
    "deepspeed": {"engine"},
    "webdataset": {"data.shards"},
    "braceexpand": {"data.shards"},
    "fsspec": {"data.remote"},
    "aiohttp": {"data.remote"},
    "openai": {"endpoint.client"},
    "imagehash": {"data.looks"},
    "scipy": {"data.alike"},
    # The bench's peer is given peft's own configuration.
    "peft": {"model.lora", "model.adapted", "model.adapter_files", "commands.bench"},
    "bitsandbytes": {"model.quantised"},
    "trl": {"commands.bench"},
    "lmms_eval": {"commands.harness.plugin", "commands.harness.model"},  # imported in its own environment alone
    "accelerate": {"commands.harness.model"},
    "datasets": {"commands.bench"},
    "tensorboard": {"record.board"},
    "torch.utils.tensorboard": {"record.board"},
    "pyarrow": {"data.tables"},
    "wandb": {"record.trackers"},
    "trackio": {"record.trackers"},
    "matplotlib": {"scores.style", "scores.sheet", "commands"},
    "tqdm": {"basics.progress"},
    "jinja2": {"basics.html"},
    "psutil": {"commands.doctor", "commands.study", "record.state", "run.stopping"},
    "yaml": {"recipe.parse"},
    "tokenizers": {"commands.bench", "tiny_world"},
    "safetensors": {
        "commands.bench",
        "engine",
        "export",
        "model.adapter_files",
        "model.load",
        "model.stored_config",
        "run.cached_reference",
    },
    "huggingface_hub": {"commands.bench", "commands.doctor", "export"},
    "transformers.conversion_mapping": {"model.weight_names"},
    "transformers.core_model_loading": {"model.weight_names"},
    "flash_attn": {"model.attention"},
    "fla": {"families.delta_net"},
    "transformers.models.qwen3_5": {"families.delta_net"},
}
MODULES = sorted((ROOT / "svco").rglob("*.py"))
SOURCES = MODULES + sorted((ROOT / "launchers").glob("*.py"))


def dotted(path: Path) -> list[str]:
    """The parts of a module's name below svco, without ``__init__``."""
    return [part for part in path.relative_to(ROOT / "svco").with_suffix("").parts if part != "__init__"]


def imports(path: Path):
    """(parts of the imported module's full name, names taken from it, line) of every import, lazy ones included."""
    package = ["svco", *path.relative_to(ROOT / "svco").parts[:-1]] if ROOT / "svco" in path.parents else []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split("."), [], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield [*base, *(node.module or "").split(".")] if node.module else base, node.names, node.lineno


def inside(path: Path):
    """(parts below svco of a module that ``path`` imports, name taken from it, line)."""
    for parts, names, line in imports(path):
        for alias in names if parts[0] == "svco" else ():
            whole = [*parts[1:], alias.name]
            file = ROOT.joinpath("svco", *whole)
            is_module = file.is_dir() or file.with_suffix(".py").exists()
            yield (whole if is_module else parts[1:]), alias.name, line


def test_every_package_has_a_floor():
    assert {dotted(path)[0] for path in MODULES if dotted(path)} == FLOOR.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = dotted(path) or ["__init__"]
    for there, name, line in inside(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        if not there or there[0] == here[0]:
            continue
        assert here[0] == "__init__" or FLOOR[there[0]] < FLOOR[here[0]], (
            f"{where}: {here[0]} must not import {there[0]}"
        )
        assert not name.startswith("_") or name == "__version__", f"{where}: {name} is private to {'.'.join(there)}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "svco" / "commands").rglob("*.py")), ids=lambda p: "/".join(p.parts[-2:])
)
def test_commands_have_few_neighbours(path):
    command = dotted(path)[1:2]
    for there, _, line in inside(path):
        if there[:1] == ["commands"] and there[1:2] != command:
            assert (*command, *there[1:2]) in NEIGHBOURS, f"{path.relative_to(ROOT)}:{line}: {there}"


def test_one_door_per_dependency():
    for path in MODULES:
        here = ".".join(dotted(path))
        for parts, names, line in imports(path):
            taken = {".".join(parts), *(".".join([*parts, alias.name]) for alias in names)}
            for package, doors in DOORS.items():
                if any(name == package or name.startswith(package + ".") for name in taken):
                    assert any(f"{here}.".startswith(f"{door}.") for door in doors), (
                        f"{path}:{line}: {package}, {doors}"
                    )


def test_rooms_are_small():
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= 55, f"{path}:{node.lineno} {node.name}"


PUT_BACK = {"torch.nn.functional.linear = _linear"}
"""What undoes a patch of one installed package by another: DeepSpeed's, when a process leaves the ranks."""


def test_no_installed_package_is_patched():
    """No assignment to an attribute of an imported module or class of another package."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        foreign = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            and not getattr(node, "level", 0)
            and not (getattr(node, "module", None) or "").startswith("svco")
            for alias in node.names
        }
        for node in ast.walk(tree):
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                if isinstance(target, ast.Attribute) and ast.unparse(node) not in PUT_BACK:
                    root = target
                    while isinstance(root, ast.Attribute):
                        root = root.value
                    assert not (isinstance(root, ast.Name) and root.id in foreign), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "command",
    [["-m", "svco"], *([str(p)] for p in sorted((ROOT / "launchers").glob("*.py")))],
    ids=lambda c: c[-1].rpartition("/")[2],
)
def test_help_is_quick(command):
    before = time.monotonic()
    line = [sys.executable, "-X", "importtime", *command, "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert time.monotonic() - before < 2
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    imported = {told.rpartition("|")[2].strip() for told in done.stderr.splitlines() if told.startswith("import time:")}
    assert "argparse" in imported
    assert not imported & {"torch", "transformers"}
