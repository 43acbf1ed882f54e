"""One request sent, one reply read; the only door to ``openai``.

The package retries what is worth a retry (429 after the pause that the server asks for, 5xx, cut connections). It does not look
at what a reply holds: a page of HTML with status 200, JSON that is cut, or no message at all are found here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError, first_line
from ..basics.strict_json import json_text, parse_json
from .cache import Reply, now
from .request import Request

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

ADDRESS, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
"""Environment variables, the package's own. Their values are never written anywhere."""
RETRIES = 2
"""Of the package, after the first attempt. Few: an endpoint that is slow may bill each."""
TIMEOUT = 600.0
"""Seconds for a reply. Generous: one that is given up may be billed all the same."""
_LONGEST_WORDS = 300


class Unanswered(Exception):
    """A request that brought no reply; ``times``: how often it was sent; ``broken``: something came that is no reply."""

    def __init__(self, message: str, times: int, broken: bool = False):
        super().__init__(message)
        self.times, self.broken = times, broken


class Endpoint:
    """The endpoint that the environment names: ``OPENAI_BASE_URL`` (unset: OpenAI's own) and ``OPENAI_API_KEY``. UserError
    where neither is set, and where the package ``openai`` is not installed. For many threads at once."""

    def __init__(self, timeout: float = TIMEOUT, retries: int = RETRIES):
        address, key = os.environ.get(ADDRESS), os.environ.get(KEY)
        if not (address or key):
            raise UserError(
                f"No endpoint is named. Set {KEY} for OpenAI, or {ADDRESS} (e.g. http://localhost:8000/v1), with {KEY} if it "
                "asks for one, for any other server of the same interface. They are read from the environment alone and never "
                "written down."
            )
        self.attempts = retries + 1
        self.client = _client(key or "none", timeout, retries)
        self._secrets = [secret for secret in (key, address, address and address.rstrip("/")) if secret]

    def send(self, request: Request) -> tuple[Reply, int]:
        """(the reply, how often the request was sent for it). Unanswered where there is none; UserError for what no other
        request would fare better with: a key that is refused, a model that is not there."""
        import openai

        try:
            raw = self.client.chat.completions.with_raw_response.create(**request.body)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(
                f"The endpoint refuses requests for model {request.model!r} with status {error.status_code}: "
                f"{self.words(error)} Look at {KEY}, {ADDRESS} and --model."
            ) from None
        except openai.APIStatusError as error:
            retried = error.status_code in (408, 409, 429) or error.status_code >= 500
            times = self.attempts if retried else 1
            raise Unanswered(f"status {error.status_code}: {self.words(error)}", times) from None
        except openai.APITimeoutError:
            raise Unanswered(f"no reply in {self.client.timeout:g} s", self.attempts) from None
        except openai.APIError as error:
            raise Unanswered(self.words(error), self.attempts) from None
        times = raw.retries_taken + 1
        try:
            return read_completion(raw.http_response.content, request), times
        except ValueError as error:
            raise Unanswered(f"what came is no reply: {self.words(error)}", times, broken=True) from None

    def hand_in(self, requests: bytes) -> str:
        """The id of a new batch of ``requests``, the bytes of a JSONL file. UserError where the endpoint takes none."""
        with self._refusals("it takes no batch"):
            uploaded = self.client.files.create(file=("requests.jsonl", requests), purpose="batch")
            return self.client.batches.create(
                input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
            ).id

    def batch(self, name: str) -> Batch:
        """How the batch of that id is. UserError where the endpoint does not say."""
        with self._refusals(f"it does not tell of batch {name}"):
            return self.client.batches.retrieve(name)

    def file(self, name: str) -> str:
        """The text of the file of that id. UserError where the endpoint does not give it."""
        with self._refusals(f"it does not give file {name}"):
            return self.client.files.content(name).text

    @contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        import openai

        try:
            yield
        except openai.APIError as error:
            raise UserError(f"The endpoint refuses: {what}. {self.words(error)}") from None

    def words(self, error: BaseException) -> str:
        """What ``error`` says, without the endpoint's address and key, in one short line."""
        said = first_line(error)
        # Of a status the package says little or shows the whole body; servers differ in where they put what is the matter.
        body = getattr(error, "body", None)
        if said.startswith("Error code: "):
            message = body.get("message") if isinstance(body, dict) else None
            said = str(message or body or said)
        said = " ".join(said.split())
        for secret in self._secrets:
            said = said.replace(secret, "…")
        return said[:_LONGEST_WORDS]


def _client(key: str, timeout: float, retries: int) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError:
        raise UserError("An endpoint is asked through the package openai: pip install 'svco[endpoint]'.") from None
    return OpenAI(api_key=key, timeout=timeout, max_retries=retries)


def read_completion(data: bytes | dict[str, Any], request: Request, batch: bool = False) -> Reply:
    """The reply in the body ``data`` of an answer to ``request``; ValueError, which says what came, where there is none."""
    if isinstance(data, bytes):
        try:
            data = parse_json(data)
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{_shown(data)} ({first_line(error)})") from None
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    if not (isinstance(data, dict) and isinstance(choice, dict) and isinstance(text, str)):
        raise ValueError(f"{_shown(data)} has no message")
    usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
    return Reply(
        model=str(data.get("model") or request.model),
        text=text,
        finish=str(choice.get("finish_reason") or "stop"),
        prompt_tokens=_count(usage, "prompt_tokens", request.prompt_tokens),
        reply_tokens=_count(usage, "completion_tokens", len(text) // 3),
        batch=batch,
        at=now(),
    )


def _count(usage: Any, name: str, otherwise: int) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise


def _shown(data: Any) -> str:
    told = data.decode(errors="replace") if isinstance(data, bytes) else json_text(data, ascii_only=False)
    return repr(" ".join(told.split())[:80])
