"""YAML as its writer meant it: a key given twice is an error, and a value remembers how it was typed. The only door to yaml."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..basics.errors import UserError, first_line
from ..basics.shipped import RECIPES, find


@dataclass(frozen=True)
class Typed:
    """A plain scalar that YAML takes for something other than text. A key that wants text reads what was typed: ``0010`` is no
    number 8, ``3:55:00`` none of base 60, ``1e-6`` and ``no`` mean themselves."""

    text: str
    """As typed."""
    value: Any
    """As YAML 1.1 reads it: a number, a truth value, None, a date."""


_MOST = 100_000
"""Values of a recipe or study; the shipped ones have some hundred."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise UserError(
                    f"{name!r} is given twice, on line {lines[name]} and on line {line}; YAML alone would drop the first "
                    "without a word. Join them."
                )
            lines[name] = line
        found = super().construct_mapping(node, deep)
        return {key.text if isinstance(key, Typed) else key: value for key, value in found.items()}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        typed = isinstance(node, yaml.ScalarNode) and not isinstance(value, str)
        return Typed(node.value, value) if typed else value


def _values(node: yaml.Node | None, counted: dict[int, float]) -> float:
    """How many values ``node`` is once every reference stands for what it refers to; infinite where one holds itself."""
    if id(node) not in counted:
        counted[id(node)] = math.inf  # while it is being counted
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for item in inside for part in (item if isinstance(item, tuple) else (item,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]


def parse_yaml(text: str, where: str) -> Any:
    """What ``text`` holds, its scalars other than text as :class:`Typed`; None for an empty one. UserError, naming ``where``,
    for a key that is given twice, for references without end, and for what is no YAML."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if _values(node, {}) > _MOST:
            raise UserError("its references (&, *) unfold to more values than a recipe has, or to no end.")
        return None if node is None else loader.construct_document(node)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-99-99
        said = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else first_line(error)
        raise UserError(f"{where} is not valid YAML: {said}") from None


def read_yaml(path: str | Path) -> Any:
    """What the YAML file ``path`` holds (or the shipped recipe of that name), an empty mapping for an empty one; UserError if it
    cannot be read."""
    file = find(path, RECIPES, "recipe file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} cannot be read: {error}") from None
    found = parse_yaml(text, f"The recipe {path}")
    return {} if found is None else found


def plain(tree: Any) -> Any:
    """``tree`` with YAML's own reading of every scalar."""
    if isinstance(tree, Typed):
        return tree.value
    if isinstance(tree, dict):
        return {plain(key): plain(value) for key, value in tree.items()}
    return [plain(item) for item in tree] if isinstance(tree, list) else tree


def dump_yaml(tree: Any) -> str:
    """``tree`` as YAML, keys in their order."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
