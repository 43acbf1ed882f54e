"""One HTML page, nothing outside it: every response token coloured by what the image says about it, base beside tuned."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isnan
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.html import render
from ...basics.views import ALL_VIEWS, BLIND, CLASH, CORRUPT, MATCH
from ...data.pictures import png_bytes, read_picture
from .perplexity import NOTE
from .scale import legend, step
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
    """The whole page, ``page.html.j2`` filled; all text is escaped.

    ``reading``: what to see in it, the first line large; ``facts``: what was read with what; ``rule``: how ``cards`` were
    chosen; ``table``: rows of cells, the head first; ``words``: of ``perplexity.word_table``; ``views``: V of the
    log-probabilities.
    """
    quantities = quantities_of(views)
    return render(
        Path(__file__).with_name("page.html.j2"),
        title=title,
        reading=reading,
        facts=facts,
        table=table,
        note=NOTE,
        quantities=quantities,
        legend=legend(),
        rule=rule,
        pairs=[(card, sides(card, quantities)) for card in cards],
        words=_halves(words),
    )


def quantities_of(views: int) -> list[Quantity]:
    """What can be told of log-probabilities under the first ``views`` views."""
    return [quantity for quantity in QUANTITIES if max(quantity.views) < views]


def sides(card: Card, quantities: Sequence[Quantity]) -> list[dict[str, Any]]:
    """Both images of ``card`` and, model by model, the response to each: what the template's ``pair`` takes."""
    return [
        {
            "image": shown(card.images[side]),
            "corrupted": shown(card.corrupted[side]) if card.corrupted else None,
            "responses": {
                model: response(card.pieces[side], card.special[side], logps[side], quantities)
                for model, logps in card.logps.items()
            },
        }
        for side in (0, 1)
    ]


def shown(data: bytes) -> dict[str, Any]:
    """An image of the page, as the model sees it: ``src``, and ``small`` where pixels are to be sharp."""
    picture = read_picture(data, "an image of the page")
    if max(picture.size) > _WIDEST:
        smaller = picture.image.copy()
        smaller.thumbnail((_WIDEST, _WIDEST))
        stream = io.BytesIO()
        smaller.save(stream, "JPEG", quality=85)
        data, kind = stream.getvalue(), "jpg"
    elif not (kind := picture.plain):  # a browser would show it otherwise than the model saw it
        data, kind = png_bytes(picture.image), "png"
    mime = {"jpg": "image/jpeg", "png": "image/png"}[kind]
    return {"src": f"data:{mime};base64,{base64.b64encode(data).decode()}", "small": max(picture.size) < _SMALL}


def response(
    pieces: Sequence[str], special: Sequence[bool], logps: Side, quantities: Sequence[Quantity]
) -> dict[str, Any]:
    """One response token by token: the text of each token, whether it is a special one, and its (T, V) log-probabilities."""
    gaps = np.stack([quantity.of(logps) for quantity in quantities], axis=1)
    tokens = [
        _token(piece, is_special, row, gap, quantities)
        for piece, is_special, row, gap in zip(pieces, special, logps.tolist(), gaps.tolist(), strict=True)
    ]
    sums = zip(ALL_VIEWS, np.nansum(logps, axis=0).tolist())
    return {"tokens": tokens, "sums": ", ".join(f"{view} {signed(total)}" for view, total in sums)}


def _token(
    piece: str, special: bool, row: Sequence[float], gaps: Sequence[float], quantities: Sequence[Quantity]
) -> dict[str, str]:
    """``row`` (V,) log-probabilities, ``gaps`` one a quantity, nats."""
    classes = ["t", *(f"q{n}{step(gap)}" for n, gap in enumerate(gaps))]
    if special:
        classes.append("special")
    tip = [f"“{piece}”"]
    tip += [f"{view:<8}{signed(logp)}  {_chance(logp)}" for view, logp in zip(ALL_VIEWS, row)]
    tip += [f"{quantity.name}  {signed(gap, plus=True)}" for quantity, gap in zip(quantities, gaps)]
    text = piece.replace("\r\n", "\n").replace("\n", "↵\n")
    return {"classes": " ".join(classes), "tip": "\n".join(tip), "text": text}


def signed(nats: float, plus: bool = False) -> str:
    """With a true minus; a dash where the view did not score the token."""
    return "–" if isnan(nats) else f"{nats:{'+' if plus else ''}z.2f}".replace("-", "−")


def _chance(logp: float) -> str:
    return "" if isnan(logp) else f"({exp(logp):.2%})"


def _halves(words: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tokens that the image says most about, and those that it says least about, the least first."""
    half = (len(words) + 1) // 2
    most, least = words[:half], words[half:][::-1]
    halves = (("the image says most about", most), ("the image says least about", least))
    return [
        {"what": what, "models": list(rows[0]["gain"]), "rows": [_word(row) for row in rows]}
        for what, rows in halves
        if rows
    ]


def _word(row: Mapping[str, Any]) -> dict[str, Any]:
    gains = [(step(gain), signed(gain, plus=True)) for gain in row["gain"].values()]
    return {"token": repr(row["token"])[1:-1], "times": f"{row['count']:,}", "gains": gains}
