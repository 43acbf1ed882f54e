"""Any shards to VLF-type pairs: an image with its right answer against the same image corrupted with the wrong one.

So pairs come about that methods before S-VCO learn from (mDPO, POVID, CHiP): a negative image that shows less, not something
else. Deterministic: equal shards and settings give equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...basics.errors import BadSample, UserError
from ...basics.files import write_whole
from ...basics.progress import Progress, silent
from ...basics.strict_json import json_text
from ...data.corruption import corrupt, identity
from ...data.pairs import Pair
from ...data.pictures import decode_image, png_bytes
from ...data.shards import ShardSet, expand, write_shards
from ...data.splits import by_split
from ...recipe.config import CorruptConfig
from .manifest import described
from .target import MANIFEST, check, filling


def corrupt_pair(pair: Pair, config: CorruptConfig, side: int = 0) -> Pair:
    """(image, right answer) of ``side`` as it is, against (that image corrupted, as PNG: nothing is lost; the other answer).

    Key, query, contrast type and source stay. What the source knew of the images (``facts``) is dropped, as it is not true of
    a corrupted one; ``facts["corrupted"]`` says which side is corrupted, how, and of which side of the source. BadSample if
    the image does not decode.
    """
    text, data = pair.text, pair.images[side]
    made = corrupt(decode_image(data, f"sample {text.key!r}: image {side}"), text.key, side, config)
    origin = {"side": 1, "of": side, **identity(config)}
    ids = {name: value for name, value in text.ids.items() if not name.startswith(("image_", "sha256_"))}
    ids |= {f"{name}_0": text.ids[f"{name}_{side}"] for name in ("image", "sha256") if f"{name}_{side}" in text.ids}
    right, wrong = text.responses[side], text.responses[1 - side]
    text = replace(text, responses=(right, wrong), ids=ids, facts={"corrupted": origin})
    return Pair(text, (data, png_bytes(made)))


@dataclass
class _Made:
    """The corrupted pairs of all splits on their way to disk, with what was counted."""

    config: CorruptConfig
    """How."""
    side: int
    """The side that is kept."""
    allowed: float
    """How many pairs may be bad."""
    bad: list[str] = field(default_factory=list)
    """One a pair that was left out: the reason and what is the matter."""
    pairs: Counter[str] = field(default_factory=Counter)
    """Split -> pairs."""
    types: Counter[str] = field(default_factory=Counter)
    """Contrast type -> pairs."""

    def corrupted(self, shards: ShardSet, split: str, progress: Progress) -> Iterator[Pair]:
        for number in progress(range(len(shards)), f"corrupting {split}"):
            try:
                pair = corrupt_pair(shards.read(number), self.config, self.side)
            except BadSample as error:
                self._leave_out(error)
                continue
            self.pairs[split] += 1
            self.types[pair.text.contrast] += 1
            yield pair

    def _leave_out(self, error: BadSample) -> None:
        self.bad.append(f"{error.reason}: {error}")
        if len(self.bad) > self.allowed:
            raise UserError(
                f"{len(self.bad)} pairs are bad and {int(self.allowed)} may be; the last: {error}. Mend or remove them, or allow "
                "a share to be left out with --max-unreadable."
            )


def corrupt_shards(
    specs: str | Sequence[str],
    target: Path | str,
    config: CorruptConfig,
    *,
    side: int = 0,
    pairs_per_shard: int = 512,
    max_unreadable: float = 0.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Writes the pairs of shards ``specs`` with ``side`` kept (:func:`corrupt_pair`), their indices and MANIFEST.json into
    ``target``, split by split, and returns the manifest. Bad pairs are left out and named in it.

    UserError if ``target`` holds shards, or more than ``max_unreadable`` of the pairs are bad; then nothing is left there.
    """
    if pairs_per_shard < 1:
        raise UserError(f"--pairs-per-shard is {pairs_per_shard}; it must be at least 1.")
    check(target)
    splits = {split: ShardSet.open(shards) for split, shards in by_split(expand(specs)).items()}
    made = _Made(config, side, max_unreadable * sum(map(len, splits.values())))
    written = []
    with filling(target, progress) as partial:
        for split, shards in splits.items():
            written += write_shards(made.corrupted(shards, split, progress), partial, split, pairs_per_shard)
        if not made.pairs:
            raise UserError(f"No pair of {', '.join(splits)} is readable; the first: {made.bad[0]}.")
        manifest = {
            "version": 1,
            "corrupted": {"of": side, **identity(config)},
            "pairs": dict(made.pairs),
            "types": dict(sorted(made.types.items())),
            "left_out": {"unreadable": made.bad},
            "shards": described(written),
        }
        write_whole(partial / MANIFEST, json_text(manifest, indent=1))
    return manifest
