"""Records to shards: deterministic, with no image in two splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...basics.errors import BadSample, UserError
from ...basics.files import file_digest, write_whole
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...data.pairs import Pair, PairText
from ...data.pictures import BLANK, picture_file, read_picture, stored_alike
from ...data.shards import write_shards
from .images import Roots
from .records import NOT_STATED, Record
from .target import MANIFEST, filling

SPLITS = ("heldout", "val", "train")


@dataclass(frozen=True)
class Known:
    """What an image file is known by."""

    pixels: str
    """``Picture.digest``: equal for one picture in whatever file."""
    bytes: str
    """The SHA-256 of the file, in hex."""


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


def build(
    records: list[Record],
    images: Roots,
    target: Path | str,
    plan: BuildPlan,
    progress: Progress,
    no_contrast: list[BadSample] | None = None,
    rejected: int = 0,
) -> dict[str, Any]:
    """Writes shards and MANIFEST.json into ``target`` and returns the manifest, which also says that ``rejected`` pairs were left
    out before; nothing is left of them if that fails. UserError if ``target`` holds shards. Pairs whose two pictures are one are
    left out and go into ``no_contrast``.
    """
    with filling(target, progress) as folder:
        return _build(records, images, folder, plan, progress, [] if no_contrast is None else no_contrast, rejected)


def _build(
    records: list[Record],
    images: Roots,
    target: Path,
    plan: BuildPlan,
    progress: Progress,
    no_contrast: list[BadSample],
    rejected: int,
) -> dict[str, Any]:
    if plan.val + plan.heldout >= 1:
        raise UserError(f"--val {plan.val} and --heldout {plan.heldout} leave nothing to train on.")
    if unwritten := sum(not record.written for record in records):
        raise UserError(
            f"{unwritten} of {len(records)} pairs have no question and answers yet: svco data rewrite makes them of captions and "
            "instructions."
        )
    known, unreadable = _read_images(records, images, progress)
    usable = [record for record in records if all(path in known for path in record.images)]
    lost = len(records) - len(usable)
    if lost > plan.max_unreadable * len(records) or not usable:
        raise UserError(
            f"{lost} of {len(records)} pairs have an image that cannot be decoded; the first: {unreadable[0]}. Mend or "
            "remove them, or allow a share to be left out with --max-unreadable."
        )
    contrasts = [record for record in usable if not _one_picture(record, known)]
    no_contrast += [
        BadSample("same-images", f"{' and '.join(record.images)} show the same, which is no contrast")
        for record in usable
        if _one_picture(record, known)
    ]
    if not contrasts:
        raise UserError(f"No pair is a contrast; the first: {no_contrast[0]}.")
    unique = _unique(contrasts, known)
    splits = _split(unique, known, plan)
    written: list[Path] = []
    for split in SPLITS:
        chosen = sorted(splits[split], key=lambda number: _draw(plan.seed, f"order {number}"))
        pairs = _pairs([unique[number] for number in chosen], images, known, split, progress)
        written += write_shards(pairs, target, split, plan.pairs_per_shard)
    manifest = {
        "version": 1,
        "seed": plan.seed,
        "pairs": {split: len(splits[split]) for split in SPLITS},
        "types": dict(sorted(Counter(record.type for record in unique).items())),
        "sources": dict(sorted(Counter(record.source for record in unique).items())),
        "licences": dict(sorted(Counter(record.licence or NOT_STATED for record in unique).items())),
        "left_out": {
            "unreadable": lost,
            "no_contrast": len(no_contrast),
            "duplicate": len(contrasts) - len(unique),
            "rejected": rejected,
        },
        "shards": described(written),
    }
    write_whole(target / MANIFEST, json_text(manifest, indent=1))
    return manifest


def described(shards: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What a manifest says of each of ``shards``: name -> bytes and digest."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in shards}


def _read_images(records: list[Record], images: Roots, progress: Progress) -> tuple[dict[str, Known], list[str]]:
    """({path: what it is known by} of the images that decode, messages of those that do not)."""
    known, messages = {}, []
    for path in progress(sorted({path for record in records for path in record.images}), "reading images"):
        try:
            data = picture_file(images / path)
            picture = read_picture(data, str(images / path))
        except BadSample as error:
            messages.append(str(error))
            continue
        known[path] = Known(picture.digest, hashlib.sha256(data).hexdigest())
    return known, messages


def _one_picture(record: Record, known: dict[str, Known]) -> bool:
    return len({known[path].pixels for path in record.images}) == 1


def _unique(records: list[Record], known: dict[str, Known]) -> list[Record]:
    """Without repetitions of pictures, question and answers: the first record of each, in the place of the last."""
    seen = {_content(record, known): record for record in reversed(records)}
    return list(reversed(seen.values()))


def _content(record: Record, known: dict[str, Known]) -> str:
    """What makes a pair the pair it is, as a digest."""
    parts = [*(known[path].pixels for path in record.images), record.query, *record.responses, record.system]
    return hashlib.sha256(json_text(parts).encode()).hexdigest()


def _split(records: list[Record], known: dict[str, Known], plan: BuildPlan) -> dict[str, list[int]]:
    """Split -> record numbers. Pairs that share a picture of more than one colour, directly or through others, stay together."""
    parent: dict[str, str] = {}

    def node(number: int, path: str) -> str:
        pixels = known[path].pixels
        return f"{pixels} {number}" if pixels.startswith(BLANK) else pixels

    def root(image: str) -> str:
        while (above := parent.setdefault(image, image)) != image:
            parent[image] = parent[above]
            image = parent[image]
        return image

    for number, record in enumerate(records):
        first, second = (root(node(number, path)) for path in record.images)
        parent[max(first, second)] = min(first, second)
    groups: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        groups.setdefault(root(node(number, record.images[0])), []).append(number)
    wanted = {"heldout": round(plan.heldout * len(records)), "val": round(plan.val * len(records))}
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for group in sorted(groups, key=lambda image: _draw(plan.seed, image)):
        # A group that would overfill a small split goes to training, so that one large cluster cannot swallow it.
        split = next((s for s, size in wanted.items() if len(splits[s]) + len(groups[group]) <= size), "train")
        splits[split] += groups[group]
    if not splits["train"]:
        raise UserError(
            "No pair is left for training: the pairs share so few pictures' groups that val and heldout took all. Lower "
            "--val and --heldout."
        )
    return splits


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _pairs(
    chosen: list[Record], images: Roots, known: dict[str, Known], split: str, progress: Progress
) -> Iterator[Pair]:
    for record in progress(chosen, f"writing {split}"):
        text = PairText(
            key=f"pair-{_content(record, known)[:16]}",  # so that two builds share keys only where they share pairs
            query=record.query,
            responses=record.responses,
            contrast=record.type,
            source=record.source,
            ids={**record.ids, **{f"sha256_{side}": known[path].bytes for side, path in enumerate(record.images)}},
            system=record.system,
            kind=record.kind,
            facts={**record.facts, **({"provenance": record.provenance} if record.provenance else {})},
        )
        first, second = (picture_file(images / path) for path in record.images)
        yield Pair(text, stored_alike(first, second, " and ".join(record.images)))
