"""Winoground (arXiv 2204.03162) from its release: 400 pairs of captions of the same words, ``examples.jsonl`` beside
``images``, or parquet. Its scores are its own; the scorer is the likelihood of a caption, as in VisualGPTScore
(arXiv 2306.01879)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....data.tables import rows
from .paired import CAPTION_QUERY, SHOWN, PairItem, caption_measures, caption_summary, score_items, texts
from .protocol import Benchmark
from .rows import check_pictures, need, picture, split_rows

NAME = "winoground"


def read(folder: Path) -> list[PairItem]:
    """The pairs in the file's order; UserError for what is not the release."""
    items = [_item(where, row, folder) for where, row in _rows(folder)]
    try:
        check_pictures([image for item in items for image in item.images], folder)
    except UserError as error:
        if packed := next(iter(sorted(folder.rglob("images.zip"))), None):
            raise UserError(f"{error} Unpack {packed} beside it.") from None
        raise
    return items


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for lines in (folder / "examples.jsonl", folder / "data" / "examples.jsonl"):
        if lines.is_file():
            return rows(lines)
    return split_rows(folder, "test", NAME)


def _item(where: str, row: Mapping[str, Any], folder: Path) -> PairItem:
    need(row, where, "id", "image_0", "image_1")
    first, second = texts(row, where, "caption_0", "caption_1")
    # The lines of the release name pictures without their ending, ex_0_img_0 for images/ex_0_img_0.png.
    named = {name: f"{row[name]}.png" if isinstance(row[name], str) else row[name] for name in ("image_0", "image_1")}
    beside = ["images", "data/images"]
    images = tuple(picture(named, where, folder, name, beside=beside) for name in named)
    kind = str(row.get("collapsed_tag") or row.get("tag") or "")
    return PairItem(str(row["id"]), CAPTION_QUERY, (first, second), (images[0], images[1]), {"kind": kind})


BENCHMARK = Benchmark(
    NAME,
    title="Winoground, group score (log-probabilities)",
    fetch="git clone https://huggingface.co/datasets/facebook/winoground winoground && unzip winoground/data/images.zip -d "
    "winoground/data   (Git LFS; gated: its terms, for research alone, are accepted on its page)",
    read=read,
    answer=partial(score_items, NAME),
    measures=caption_measures,
    summary=caption_summary,
    headline="group_accuracy",
    shown=SHOWN,
)
