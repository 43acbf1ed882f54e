"""One request for a chat completion, what names it, and about how long it is."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..basics.strict_json import json_text

CHARACTERS_A_TOKEN = 3.5
"""Of English prose under the tokenisers in use, taken low, so that an estimate is rather too high."""
TOKENS_A_MESSAGE = 8
"""What a chat template adds around a message, taken high."""
_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class Request:
    """The body of a POST to ``/chat/completions``."""

    body: Mapping[str, Any]
    """``model``, ``messages`` and whatever parameters the endpoint takes."""
    turn: int = 0
    """How often it was asked before: another number, another reply of the same request."""

    @cached_property
    def key(self) -> str:
        """What names it in the cache and in a batch: a digest of body and turn, and so of prompt, pictures, model and parameters.
        The endpoint's address is no part of it: one model has one name."""
        told = json_text([self.body, self.turn], sort_keys=True, ascii_only=False)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def model(self) -> str:
        """The model's name as the endpoint knows it."""
        return str(self.body["model"])

    @cached_property
    def prompt_tokens(self) -> int:
        """About how many tokens its text has. Pictures are not counted, see :attr:`images`."""
        length = sum(len(text) for text in self._texts())
        return math.ceil(length / CHARACTERS_A_TOKEN) + TOKENS_A_MESSAGE * len(self.body["messages"])

    @property
    def images(self) -> int:
        """How many pictures go along."""
        return sum(part["type"] == "image_url" for part in self._parts())

    @property
    def most_reply_tokens(self) -> int | None:
        """The bound on the reply's tokens that it sets; None if it sets none."""
        return next((self.body[name] for name in ("max_completion_tokens", "max_tokens") if name in self.body), None)

    def _parts(self) -> list[dict[str, Any]]:
        contents = [message["content"] for message in self.body["messages"]]
        return [part for content in contents if not isinstance(content, str) for part in content]

    def _texts(self) -> list[str]:
        plain = [message["content"] for message in self.body["messages"] if isinstance(message["content"], str)]
        return plain + [part["text"] for part in self._parts() if part["type"] == "text"]


def make_request(
    model: str,
    system: str | None,
    user: str,
    images: Sequence[bytes] = (),
    parameters: Mapping[str, Any] | None = None,
    turn: int = 0,
) -> Request:
    """A request of one user turn, ``images`` (files' bytes) before its text, after the ``system`` prompt if there is one."""
    content: Any = user
    if images:
        content = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
        content.append({"type": "text", "text": user})
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": content})
    return Request({"model": model, "messages": messages, **(parameters or {})}, turn)


def data_url(image: bytes) -> str:
    """An image file as a URL that holds it."""
    kind = next((name for magic, name in _MAGIC.items() if image.startswith(magic)), "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"
