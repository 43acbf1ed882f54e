"""The house: who may import whom, one door per dependency, and how large a room may be."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import ROOT

LAYERS = (
    ("basics.errors", "basics.views", "recipe.config"),
    ("basics.dist", "model.weight_names", "recipe.limits", "data.corruption"),
    (
        "data.pairs",
        "recipe.read",
        "recipe.ds_config",
        "run.tally",
        "run.clock",
        "run.health",
        "run.stopping",
        "record.state",
        "basics.versions",
        "basics.files",
        "objectives.terms",
    ),
    ("data.shard_index", "data.order", "batches.balance", "families", "recipe.paper", "record.board"),
    ("data.shards", "batches.encode"),
    ("objectives.table", "batches.pack", "model.logprobs", "batches.loader", "scores.pair_scores", "scores.statistics"),
    ("model.lora", "engine.optimizer", "scores.sheet", "model.attention", "model.twin", "objectives.reference"),
    ("model.scorer", "run.job"),
    ("model.load", "model.recompute", "tiny_world"),
    ("engine.plain", "model.subject", "record.checkpoint"),
    ("engine",),
    ("export", "commands.evaluation"),
    (
        "run.folder",
        "commands.data",
        "run.cached_reference",
        "run.step",
        "record.status",
        "commands.plan",
        "commands.probe",
    ),
    ("run.session",),
    ("run.train", "cli"),
    ("commands.bench", "commands.doctor", "commands.study"),
)
"""A module imports from layers above it on this list, or from its own package; never from its own layer or below."""
LEVEL = {name: number for number, layer in enumerate(LAYERS) for name in layer}
DOORS = {
    "deepspeed": {"engine"},
    "webdataset": {"data.shards"},
    "braceexpand": {"data.shards"},
    "peft": {"model.lora", "commands.bench"},  # the peer is given peft's own configuration
    "trl": {"commands.bench"},
    "datasets": {"commands.bench"},
    "tensorboard": {"record.board"},
    "torch.utils.tensorboard": {"record.board"},
    "pyarrow": {"commands.evaluation"},
    "matplotlib": {"scores.sheet", "commands.bench", "commands.plan", "commands.probe"},
    "tqdm": {"record.board"},
    "psutil": {"commands.doctor", "run.stopping", "record.state", "commands.study"},
    "yaml": {"recipe.read"},
    "tokenizers": {"tiny_world"},
    "safetensors": {"model.lora", "commands.bench", "engine", "export", "engine.optimizer", "objectives.reference"},
    "huggingface_hub": {"commands.bench", "commands.doctor", "export"},
    "transformers.conversion_mapping": {"model.weight_names"},
    "transformers.core_model_loading": {"model.weight_names"},
    "flash_attn": {"model.attention"},
}
MODULES = sorted((ROOT / "svco").rglob("*.py"))
SOURCES = MODULES + sorted((ROOT / "launchers").glob("*.py"))


def room(name: str) -> str:
    """The module or package of the list that module ``svco.name`` belongs to."""
    parts = name.split(".")
    heads = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((head for head in heads if head in LEVEL), parts[0])


def room_of(path: Path) -> str:
    return room(".".join(path.relative_to(ROOT / "svco").with_suffix("").parts))


def imports(path: Path):
    """(module, line) of every import, lazy ones included; relative ones resolved."""
    package = ["svco", *path.relative_to(ROOT / "svco").parts[:-1]] if ROOT / "svco" in path.parents else []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield (f"{stem}.{alias.name}" if stem.startswith("svco") else stem), node.lineno


def test_every_module_has_a_layer():
    files = [path for path in MODULES if path.name != "__init__.py"]
    assert {room_of(path) for path in files} == LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = room_of(path)
    for name, line in imports(path):
        if not name.startswith("svco.") or name == "svco.__version__":
            continue
        there = room(name.removeprefix("svco."))
        assert there == here or LEVEL[there] < LEVEL[here], f"{path.name}:{line}: {here} must not import {there}"


def test_one_door_per_dependency():
    for path in MODULES:
        for name, line in imports(path):
            for package, doors in DOORS.items():
                if name == package or name.startswith(package + "."):
                    assert room_of(path) in doors, f"{path}:{line} imports {package}; its door is {doors}"


def test_rooms_are_small():
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= 55, f"{path}:{node.lineno} {node.name}"


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
                if isinstance(target, ast.Attribute):
                    root = target
                    while isinstance(root, ast.Attribute):
                        root = root.value
                    assert not (isinstance(root, ast.Name) and root.id in foreign), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "command",
    [["-m", "svco.cli"], *([str(p)] for p in sorted((ROOT / "launchers").glob("*.py")))],
    ids=lambda c: c[-1].rpartition("/")[2],
)
def test_help_is_quick(command):
    before = time.monotonic()
    done = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert time.monotonic() - before < 2
    heavy = subprocess.run(
        [sys.executable, "-X", "importtime", *command, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert not [
        line for line in heavy.stderr.splitlines() if line.rpartition("|")[2].strip() in ("torch", "transformers")
    ]
