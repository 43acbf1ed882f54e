"""VLFeedback's ratings, or mDPO's subset of it, to VLF-type pairs: one image, a better and a worse answer.

Side 1's image is the image corrupted, which is how methods before S-VCO learn from such data (``svco/data/corruption.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any, get_args

from ....basics.errors import BadSample, UserError
from ....data.pictures import decode_image
from ....data.tables import rows
from ....recipe.config import CorruptConfig, CorruptKind
from ..records import Record
from .raw import Option, Raw, Source, need, rest

ASPECTS = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
"""What an answer is rated for; a pair is judged by their mean."""
_FOLDER, _SUBSET = "merged_images", ("img_path", "prompt", "chosen", "rejected")


def read(raw: Raw) -> Iterator[Record]:
    """Pairs of answers of unequal rating: the best and the worst of each prompt, or all. Ties and answers whose ratings are no
    numbers are counted."""
    from ....data.corruption import identity  # numpy, which a quick --help does without

    config = CorruptConfig(kind=raw.options.get("corrupt", "crop"))
    pairs: list[tuple[dict[str, str], tuple[str, str], dict[str, Any]]]
    for where, item in rows(raw.path):
        if "img_path" in item:
            need(item, _SUBSET, where, "a pair of mDPO's subset")
            image = str(item["img_path"])
            image = image if "/" in image else f"{_FOLDER}/{image}"
            name = PurePosixPath(image).stem
            pairs = [({"id": name}, (item["chosen"], item["rejected"]), {})]
        else:
            need(item, ("id", "prompt", "completions"), where, "a row of VLFeedback")
            image, name = f"{_FOLDER}/{item['id']}.jpg", str(item["id"])
            pairs = list(_pairs(raw, item, where))
        images = [image, _corrupted(raw, image, name, config)] if pairs else []
        more = rest(item, *_SUBSET, "id", "completions", "models")
        for ids, texts, extra in pairs:
            yield from raw.record(
                where,
                query=item["prompt"],
                images=images,
                responses=list(texts),
                kind=f"preference-{config.kind}",
                ids=ids,
                extra={**more, **extra, "corrupted": {"side": 1, "of": 0, **identity(config)}},
            )


def _pairs(
    raw: Raw, item: dict[str, Any], where: str
) -> Iterator[tuple[dict[str, str], tuple[str, str], dict[str, Any]]]:
    """(ids, the better and the worse answer, their ratings) of the pairs of a row."""
    rated = []
    if not isinstance(item["completions"], list):
        raise UserError(f"{where}: completions is {item['completions']!r:.80}; it must be a list.")
    for number, answer in enumerate(item["completions"]):
        need(answer, ("annotations", "response"), f"{where}, completion {number}", "a completion of VLFeedback")
        if _rating(answer) is None:
            raw.leave_out("an answer without three ratings")
        elif not str(answer["response"]).strip():
            raw.leave_out("an empty answer")
        else:
            rated.append(answer)
    rated.sort(key=_order, reverse=True)
    taken = rated if raw.options.get("pairs") == "all" else rated[:1] + rated[1:][-1:]
    for better, worse in combinations(taken, 2):
        if _order(better) == _order(worse):
            raw.leave_out("a tie")
            continue
        ids = {"id": str(item["id"]), "chosen": str(better.get("model")), "rejected": str(worse.get("model"))}
        yield ids, (better["response"], worse["response"]), {"ratings": [_order(better), _order(worse)]}


def _rating(answer: dict[str, Any]) -> float | None:
    """The mean of an answer's ratings, which are strings; None unless all three are numbers."""
    try:
        mean = sum(float(answer["annotations"][aspect]["Rating"]) for aspect in ASPECTS) / len(ASPECTS)
    except (KeyError, TypeError, ValueError):
        return None
    return mean if math.isfinite(mean) else None


def _order(answer: dict[str, Any]) -> float:
    return _rating(answer) or 0.0


def _corrupted(raw: Raw, image: str, name: str, config: CorruptConfig) -> str:
    """Makes the corrupted copy; its path, which is missing where the image is."""
    from ....data.corruption import corrupt

    path = f"{PurePosixPath(image).with_suffix('')}.{config.kind}.png"
    if (file := raw.roots.find(image)) is None:
        raw.stands_for = (path, image)
        return path
    try:
        made = corrupt(decode_image(file.read_bytes(), str(file)), name, 0, config)
    except BadSample as error:
        raise UserError(f"{error}. Fetch it again, or remove it and allow --max-missing.") from None
    # Without loss: what a second JPEG loses on one side alone is something to learn in place of the contrast.
    return raw.make(path, lambda target: made.save(target, "PNG"))


SOURCE = Source(
    "vlfeedback",
    "VLFeedback: rated answers about one image, or mDPO's subset of it",
    "vlfeedback_80k.jsonl, or mDPO's JSON (img_path, prompt, chosen, rejected)",
    read,
    origins={_FOLDER: "VLFeedback's merged_images.zip (Hugging Face: MMInstruction)"},
    options={
        "pairs": Option("best-worst", "answers of one prompt that become pairs", ("best-worst", "all")),
        "corrupt": Option("crop", "what side 1's image is", get_args(CorruptKind)),
    },
)
