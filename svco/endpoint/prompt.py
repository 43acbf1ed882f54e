"""A prompt in a file that people read and change, and the digest by which what was made says which it was made with."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from ..basics.errors import UserError, nearest
from ..basics.strict_json import json_text
from ..recipe.parse import parse_yaml, plain
from .request import Request, make_request

_OURS = {"model", "messages", "stream", "n"}
"""Parameters of a request that no file sets."""


@dataclass(frozen=True)
class Prompt:
    """One kind of request."""

    user: str
    """The prompt, with ``$names`` in it."""
    system: str | None = None
    """The prompt before it, likewise."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of the request: temperature, bounds on the reply, …"""

    @property
    def names(self) -> set[str]:
        """The ``$names`` in its prompts."""
        return set(Template(self.user).get_identifiers()) | set(Template(self.system or "").get_identifiers())

    def filled(self, values: Mapping[str, str]) -> tuple[str | None, str]:
        """(system prompt, user prompt) with ``values`` in place of the names; text among them stays text."""
        system = Template(self.system).substitute(values).strip() if self.system else None
        return system, Template(self.user).substitute(values).strip()

    def request(self, model: str, values: Mapping[str, str], turn: int = 0) -> Request:
        """The request to ``model`` with ``values`` in place of the names, without pictures."""
        system, user = self.filled(values)
        return make_request(model, system, user, (), self.parameters, turn)


def digest_of(tree: Mapping[str, Any]) -> str:
    """SHA-256 of a file's content; comments and layout do not count."""
    return hashlib.sha256(json_text(tree, sort_keys=True, ascii_only=False).encode()).hexdigest()


def read_yaml(file: Path) -> Any:
    """What ``file`` holds; UserError where it cannot be read."""
    try:
        return plain(parse_yaml(file.read_text(encoding="utf-8"), str(file)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def check_prompt(raw: Any, where: str, known: Collection[str], more: Mapping[str, type] | None = None) -> None:
    """UserError unless ``raw`` holds what a :class:`Prompt` has, with ``more`` keys (name -> type), and names nothing but
    ``known``."""
    if not isinstance(raw, dict) or not isinstance(raw.get("user"), str) or not raw["user"].strip():
        raise UserError(f"{where} must have a prompt under user; it is {raw!r}.")
    kinds: dict[str, Any] = {"user": str, "system": str, "parameters": dict, **(more or {})}
    for key, value in raw.items():
        if key not in kinds or not isinstance(value, kinds[key]):
            raise UserError(f"{where}: {key} is {value!r}.{nearest(key, kinds) if key not in kinds else ''}")
    prompt = Prompt(raw["user"], raw.get("system"), raw.get("parameters", {}))
    for text in (prompt.user, prompt.system or ""):
        if not Template(text).is_valid():
            raise UserError(f"{where}: a dollar sign stands alone; write $$ for one.")
    if found := sorted(prompt.names - set(known)):
        raise UserError(f"{where}: ${found[0]} is none of {', '.join(f'${name}' for name in known)}.")
    if forbidden := prompt.parameters.keys() & _OURS:
        raise UserError(f"{where}: parameters must not set {forbidden.pop()}; that is svco's to do.")
