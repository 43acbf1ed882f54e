"""Records to shards: deterministic, with no image in two splits."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...basics.errors import BadSample, UserError
from ...basics.files import file_digest
from ...basics.progress import Progress
from ...data.pairs import Pair, PairText, decode_image
from ...data.shards import write_shards
from .images import Roots
from .records import NOT_STATED, Record

MANIFEST = "MANIFEST.json"
SPLITS = ("heldout", "val", "train")


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
    records: list[Record], images: Roots, target: Path, plan: BuildPlan, progress: Progress, rejected: int = 0
) -> dict[str, Any]:
    """Writes shards and MANIFEST.json into ``target`` and returns the manifest, which also says that ``rejected`` pairs were left
    out before. UserError if ``target`` holds shards."""
    refuse_full(target)
    if plan.val + plan.heldout >= 1:
        raise UserError(f"--val {plan.val} and --heldout {plan.heldout} leave nothing to train on.")
    if unwritten := sum(not record.written for record in records):
        raise UserError(
            f"{unwritten} of {len(records)} pairs have no question and answers yet: svco data rewrite makes them of captions and "
            "instructions."
        )
    digests, unreadable = _digest_images(records, images, progress)
    usable = [record for record in records if all(path in digests for path in record.images)]
    lost = len(records) - len(usable)
    if lost > plan.max_unreadable * len(records) or not usable:
        raise UserError(
            f"{lost} of {len(records)} pairs have an image that cannot be decoded; the first: {unreadable[0]}. Mend or "
            "remove them, or allow a share to be left out with --max-unreadable."
        )
    unique = _unique(usable, digests)
    splits = _split(unique, digests, plan)
    written: list[Path] = []
    for split in SPLITS:
        chosen = sorted(splits[split], key=lambda number: _draw(plan.seed, f"order {number}"))
        pairs = _pairs([(number, unique[number]) for number in chosen], images, split, progress)
        written += write_shards(pairs, target, split, plan.pairs_per_shard)
    manifest = {
        "version": 1,
        "seed": plan.seed,
        "pairs": {split: len(splits[split]) for split in SPLITS},
        "types": dict(sorted(Counter(record.type for record in unique).items())),
        "sources": dict(sorted(Counter(record.source for record in unique).items())),
        "licences": dict(sorted(Counter(record.licence or NOT_STATED for record in unique).items())),
        "left_out": {"unreadable": lost, "duplicate": len(usable) - len(unique), "rejected": rejected},
        "shards": described(written),
    }
    (target / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return manifest


def refuse_full(target: Path) -> None:
    """UserError if ``target`` holds shards."""
    if target.exists() and any(target.glob("*.tar")):
        raise UserError(f"{target} already holds shards; choose an empty folder.")


def described(shards: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What a manifest says of each of ``shards``: name -> bytes and digest."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in shards}


def _digest_images(records: list[Record], images: Roots, progress: Progress) -> tuple[dict[str, str], list[str]]:
    """({path: sha256 of its bytes} of the images that decode, messages of those that do not)."""
    digests, messages = {}, []
    for path in progress(sorted({path for record in records for path in record.images}), "reading images"):
        data = (images / path).read_bytes()
        try:
            decode_image(data, str(images / path))
        except BadSample as error:
            messages.append(str(error))
            continue
        digests[path] = hashlib.sha256(data).hexdigest()
    return digests, messages


def _unique(records: list[Record], digests: dict[str, str]) -> list[Record]:
    """Without repetitions of pictures, question and answers: the first record of each, in the place of the last."""
    seen = {(*(digests[path] for path in r.images), r.query, *r.responses, r.system): r for r in reversed(records)}
    return list(reversed(seen.values()))


def _split(records: list[Record], digests: dict[str, str], plan: BuildPlan) -> dict[str, list[int]]:
    """Split -> record numbers. Pairs that share a picture, directly or through others, stay together."""
    parent: dict[str, str] = {}

    def root(image: str) -> str:
        while (above := parent.setdefault(image, image)) != image:
            parent[image] = parent[above]
            image = parent[image]
        return image

    for record in records:
        first, second = (root(digests[path]) for path in record.images)
        parent[max(first, second)] = min(first, second)
    groups: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        groups.setdefault(root(digests[record.images[0]]), []).append(number)
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


def _pairs(chosen: list[tuple[int, Record]], images: Roots, split: str, progress: Progress) -> Iterator[Pair]:
    for number, record in progress(chosen, f"writing {split}"):
        text = PairText(
            key=f"pair-{number:08d}",
            query=record.query,
            responses=record.responses,
            contrast=record.type,
            source=record.source,
            ids=record.ids,
            system=record.system,
            kind=record.kind,
            facts={"provenance": record.provenance} if record.provenance else {},
        )
        first, second = (as_jpeg((images / path).read_bytes(), path) for path in record.images)
        yield Pair(text, (first, second))


def as_jpeg(data: bytes, where: str) -> bytes:
    """``data`` itself if it is an upright JPEG, else the picture upright (EXIF orientation applied) at quality 95."""
    from PIL import Image, ImageOps

    orientation = 0x0112
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "JPEG" and image.getexif().get(orientation, 1) == 1:
            return data
        upright = ImageOps.exif_transpose(image).convert("RGB")
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
