"""What requests cost: a table in a file, an estimate before the first request, a bill after the last."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..basics.errors import UserError
from ..recipe.parse import parse_yaml, plain
from .cache import Spent
from .request import Request

SHIPPED = Path(__file__).with_name("prices.yaml")
"""The table that comes with svco."""
IMAGE_TOKENS = 765
"""Of a picture where the table does not say: a square of 1,024 pixels under GPT-4o's published rule."""
REPLY_TOKENS = 300
"""Of a reply to a request that sets no bound."""
_FIELDS = ("input", "output", "image", "batch")


@dataclass(frozen=True)
class Price:
    """Of one model."""

    input: float = 0.0
    """US dollars for a million tokens of prompt."""
    output: float = 0.0
    """US dollars for a million tokens of reply."""
    image: float = IMAGE_TOKENS
    """Tokens of a picture."""
    batch: float = 0.5
    """Share of the price that the Batch API asks for."""
    known: bool = True
    """False: the table does not have the model."""

    def of(self, prompt_tokens: float, reply_tokens: float, batch: bool = False) -> float | None:
        """US dollars; None where the price is unknown."""
        if not self.known:
            return None
        whole = (self.input * prompt_tokens + self.output * reply_tokens) / 1e6
        return whole * self.batch if batch else whole


def price_of(model: str, file: Path = SHIPPED) -> Price:
    """The price of ``model`` in the table ``file``; UserError for a table that is none."""
    try:
        table = plain(parse_yaml(file.read_text(encoding="utf-8"), str(file)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The table of prices {file} cannot be read: {error}") from None
    if not (
        isinstance(table, dict) and isinstance(table.get("models"), dict) and isinstance(table.get("free", []), list)
    ):
        raise UserError(f"{file} is no table of prices: it needs 'models', in the form that {SHIPPED} shows.")
    if any(fnmatch.fnmatch(model, str(pattern)) for pattern in table.get("free", [])):
        return Price()
    row = table["models"].get(model)
    return Price(known=False) if row is None else Price(**_numbers(row, f"{file}: model {model!r}"))


def _numbers(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not {"input", "output"} <= row.keys() <= set(_FIELDS):
        raise UserError(f"{where} must have input and output, and may have image and batch; it is {row!r}.")
    for name, value in row.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise UserError(f"{where}: {name} is {value!r}; it must be a number that is not negative.")
    return row


@dataclass
class Estimate:
    """What is going to be asked."""

    price: Price
    """Of the model."""
    batch: bool = False
    """Whether through the Batch API."""
    requests: int = 0
    """Requests that are not in the cache."""
    cached: int = 0
    """Requests that are."""
    prompt_tokens: float = 0
    """About."""
    reply_tokens: float = 0
    """At most."""

    def add(self, request: Request, cached: bool) -> None:
        """Counts ``request`` in."""
        if cached:
            self.cached += 1
            return
        self.requests += 1
        self.prompt_tokens += request.prompt_tokens + request.images * self.price.image
        self.reply_tokens += request.most_reply_tokens or REPLY_TOKENS

    def lines(self, times: int) -> Iterable[str]:
        """For a person; ``times``: how often a request is sent at worst, with all retries and new turns."""
        yield f"requests: {self.requests:,}, and {self.cached:,} whose replies are in the cache"
        yield f"tokens:   about {self.prompt_tokens:,.0f} of prompts, at most {self.reply_tokens:,.0f} of replies"
        dollars = self.price.of(self.prompt_tokens, self.reply_tokens, self.batch)
        if not dollars:
            yield f"price:    {money(dollars)}"
            return
        worst = self.price.of(self.prompt_tokens * times, self.reply_tokens * times, self.batch)
        yield f"price:    {money(dollars)} at most if every request succeeds at once" + (
            f"; {money(worst)} at worst, each sent and billed {times} times" if times > 1 else ""
        )


def bill(price: Price, spent: Spent) -> str:
    """What was spent, for a person."""
    at_once = price.of(spent.prompt_tokens, spent.reply_tokens)
    batched = price.of(spent.batch_prompt_tokens, spent.batch_reply_tokens, batch=True)
    total = None if at_once is None or batched is None else at_once + batched
    prompts, replies = spent.prompt_tokens + spent.batch_prompt_tokens, spent.reply_tokens + spent.batch_reply_tokens
    told = f"{spent.replies:,} replies, {prompts:,} tokens of prompts and {replies:,} of replies: {money(total)}"
    if spent.unanswered_tokens:
        perhaps = price.of(spent.unanswered_tokens, 0)
        told += (
            f"; attempts without a reply had {spent.unanswered_tokens:,} tokens of prompts: {money(perhaps)} if billed"
        )
    return told


def money(dollars: float | None) -> str:
    """``dollars`` for a person."""
    if dollars is None:
        return "unknown (the model is not in the table of prices, see --prices)"
    return "nothing" if dollars == 0 else f"${dollars:,.2f}" if dollars >= 0.1 else f"${dollars:.4f}"
