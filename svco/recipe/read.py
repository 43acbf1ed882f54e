"""Reads recipes: default < YAML < ``section.key=value`` on the command line, with every mistake named.

A recipe is a YAML file of sections as in :mod:`svco.recipe.config`. An unknown key is an error that suggests the nearest one,
a wrong type names key, value and what was expected.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..basics.errors import UserError
from .config import Config
from .limits import check


def load_recipe(path: str | Path | None, overrides: Iterable[str] = ()) -> Config:
    """The Config of recipe file ``path`` (None: all defaults) with ``section.key=value`` overrides applied in order."""
    config = Config()
    if path is not None:
        config = merge(config, read_yaml(path), str(path))
    overrides = list(overrides)
    keys = [override.partition("=")[0] for override in overrides]
    # A later value replaces an earlier one, but a key twice in a row is what a shell makes of unquoted braces.
    if repeated := next((key for key, after in zip(keys, keys[1:]) if key == after), None):
        raise UserError(
            f"{repeated} is given {keys.count(repeated)} times on the command line. If you wrote braces, the shell took them "
            f"apart: quote them, '{repeated}=…{{000000..000007}}.tar'. Over several hosts pdsh's other end, a shell, takes "
            "them apart in spite of quotes: write them into the recipe."
        )
    for override in overrides:
        config = merge(config, _override_tree(override), "the command line")
    check(config)
    return config


def read_yaml(path: str | Path) -> Any:
    """What the YAML file ``path`` holds, an empty mapping for an empty one; UserError if it cannot be read."""
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"There is no recipe file {path}. Recipes live in launchers/recipes/.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"The recipe {path} is not valid YAML: {error}") from None


def _override_tree(override: str) -> dict[str, Any]:
    import yaml

    key, sign, text = override.partition("=")
    section, dot, name = key.partition(".")
    if not (sign and dot and name):
        raise UserError(
            f"Cannot read {override!r} on the command line: overrides have the form section.key=value, "
            "e.g. optim.lr=1e-3."
        )
    try:
        return {section: {name: yaml.safe_load(text)}}
    except yaml.YAMLError as error:
        raise UserError(f"The value of {override!r} on the command line is not valid YAML: {error}") from None


def merge(config: Config, tree: Any, where: str) -> Config:
    """``config`` with the values of ``tree`` ({section: {key: value}}) put in; ``where`` is named in errors."""
    sections = {f.name: getattr(config, f.name) for f in dataclasses.fields(Config)}
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: a recipe is a mapping of sections ({', '.join(sections)}), not {tree!r}.")
    changed = {}
    for section, values in tree.items():
        if section not in sections:
            raise UserError(f"{where}: unknown section {section!r}.{nearest(section, sections)}")
        if not isinstance(values, Mapping):
            raise UserError(f"{where}: section {section!r} must be a mapping of keys, not {values!r}.")
        changed[section] = _merge_section(sections[section], section, values, where)
    return dataclasses.replace(config, **changed)


def _merge_section(current: Any, section: str, values: Mapping[str, Any], where: str) -> Any:
    kinds = typing.get_type_hints(type(current))
    fresh = {}
    for name, value in values.items():
        key = f"{section}.{name}"
        if key in _GONE:
            raise UserError(f"{where}: {key} is gone. {_GONE[key]}")
        if name not in kinds:
            raise UserError(f"{where}: unknown key {key!r}.{nearest(key, known_keys())}")
        fresh[name] = _coerce(value, kinds[name], key, where)
    return dataclasses.replace(current, **fresh)


def nearest(name: Any, known: Iterable[str]) -> str:
    """A sentence that suggests the one of ``known`` that ``name`` is closest to, or lists them all."""
    known = list(known)
    # A misspelt section must not hide a right key, so the last parts are compared as well.
    by_last = {key.rpartition(".")[2]: key for key in known}
    close = difflib.get_close_matches(str(name), known, n=1) or [
        by_last[last] for last in difflib.get_close_matches(str(name).rpartition(".")[2], by_last, n=1)
    ]
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."


def known_keys() -> list[str]:
    return [f"{s.name}.{f.name}" for s in dataclasses.fields(Config) for f in dataclasses.fields(_section_type(s.name))]


def _section_type(name: str) -> type:
    return typing.get_type_hints(Config)[name]


def _coerce(value: Any, kind: Any, key: str, where: str) -> Any:
    """``value`` as ``kind``, or a UserError. A single value stands for a tuple of it (both sides, one shard pattern)."""
    if typing.get_origin(kind) is tuple:
        element, *rest = typing.get_args(kind)
        length = None if rest == [...] else 1 + len(rest)
        if not isinstance(value, (list, tuple)):
            value = [] if value in ("", None) and length is None else [value] * (length or 1)
        if length is not None and len(value) != length:
            raise UserError(f"{where}: {key} takes {length} values, not {len(value)} ({value!r}).")
        return tuple(_coerce(v, element, key, where) for v in value)
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 1e-6 (no dot) as a string; nobody means one.
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and value is None:
        return ""
    if kind is str and type(value) in (int, float):
        return str(value)  # optim.recompute=8, run.name=7, run.time_limit=90.5
    if type(value) is not kind:
        raise UserError(f"{where}: {key} must be a {_PLAIN[kind]}, not {value!r} ({type(value).__name__}).")
    return value


_GONE = {"objective.symmetric": "Write objective.sides: both for true, objective.sides: first for false."}
"""Keys of earlier versions -> what to write instead."""
_PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def to_tree(config: Config) -> dict[str, dict[str, Any]]:
    """Plain nested dict (lists for tuples) that ``merge`` reads back to an equal Config."""
    tree = dataclasses.asdict(config)
    return {s: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()} for s, values in tree.items()}


def dump(config: Config) -> str:
    """``config`` as YAML that ``load_recipe`` reads back to an equal Config."""
    import yaml

    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True)


@cache
def field_docs(section_type: type) -> dict[str, str]:
    """{field: its docstring} of a config dataclass, read from its source."""
    body = ast.parse(inspect.getsource(section_type)).body[0].body
    return {
        a.target.id: inspect.cleandoc(b.value.value)
        for a, b in zip(body, body[1:])
        if isinstance(a, ast.AnnAssign)
        and isinstance(b, ast.Expr)
        and isinstance(b.value, ast.Constant)
        and isinstance(b.value.value, str)
    }


def help_text() -> str:
    """Every key with its default and docstring, for ``--help``."""
    lines = []
    for section in dataclasses.fields(Config):
        kind = _section_type(section.name)
        lines.append(f"\n{section.name}: {inspect.cleandoc(kind.__doc__)}")
        for f in dataclasses.fields(kind):
            default = list(f.default) if isinstance(f.default, tuple) else f.default
            lines.append(f"  {section.name}.{f.name} [{default!r}]")
            lines += [f"      {line.strip()}" for line in field_docs(kind)[f.name].splitlines()]
    return "\n".join(lines)
