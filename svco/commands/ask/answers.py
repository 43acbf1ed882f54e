"""Answers as they come, and how likely each is under its image, without one and under the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...basics.errors import BadSample
from ...basics.views import BLIND, CLASH, MATCH
from ...batches.encode import EncodedPair
from ...batches.pack import PackedCollate
from ...data.pairs import PairText
from ...model.subject import Subject
from ..evaluation.generation import generate
from ..probe.tokens import Side, readable, split

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_TOKENS = 16384
"""Of question and answer at most; nobody asks for more."""


@dataclass(frozen=True)
class Picture:
    """An image that is asked about."""

    name: str
    """What it is called."""
    data: bytes
    """Its file."""
    image: Image
    """RGB."""


@dataclass(frozen=True)
class Answer:
    """What one model says to one image."""

    text: str
    """As it was generated, without white space around it."""
    is_cut: bool
    """It had not ended at the most tokens that were allowed."""
    pieces: tuple[str, ...] = ()
    """Text of each of its T tokens; none of an answer that cannot be scored."""
    special: tuple[bool, ...] = ()
    """Which are special tokens: the end of the turn."""
    logps: Side | None = None
    """(T, V) float64, nats: by the model that gave it, under match, blind and, with two images, clash."""
    why: str = ""
    """Why it has no log-probabilities."""


class Listener:
    """What ``generate`` streams to: hands on the text so far, whenever it has become longer."""

    def __init__(self, decode: Callable[[list[int]], str], told: Callable[[str], None], ends: list[int]):
        self.decode, self.told, self.ends = decode, told, ends
        self.ids: list[int] = []
        self._is_prompt = True
        self._before = ""

    def put(self, ids: Any) -> None:
        """The prompt first, then a token at a time."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self.ids += ids.flatten().tolist()
        text = self.decode(self.ids)
        # The bytes of a character may still be incomplete.
        if not text.endswith("�") and text != self._before:
            self._before = text
            self.told(text)

    def end(self) -> None:
        """Nothing is left over: what was incomplete is no text."""

    @property
    def has_ended(self) -> bool:
        """Whether the model itself ended its answer."""
        return bool(self.ids) and self.ids[-1] in self.ends


def models_of(subject: Subject) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """Name -> the context in which the loaded model is it: ``base``, and ``tuned`` where there is an adapter."""
    if subject.adapter is None:
        return {"base": nullcontext}
    return {"base": subject.scorer.as_reference, "tuned": nullcontext}


def answer(
    subject: Subject, picture: Picture, question: str, at_most: int, told: Callable[[str], None]
) -> tuple[str, bool]:
    """(the greedy answer, whether it was cut) of the model as it is; ``told`` hears its text as it grows. BadSample for a
    question or an image that cannot be put to this model."""
    prompt = subject.family.prompt(PairText("question", question, ("", "")), picture.image.size)
    listener = Listener(subject.family.decode, told, subject.family.ends)
    (text,) = generate(subject, [prompt], [picture.image], at_most, listener)
    return text, len(listener.ids) >= at_most and not listener.has_ended


def scored(subject: Subject, question: str, text: str, is_cut: bool, own: Picture, other: Picture | None) -> Answer:
    """``text`` with its log-probabilities by the model as it is, on the packed path. The end of a turn that a cut answer did not
    come to is left out."""
    import torch

    if not text:
        return Answer(text, is_cut, why="the answer is empty")
    # The second response is not scored: only side 0's cells are asked for.
    pair = PairText("question", question, (text, f"{text} …"))
    images = (own.image, (other or own).image)
    cells = {(0, MATCH), (0, BLIND)} | ({(0, CLASH)} if other else set())
    try:
        encoded = subject.family.encode_text(pair, (images[0].size, images[1].size))
    except BadSample as error:
        return Answer(text, is_cut, why=str(error))
    batch = PackedCollate(frozenset(cells))([EncodedPair(encoded, images, 1.0)], subject.family).to(subject.device)
    with torch.no_grad():
        logps = subject.scorer.token_logps(batch)
    ids, table = split(logps, batch, 1)[0][0]
    tokenizer = subject.family.tokenizer
    special = [i in set(tokenizer.all_special_ids) for i in ids.tolist()]
    pieces = readable(tokenizer, ids.tolist())
    kept = len(ids) - (_trailing(pieces, special) if is_cut else 0)
    views = 3 if other else 2
    return Answer(text, is_cut, tuple(pieces[:kept]), tuple(special[:kept]), table[:kept, :views])


def _trailing(pieces: list[str], special: list[bool]) -> int:
    """Tokens at the end that the template writes, not the model: the end of a turn and blanks before it."""
    backwards = zip(reversed(pieces), reversed(special))
    return next(
        (n for n, (piece, is_special) in enumerate(backwards) if not is_special and piece.strip()), len(special)
    )


def sums(found: Answer) -> dict[str, float]:
    """View -> log-probability of the whole answer, nats."""
    if found.logps is None:
        return {}
    return dict(zip(("match", "blind", "clash"), np.nansum(found.logps, axis=0).tolist()))


def gains(found: Answer) -> Iterator[tuple[str, float]]:
    """(text, match − blind in nats) of each token."""
    if found.logps is not None:
        yield from zip(found.pieces, (found.logps[:, MATCH] - found.logps[:, BLIND]).tolist(), strict=True)
