"""What a study file says: data, methods, the trials that choose a learning rate, and groups of cells."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.errors import UserError, nearest
from ...recipe.config import CorruptKind
from ...recipe.parse import plain, read_yaml
from ...recipe.read import known_keys
from ..evaluation import benchmarks

Settings = dict[str, Any]
"""Recipe key (``section.field``) -> value."""
GROUP_KINDS = ("methods", "artefact", "typical")
STAGES = ("data", "trials", "cells")
"""What is made and run, in this order."""


@dataclass(frozen=True)
class Source:
    """Where a set of pairs comes from: shards that exist, another set corrupted, or the embedded world."""

    shards: tuple[str, ...] = ()
    """Paths, patterns, folders or URLs of shards."""
    corrupt: str = ""
    """Name of a data set whose pairs become VLF-type ones: (image, right answer) against (its corrupted image, wrong answer)."""
    kind: CorruptKind = "crop"
    """With ``corrupt``: how the image is corrupted (``corrupt.kind``)."""
    kept: int = 0
    """With ``corrupt``: the side whose image and answer are the right ones."""
    world: str = ""
    """A variant of the embedded world (:mod:`svco.tiny_world.variants`), rendered into the study's folder."""
    style: str = "solid"
    """With ``world``: drawing style."""
    side: str = "1"
    """With ``world: artefact``: the stamped side, ``0``, ``1`` or ``random``."""
    opacity: float = 1.0
    """With ``world: artefact``: how visible the stamp is."""
    split: str = "train"
    """With ``world``: the split whose pairs are drawn."""
    pairs: int = 1024
    """With ``world``: how many."""


@dataclass(frozen=True)
class Group:
    """Rows of one table."""

    name: str
    """Its name on the command line and in results."""
    title: str = ""
    """Heading of its table."""
    kind: str = "methods"
    """``methods``: the paper's kind of table; ``artefact``: a shift by an artefact of editing; ``typical``: by a fixed order."""
    methods: tuple[str, ...] = ()
    """Methods, each trained on every one of ``data``."""
    data: tuple[str, ...] = ()
    """Data sets for ``methods``."""
    rows: tuple[tuple[str, str], ...] = ()
    """Further (method, data) pairs."""
    tests: tuple[str, ...] = ()
    """Sets the rows are tested on; an ``artefact`` group: clean, shifted; answers are generated on the first."""
    generate: int = 0
    """Answers are generated for this many pairs of the first test set."""
    tuned_on: str = ""
    """The data set whose trials choose the settings; empty: each row's own."""
    compute_of: str = ""
    """A method: all rows are given as many FLOPs as it takes in the study's steps, instead of as many steps."""

    @property
    def cells(self) -> tuple[tuple[str, str], ...]:
        """Every (method, data) of the group."""
        return (*((m, d) for d in self.data for m in self.methods), *self.rows)


@dataclass(frozen=True)
class Study:
    """A whole study."""

    name: str
    """Its name."""
    recipe: str
    """Recipe that every cell trains."""
    root: str = "runs/study"
    """Folder of the study: its data, cells and tables."""
    ds: str = "none"
    """DeepSpeed JSON of every cell, or ``none``."""
    launch: str = ""
    """What starts the ranks of svco train and svco eval: empty for this Python, or e.g. ``deepspeed --num_gpus 8``."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every row: the order of pairs and the adapters' first values."""
    settings: Settings = field(default_factory=dict)
    """Recipe keys of every cell."""
    data: dict[str, Source] = field(default_factory=dict)
    """Training sets."""
    validation: Source = Source()
    """What trials are judged on."""
    tests: dict[str, Source] = field(default_factory=dict)
    """Test sets."""
    benchmarks: dict[str, str] = field(default_factory=dict)
    """Benchmark (one of ``svco eval``) -> folder of its official files."""
    methods: dict[str, Settings] = field(default_factory=dict)
    """Method -> recipe keys."""
    trials: tuple[Settings, ...] = ()
    """What is tried for every method on the validation set; the best pair accuracy is taken. Empty: nothing is."""
    trials_of: dict[str, tuple[Settings, ...]] = field(default_factory=dict)
    """Method -> trials of its own: as many."""
    trial_seed: int = 100
    """Seed of the trials, which no cell uses."""
    groups: tuple[Group, ...] = ()
    """The tables, in the order in which their cells are run."""
    against: tuple[str, str] = ("", "")
    """(method, data) that paired differences are taken from."""
    paper: bool = False
    """Whether the paper's own figures stand beside."""

    def trials_for(self, method: str) -> tuple[Settings, ...]:
        return self.trials_of.get(method, self.trials)


def load_study(path: str | Path, quick: bool = False) -> Study:
    """The study in ``path``; ``quick`` lays its section of that name over it. UserError for whatever cannot be meant."""
    tree = plain(read_yaml(path))
    if not isinstance(tree, Mapping):
        raise UserError(f"{path}: a study is a mapping of keys, not {tree!r}.")
    tree = dict(tree)
    shorter = tree.pop("quick", None)
    if quick:
        if not isinstance(shorter, Mapping):
            raise UserError(f"{path} has no section 'quick'.")
        tree = _merged(tree, shorter)
    study = _build(Study, tree, str(path))
    _check(study, str(path))
    return study


def _merged(tree: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` with ``change`` laid over it, mapping by mapping; null takes a key away, names choose among named parts."""
    merged = dict(tree)
    for key, value in change.items():
        old = merged.pop(key, None)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(old, value)
        elif key == "groups" and isinstance(old, list) and value and all(isinstance(name, str) for name in value):
            merged[key] = [group for group in old if group.get("name") in value]
        elif value is not None:
            merged[key] = value
    return merged


def _build(kind: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: must be a mapping of keys, not {tree!r}.")
    hints = typing.get_type_hints(kind)
    for key in tree:
        if key not in hints:
            raise UserError(f"{where}: unknown key {key!r}.{nearest(key, hints)}")
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in tree and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}: {missing[0]!r} is missing.")
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in tree.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: must be a mapping, not {value!r}.")
        return {str(key): _value(inner[1], part, f"{where}.{key}") for key, part in value.items()}
    if origin is tuple:
        values = value if isinstance(value, (list, tuple)) else [value]
        kinds = [inner[0]] * len(values) if inner[-1] is ... else inner
        if len(kinds) != len(values):
            raise UserError(f"{where}: takes {len(kinds)} values, not {value!r}.")
        return tuple(_value(k, part, where) for k, part in zip(kinds, values))
    if origin is typing.Literal and value not in inner:
        raise UserError(f"{where}: must be one of {', '.join(inner)}, not {value!r}.")
    if kind is Any or origin is typing.Literal:
        return value
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a side
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind):
        raise UserError(f"{where}: must be {kind.__name__}, not {value!r}.")
    return value


def _check(study: Study, where: str) -> None:
    from ...tiny_world.variants import VARIANTS

    named = [("settings", study.settings)]
    named += [(f"methods.{method}", settings) for method, settings in study.methods.items()]
    named += [(f"trials[{n}]", settings) for n, settings in enumerate(study.trials)]
    named += [(f"trials_of.{method}", settings) for method, many in study.trials_of.items() for settings in many]
    for place, settings in named:
        for key in settings:
            if key not in known_keys():
                raise UserError(f"{where}: {place}: unknown recipe key {key!r}.{nearest(key, known_keys())}")
    _known(study.trials_of, study.methods, f"{where}: trials_of", "method")
    for name, many in study.trials_of.items():
        if len(many) != len(study.trials):
            raise UserError(
                f"{where}: {name} has {len(many)} trials of its own and every other method {len(study.trials)}: the budget "
                "must be the same for all."
            )
    for name, source in (*study.data.items(), *study.tests.items(), ("validation", study.validation)):
        if sum(map(bool, (source.shards, source.corrupt, source.world))) != 1:
            raise UserError(f"{where}: {name} needs exactly one of shards, corrupt and world.")
        _known(filter(None, [source.world]), VARIANTS, f"{where}: {name}", "variant of the world")
        _known(filter(None, [source.corrupt]), study.data, f"{where}: {name}", "data set")
    _known(study.benchmarks, benchmarks.NAMES, f"{where}: benchmarks", "benchmark")
    if study.against[0]:
        _known(study.against[:1], study.methods, f"{where}: against", "method")
        _known(study.against[1:], study.data, f"{where}: against", "data set")
    for what, names in (("group", [group.name for group in study.groups]), ("test set", list(study.tests))):
        if odd := [name for name in names if not re.fullmatch(r"[\w.-]+", name)]:
            raise UserError(f"{where}: the {what} {odd[0]!r} names files: letters, digits and . _ - only.")
    for group in study.groups:
        place = f"{where}: group {group.name!r}"
        if not group.cells:
            raise UserError(f"{place} has no rows: give methods and data, or rows.")
        methods, data = zip(*group.cells)
        _known((*methods, *filter(None, [group.compute_of])), study.methods, place, "method")
        _known((*data, *filter(None, [group.tuned_on])), study.data, place, "data set")
        _check_group(study, group, place)


def _check_group(study: Study, group: Group, place: str) -> None:
    if group.kind not in GROUP_KINDS:
        raise UserError(f"{place}: kind is {group.kind!r}; one of {', '.join(GROUP_KINDS)}.")
    if [other.name for other in study.groups].count(group.name) > 1:
        raise UserError(f"{place}: two groups have this name.")
    _known(group.tests, study.tests, place, "test set")
    if not group.tests:
        raise UserError(f"{place} has no tests.")
    if group.kind == "artefact" and [study.tests[t].world == "artefact" for t in group.tests[:2]] != [False, True]:
        raise UserError(f"{place}: its tests must be a clean set and then one of 'world: artefact'.")
    if group.kind == "typical" and not study.tests[group.tests[0]].world:
        raise UserError(f"{place}: its first test must be of the world, which knows what is typical.")


def _known(names: Any, known: Any, where: str, what: str) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{where}: unknown {what} {name!r}.{nearest(name, known)}")
