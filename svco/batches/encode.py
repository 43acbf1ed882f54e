"""From pairs to the tensors of one micro-batch; runs in the loader's workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..basics.errors import BadSample
from ..data.contrast import decode_pair
from ..data.corruption import Corruptions
from ..data.pairs import Pair
from ..families import EncodedText, Family

FILLER_TOKEN = np.zeros(1, dtype=np.int64)
"""One token behind a one-token prefix: the least a rank can do while it keeps the order of collectives."""


@dataclass(frozen=True)
class EncodedPair:
    """A pair ready to be scored."""

    text: EncodedText
    """Its token ids."""
    images: tuple[Any, ...]
    """RGB PIL images by condition: side 0 and side 1; then, where some are wanted, None and the two corrupted (or None)."""
    weight: float
    """1, or 0 for a filler in the slot of a bad sample or an absent one."""


def admitted(pair: Pair, family: Family, equal_pictures: bool = False) -> tuple[tuple[Any, Any], EncodedText]:
    """(RGB PIL images, token ids) of a pair that ``family``'s base can be trained on and evaluated with; BadSample for any other.

    This is all that a run refuses of what :meth:`~svco.data.shards.ShardSet.read` gives it, and what ``svco data verify --base``
    lists. ``equal_pictures``: see ``data.equal_pictures``.
    """
    first, second = decode_pair(pair, equal_pictures)
    return (first, second), family.encode_text(pair.text, (first.size, second.size))


@dataclass(frozen=True)
class Encode:
    """Turns the slots of a micro-batch into a batch. A bad sample's slot is filled with weight 0 and reported."""

    family: Family
    """The model's adapter."""
    collate: Callable[[Sequence[EncodedPair], Family], Any]
    """Encoded pairs -> the scorer's batch."""
    corruptions: Corruptions = field(default_factory=Corruptions)
    """Corrupts the images where the cells of ``collate`` need that; none by default."""
    equal_pictures: bool = False
    """Whether pairs are taken whose two images show the same."""

    def __call__(self, slots: Sequence[Pair | BadSample]) -> tuple[Any, list[BadSample]]:
        """(batch, bad samples). No slots at all make a batch of one filler: a rank that ran out still takes part."""
        encoded, bad = [], []
        for slot in slots:
            try:
                encoded.append(self._encode(slot))
            except BadSample as error:
                bad.append(error)
                encoded.append(self._filler())
        return self.collate(encoded or [self._filler()], self.family), bad

    def _encode(self, slot: Pair | BadSample) -> EncodedPair:
        if isinstance(slot, BadSample):
            raise slot
        images, text = admitted(slot, self.family, self.equal_pictures)
        return EncodedPair(text, self.corruptions(images, slot.text.key), 1.0)

    def _filler(self) -> EncodedPair:
        image = self.family.filler_image()
        return EncodedPair(self.family.filler_text(FILLER_TOKEN), self.corruptions((image, image), "filler"), 0.0)
