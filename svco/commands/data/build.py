"""Records to shards: deterministic, resumable, with nothing that looks alike in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...basics.errors import BadSample, UserError
from ...basics.files import write_whole
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...data.near_bits import NEAR
from .apart import SPLITS, divided, draw, grouped
from .choices import Rejects
from .images import Roots
from .manifest import VERSION, described
from .pairs_known import Pairs
from .records import Record
from .shard_writer import ShardWriter
from .spool import Spool
from .target import MANIFEST, check, filling
from .unfinished import Unfinished


@dataclass(frozen=True)
class BuildPlan:
    """How records become splits and shards."""

    seed: int = 0
    """Decides which pairs go to which split, and their order in the shards."""
    val: float = 0.02
    """Share of the pairs in the validation split."""
    heldout: float = 0.02
    """Share of the pairs in the held-out split."""
    pairs_per_shard: int = 512
    """Pairs a tar."""
    max_unreadable: float = 0.0
    """Share of pairs that may be left out because an image does not decode."""
    near_duplicates: int | None = NEAR
    """Bits in which the hashes of pictures that look alike may differ (:mod:`svco.data.looks`); None: equal pixels alone."""
    size: int | None = None
    """Pixels that the longer side of a stored picture may have; larger ones are reduced."""


@dataclass
class Built:
    """What a build made, and what it used of an earlier one."""

    manifest: dict[str, Any]
    """As it was written."""
    pictures_used: int
    """Pictures that an unfinished build had looked at."""
    shards_used: int
    """Shards that it had written."""


def build(
    records: Iterable[Record],
    images: Roots,
    target: Path | str,
    plan: BuildPlan,
    progress: Progress,
    *,
    workers: int = 1,
    no_contrast: list[BadSample] | None = None,
    rejects: Rejects | None = None,
    origin: Callable[[], Mapping[str, Any]] = dict,
) -> Built:
    """Writes shards and MANIFEST.json into ``target``: the same bytes whatever ``workers``, threads that read, decode and encode.

    What it has done is beside the target until it is finished (:class:`~.unfinished.Unfinished`), and a build of the same target
    goes on with it. ``records`` are read once; those that ``rejects`` names are left out. Pairs whose two pictures are one
    are left out and go into ``no_contrast``. ``origin`` is asked, once they are read, what the manifest
    is to say of where they come from. UserError if ``target``
    holds other shards.
    """
    if plan.val + plan.heldout >= 1:
        raise UserError(f"--val {plan.val} and --heldout {plan.heldout} leave nothing to train on.")
    bad = [] if no_contrast is None else no_contrast
    check(target)
    with Unfinished(target) as work:
        spool = Spool(work.records)
        try:
            pairs = Pairs(spool)
            pairs.take_in(rejects.without(records) if rejects else records, progress)
            used = pairs.pictures.read(images, plan.size, workers, work.pictures, progress)
            left_out = pairs.choose(plan.max_unreadable, bad, progress)
            told = _write(pairs, plan, ShardWriter(pairs, images, plan.size, workers, work), progress)
        finally:
            spool.close()
        left_out["rejected"] = rejects.left_out if rejects else 0
        head = {"version": VERSION, "svco": __version__, "made_of": dict(origin()), "build": asdict(plan)}
        manifest = {**head, "seed": plan.seed, "left_out": left_out, **told}
        text = json_text(manifest, indent=1)
        names = list(told["shards"])
        if not work.clear_target(names, text):
            with filling(target, progress) as folder:
                work.hand_over(names, folder)
                write_whole(folder / MANIFEST, text)
    return Built(manifest, used, work.shards_used)


def _write(pairs: Pairs, plan: BuildPlan, writer: ShardWriter, progress: Progress) -> dict[str, Any]:
    """Divides the pairs and writes their shards; what the manifest says of both."""
    groups = grouped(pairs.sides, pairs.pictures, plan.near_duplicates)
    names, strata = pairs.strata()
    shares = {"heldout": plan.heldout, "val": plan.val}
    split_of = divided(groups, strata, pairs.content, shares, plan.seed)
    numbers = {split: [n for n, of in enumerate(split_of) if of == split] for split in SPLITS}
    shards: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        order = sorted(numbers[split], key=lambda number: draw(plan.seed, f"order {pairs.content[number].hex()}"))
        chunks = [order[at : at + plan.pairs_per_shard] for at in range(0, len(order), plan.pairs_per_shard)]
        for number, chunk in enumerate(progress(chunks, f"writing shards of {split}")):
            path = writer.write(f"{split}-{number:06d}.tar", chunk)
            made = " ".join(str(pairs.made[n]) for n in chunk)
            shards[path.name] = {**described([path])[path.name], "pairs": len(chunk), "recipes": made}
    sizes = np.unique(groups, return_counts=True)[1]
    counts = {split: Counter(strata[numbers[split]].tolist()) for split in SPLITS}
    in_strata = [
        {"source": source, "type": kind, **{split: counts[split][number] for split in SPLITS}}
        for number, (source, kind) in enumerate(names)
    ]
    return {
        "pairs": {split: len(numbers[split]) for split in SPLITS},
        "types": _summed(names, strata, 1),
        "sources": _summed(names, strata, 0),
        "licences": dict(sorted(pairs.licences.items())),
        "strata": in_strata,
        "components": {"count": len(sizes), "largest": int(sizes.max()), "of_several": int((sizes > 1).sum())},
        "pictures": {"files": len(pairs.pictures), "resized": pairs.pictures.resized},
        "recipes": pairs.recipes.found,
        "shards": shards,
    }


def _summed(names: list[tuple[str, str]], strata: np.ndarray, place: int) -> dict[str, int]:
    """Source or type -> pairs."""
    counts: Counter[str] = Counter()
    for name, count in zip(names, np.bincount(strata, minlength=len(names)).tolist(), strict=True):
        counts[name[place]] += count
    return dict(sorted(counts.items()))
