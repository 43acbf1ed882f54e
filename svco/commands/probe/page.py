"""One HTML page, nothing outside it: every response token coloured by what the image says about it, base beside tuned."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import exp, isnan
from typing import Any

import numpy as np

from ...basics.views import ALL_VIEWS, BLIND, CLASH, CORRUPT, MATCH
from .look import SCRIPT, legend, step, style
from .perplexity import NOTE
from .tokens import Side

_WIDEST = 320
"""Pixels: larger images go into the page scaled down."""
_SMALL = 128
"""Pixels: smaller ones are shown with their pixels sharp."""


@dataclass(frozen=True)
class Quantity:
    """A difference of two views of a token."""

    name: str
    """What it is called, e.g. ``match − blind``."""
    words: str
    """What it says."""
    views: tuple[int, int]
    """The first minus the second."""

    def of(self, logps: np.ndarray) -> np.ndarray:
        """(T,) nats, from (T, V)."""
        return logps[:, self.views[0]] - logps[:, self.views[1]]


QUANTITIES = (
    Quantity("match − blind", "what its own image adds to each token", (MATCH, BLIND)),
    Quantity("blind − clash", "what the other image takes from it", (BLIND, CLASH)),
    Quantity("match − corrupt", "what its own image, corrupted, no longer adds", (MATCH, CORRUPT)),
)
"""The last only where there is a fourth view."""


@dataclass(frozen=True)
class Card:
    """One pair on the page."""

    key: str
    """Its key."""
    query: str
    """What is asked."""
    contrast: str
    """Contrast type."""
    images: tuple[bytes, bytes]
    """The encoded images."""
    corrupted: tuple[bytes, ...]
    """The two as the corrupt view has them, where there is one."""
    pieces: tuple[Sequence[str], Sequence[str]]
    """Text of every token of the response of side 0 and of side 1."""
    special: tuple[Sequence[bool], Sequence[bool]]
    """Whether it is a special token, such as the end of the turn."""
    logps: Mapping[str, tuple[Side, Side]]
    """Model -> (T, V) of side 0 and side 1."""


def page(
    title: str,
    reading: Sequence[str],
    facts: Mapping[str, str],
    rule: str,
    table: Sequence[Sequence[str]],
    words: Sequence[Mapping[str, Any]],
    cards: Sequence[Card],
    views: int,
) -> str:
    """The whole page; all text is escaped.

    ``reading``: what to see in it, the first line large; ``facts``: what was read with what; ``rule``: how ``cards`` were
    chosen; ``table``: rows of cells, the head first; ``words``: of ``perplexity.word_table``; ``views``: V of
    the log-probabilities.
    """
    quantities = [quantity for quantity in QUANTITIES if max(quantity.views) < views]
    notes = "".join(f"<p>{escape(line)}</p>" for line in reading[1:])
    terms = escape("; ".join(f"{name}: {value}" for name, value in facts.items()))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{style(len(quantities))}</style></head>
<body data-show="0">
<header><h1>{escape(title)}</h1><p class="reading">{escape(reading[0])}</p>{notes}
<p>Blue: the image speaks for the token (its own makes it likelier, or the other one less likely); here the model looks. Grey: the
image makes no difference; here it guesses, or knows from the words before. Orange: the image speaks against it. Point at a token
for its log-probabilities.</p>
<p class="soft">{terms}</p>{_table(table)}<p class="soft">{escape(NOTE)}</p></header>
<div class="bar">{_choice(quantities)}{_legend()}</div>
<main><p class="soft">{escape(rule)}</p>
{"".join(_card(card, quantities) for card in cards)}
</main>
{_words(words)}
<div id="tip"></div><script>{SCRIPT}</script></body></html>
"""


def _choice(quantities: Sequence[Quantity]) -> str:
    fields = "".join(
        f'<label><input type="radio" name="show" value="{n}"{" checked" if n == 0 else ""}> <b>{escape(quantity.name)}</b>: '
        f"{escape(quantity.words)}</label>"
        for n, quantity in enumerate(quantities)
    )
    return f"<fieldset>{fields}</fieldset>"


def _legend() -> str:
    items = "".join(f'<li class="s{name}">{escape(words)}</li>' for name, words in legend())
    return f'<ul class="legend" aria-label="scale, nats">{items}<li class="soft">nats a token</li></ul>'


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows)]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>"


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("td" if n else "th", row) for n, row in enumerate(rows)]


def _card(card: Card, quantities: Sequence[Quantity]) -> str:
    sides = []
    for side in (0, 1):
        corrupted = "".join(
            _image(data, f"image {side}, corrupted") + "<figcaption>corrupted</figcaption>"
            for data in card.corrupted[side : side + 1]
        )
        models = "".join(_response(name, card, side, quantities) for name in card.logps)
        sides.append(
            f'<div class="side"><figure>{_image(card.images[side], f"image {side} of {card.key}")}'
            f'<figcaption>image {side} and its response</figcaption>{corrupted}</figure><div class="models">{models}</div></div>'
        )
    head = f'<h2><span class="kind">{escape(card.contrast)}</span>{escape(card.query)}</h2>'
    return f'<section class="pair">{head}{"".join(sides)}<p class="soft">{escape(card.key)}</p></section>'


def _image(data: bytes, words: str) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        kind = Image.MIME.get(image.format or "", "image/jpeg")
        size = max(image.size)
        if size > _WIDEST:
            image = image.convert("RGB")
            image.thumbnail((_WIDEST, _WIDEST))
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=85)
            data, kind = stream.getvalue(), "image/jpeg"
    small = ' class="small"' if size < _SMALL else ""
    return f'<img{small} alt="{escape(words)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def _response(model: str, card: Card, side: int, quantities: Sequence[Quantity]) -> str:
    logps = card.logps[model][side]
    gaps = [quantity.of(logps) for quantity in quantities]
    tokens = "".join(
        _token(piece, special, row, [float(gap[k]) for gap in gaps], quantities)
        for k, (piece, special, row) in enumerate(zip(card.pieces[side], card.special[side], logps, strict=True))
    )
    sums = ", ".join(f"{view} {_signed(float(total))}" for view, total in zip(ALL_VIEWS, np.nansum(logps, axis=0)))
    return (
        f'<div><h3>{escape(model)}</h3><p class="response" dir="auto">{tokens}</p>'
        f'<p class="sums">log-probability: {sums} nats</p></div>'
    )


def _token(piece: str, special: bool, row: np.ndarray, gaps: Sequence[float], quantities: Sequence[Quantity]) -> str:
    classes = " ".join(["t", *(["special"] if special else []), *(f"q{n}{step(gap)}" for n, gap in enumerate(gaps))])
    lines = [f"{view:<6}{_signed(float(value))}  {_chance(float(value))}" for view, value in zip(ALL_VIEWS, row)]
    lines += [f"{quantity.name}  {_signed(gap, plus=True)}" for quantity, gap in zip(quantities, gaps)]
    tip = escape("\n".join([f"“{piece}”", *lines])).replace("\n", "&#10;")
    shown = escape(piece.replace("\r\n", "\n").replace("\n", "↵\n"))
    return f'<span class="{classes}" title="{tip}">{shown}</span>'


def _signed(nats: float, plus: bool = False) -> str:
    """With a true minus; a dash where the view did not score the token."""
    return "–" if isnan(nats) else f"{nats:{'+' if plus else ''}z.2f}".replace("-", "−")


def _chance(logp: float) -> str:
    return "" if isnan(logp) else f"({exp(logp):.2%})"


def _words(words: Sequence[Mapping[str, Any]]) -> str:
    if not words:
        return ""
    half = (len(words) + 1) // 2
    halves = (("the image says most about", words[:half]), ("the image says least about", words[: half - 1 : -1]))
    return (
        '<h2>Over all pairs: tokens by their mean match − blind, nats</h2><div class="tables">'
        + "".join(f"<div><h3>{what}</h3>{_word_rows(rows)}</div>" for what, rows in halves if rows)
        + "</div>"
    )


def _word_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    models = list(rows[0]["gain"])
    head = "".join(f"<th>{escape(cell)}</th>" for cell in ("token", "times", *models))
    body = "".join(
        f'<tr><td class="word">{escape(repr(row["token"])[1:-1])}</td><td>{row["count"]:,}</td>'
        + "".join(f'<td class="s{step(row["gain"][m])}">{_signed(row["gain"][m], plus=True)}</td>' for m in models)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
