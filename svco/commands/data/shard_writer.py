"""The second pass of a build: pairs as a shard keeps them, and the shards."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from ...basics.errors import BadSample, UserError
from ...basics.parallel import in_parallel
from ...basics.strict_json import json_text
from ...data.pairs import Pair, PairText, encode_text
from ...data.pictures import picture_file, stored_alike
from ...data.shards import write_shard
from .images import Roots
from .known import FORM, Known, stored_picture
from .pairs_known import Pairs, key_of
from .unfinished import Unfinished

Item = tuple[PairText, tuple[str, str], tuple[Known, Known]]
"""(text, image paths, what they are known by)."""


class ShardWriter:
    """Writes shards of ``pairs`` into the folder ``work``, and no shard that is there already."""

    def __init__(self, pairs: Pairs, images: Roots, size: int | None, workers: int, work: Unfinished):
        self.pairs, self.images, self.size, self.workers, self.work = pairs, images, size, workers, work

    def write(self, name: str, chosen: list[int]) -> Path:
        """The shard ``name`` of these of the chosen pairs, in this order."""
        items = [self._item(number) for number in chosen]
        made_of = [FORM, self.size, [[text.key, encode_text(text).decode()] for text, _, _ in items]]
        # The texts have the digests of the pictures' files.
        recipe = hashlib.sha256(json_text(made_of).encode()).hexdigest()
        path = self.work.shard(name)
        if not self.work.has(name, recipe):
            pictures = {text.key: (_seen(known[0]), _seen(known[1])) for text, _, known in items}
            write_shard(in_parallel(self._pair, items, self.workers), path, pictures)
            self.work.keep(name, recipe)
        return path

    def _item(self, number: int) -> Item:
        record, known = self.pairs.spool[self.pairs.chosen[number]], self.pairs.known(self.pairs.chosen[number])
        text = PairText(
            key=key_of(self.pairs.content[number]),
            query=record.query,
            responses=record.responses,
            contrast=record.type,
            source=record.source,
            ids={**record.ids, **{f"sha256_{side}": found.bytes for side, found in enumerate(known)}},
            system=record.system,
            kind=record.kind,
            facts={**record.facts, **({"provenance": record.provenance} if record.provenance else {})},
        )
        return text, record.images, known

    def _pair(self, item: Item) -> Pair:
        """The pair with its pictures as both are kept (:func:`stored_alike`)."""
        text, paths, known = item
        first, second = (self._file(path, side) for path, side in zip(paths, known, strict=True))
        if known[0].plain and known[0].plain == known[1].plain:
            return Pair(text, (first, second))  # as would be found, without decoding them once more
        change = partial(stored_picture, size=self.size)
        return Pair(text, stored_alike(first, second, " and ".join(paths), change))

    def _file(self, path: str, known: Known) -> bytes:
        try:
            data = picture_file(self.images / path)
        except BadSample as error:
            raise UserError(f"{error}. It was there when the pictures were read; start again.") from None
        if hashlib.sha256(data).hexdigest() != known.bytes:
            raise UserError(f"{self.images / path} was changed while shards were built of it. Start again.")
        return data


def _seen(known: Known) -> tuple[Any, str]:
    return known.size, known.pixels
