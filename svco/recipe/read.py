"""Reads recipes: default < YAML < ``section.key=value`` on the command line, with every mistake named.

A recipe is a YAML file of sections as in :mod:`svco.recipe.config`. An unknown key is an error that suggests the nearest one,
a wrong type names key, value and what was expected.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ..basics.errors import UserError, nearest
from ..basics.secrets import redacted_tree
from ..basics.shipped import at_home, lasting, located
from .config import Config
from .limits import check, kinds
from .parse import Typed, dump_yaml, parse_yaml, plain, read_yaml

_GONE = {"objective.symmetric": "Write objective.sides: both for true, objective.sides: first for false."}
"""Keys of earlier versions -> what to write instead."""
_NOTHING = ("", "~", "null", "Null", "NULL")
"""YAML's words for no value."""
_IN_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def load_recipe(path: str | Path | None, overrides: Iterable[str] = ()) -> Config:
    """The Config of the recipe ``path`` (a file, the name of a shipped one, None: all defaults) with ``section.key=value``
    overrides applied in order."""
    config = Config()
    if path is not None:
        config = merge(config, read_yaml(path), str(path))
    overrides = list(overrides)
    keys = [override.partition("=")[0] for override in overrides]
    # A later value replaces an earlier one, but a key twice in a row is what a shell makes of unquoted braces.
    if repeated := next((key for key, after in pairwise(keys) if key == after), None):
        raise UserError(
            f"{repeated} is given {keys.count(repeated)} times on the command line. If you wrote braces, the shell took them "
            f"apart: quote them, '{repeated}=…{{000000..000007}}.tar'. Over several hosts pdsh's other end, a shell, takes "
            "them apart in spite of quotes: write them into the recipe."
        )
    for override in overrides:
        config = merge(config, _override_tree(override), "the command line")
    check(config)
    return located_paths(config)


def located_paths(config: Config) -> Config:
    """``config`` with shipped models and adapters where they are, and home for every ``~``. Shards, being patterns, are
    found when they are opened."""
    model, lora, run, data = config.model, config.lora, config.run, config.data
    return dataclasses.replace(
        config,
        run=dataclasses.replace(run, root=at_home(run.root), resume=at_home(run.resume), swap=at_home(run.swap)),
        data=dataclasses.replace(
            data,
            train=tuple(map(at_home, data.train)),
            validation=tuple(map(at_home, data.validation)),
            heldout=tuple(map(at_home, data.heldout)),
            cache_dir=at_home(data.cache_dir),
        ),
        model=dataclasses.replace(model, base=located(model.base)),
        lora=dataclasses.replace(lora, init_from=located(lora.init_from)),
    )


def lasting_paths(config: Config) -> Config:
    """``config`` with the paths of what it reads written so that they hold from any folder."""
    data = config.data
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, base=lasting(config.model.base)),
        lora=dataclasses.replace(config.lora, init_from=lasting(config.lora.init_from)),
        data=dataclasses.replace(
            data,
            train=tuple(map(lasting, data.train)),
            validation=tuple(map(lasting, data.validation)),
            heldout=tuple(map(lasting, data.heldout)),
        ),
    )


def _override_tree(override: str) -> dict[str, Any]:
    key, sign, text = override.partition("=")
    section, dot, name = key.partition(".")
    if not (sign and dot and name):
        raise UserError(
            f"Cannot read {override!r} on the command line: overrides have the form section.key=value, "
            "e.g. optim.lr=1e-3."
        )
    value = parse_yaml(text, f"The value of {override!r} on the command line")
    # A key that wants text gets all that was typed, though YAML sees a comment or a mapping in it.
    return {section: {name: value if isinstance(value, (str, list)) else Typed(text, plain(value))}}


def merge(config: Config, tree: Any, where: str) -> Config:
    """``config`` with the values of ``tree`` ({section: {key: value}}) put in; ``where`` is named in errors."""
    sections = {f.name: getattr(config, f.name) for f in dataclasses.fields(Config)}
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: a recipe is a mapping of sections ({', '.join(sections)}), not {plain(tree)!r}.")
    changed = {}
    for section, values in tree.items():
        if section not in sections:
            raise UserError(f"{where}: unknown section {section!r}.{nearest(section, sections)}")
        if not isinstance(values, Mapping):
            raise UserError(f"{where}: section {section!r} must be a mapping of keys, not {plain(values)!r}.")
        changed[section] = _merge_section(sections[section], section, values, where)
    return dataclasses.replace(config, **changed)


def _merge_section(current: Any, section: str, values: Mapping[str, Any], where: str) -> Any:
    types = typing.get_type_hints(type(current))
    fresh = {}
    for name, value in values.items():
        key = f"{section}.{name}"
        if key in _GONE:
            raise UserError(f"{where}: {key} is gone. {_GONE[key]}")
        if name not in types:
            raise UserError(f"{where}: unknown key {key!r}.{nearest(key, known_keys())}")
        fresh[name] = _coerce(value, types[name], key, where)
    return dataclasses.replace(current, **fresh)


def known_keys() -> list[str]:
    return [key for key, _ in kinds()]


def _coerce(value: Any, kind: Any, key: str, where: str) -> Any:
    """``value`` as ``kind``, or a UserError. A single value stands for a tuple of it (both sides, one shard pattern)."""
    if typing.get_origin(kind) is tuple:
        element, *rest = typing.get_args(kind)
        length = None if rest == [...] else 1 + len(rest)
        if not isinstance(value, (list, tuple)):
            is_empty = length is None and plain(value) in ("", None)
            value = [] if is_empty else [value] * (length or 1)
        if length is not None and len(value) != length:
            raise UserError(f"{where}: {key} takes {length} values, not {len(value)} ({plain(value)!r}).")
        return tuple(_coerce(v, element, key, where) for v in value)
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if (found := _text(value)) not in choices:
            raise UserError(f"{where}: {key} is {plain(value)!r}; it must be one of {', '.join(choices)}.")
        return found
    found = {str: _text, float: _number, int: _whole_number}.get(kind, plain)(value)
    if type(found) is not kind:
        raise UserError(
            f"{where}: {key} must be a {_IN_WORDS[kind]}, not {plain(value)!r} ({type(plain(value)).__name__})."
        )
    return found


def _text(value: Any) -> Any:
    """What was typed; nothing, and YAML's words for it, are an empty text."""
    if isinstance(value, Typed):
        return "" if value.text in _NOTHING else value.text
    return "" if value is None else value


def _number(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, str):  # YAML 1.1 reads 1e-6 (no dot) as text; nobody means one
        with contextlib.suppress(ValueError):
            return float(value)
    return float(value) if type(value) is int else value


def _whole_number(value: Any) -> Any:
    """Decimal, where YAML 1.1 takes 010 for 8 and 1:30 for 90."""
    if not isinstance(value, Typed) or type(value.value) is not int:
        return plain(value)
    with contextlib.suppress(ValueError):
        return int(value.text)
    return value.text if ":" in value.text else value.value


def to_tree(config: Config) -> dict[str, dict[str, Any]]:
    """Plain nested dict (lists for tuples) that ``merge`` reads back to an equal Config."""
    tree = dataclasses.asdict(config)
    for values in tree.values():
        values.update({key: list(value) for key, value in values.items() if isinstance(value, tuple)})
    return tree


def dump(config: Config) -> str:
    """``config`` as YAML that ``load_recipe`` reads back to an equal Config, but for the credentials in its addresses."""
    return dump_yaml(redacted_tree(to_tree(config)))


@cache
def field_docs(section_type: type) -> dict[str, str]:
    """{field: its docstring} of a config dataclass, read from its source."""
    (section,) = ast.parse(inspect.getsource(section_type)).body
    docs = {}
    for statement_and_next in pairwise(ast.iter_child_nodes(section)):
        match statement_and_next:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text)
    return docs


def help_text() -> str:
    """Every key with its default and docstring, for ``--help``."""
    lines = []
    for section, kind in typing.get_type_hints(Config).items():
        lines.append(f"\n{section}: {inspect.getdoc(kind)}")
        for f in dataclasses.fields(kind):
            default = list(f.default) if isinstance(f.default, tuple) else f.default
            lines.append(f"  {section}.{f.name} [{default!r}]")
            lines += [f"      {line.strip()}" for line in field_docs(kind)[f.name].splitlines()]
    return "\n".join(lines)
