"""VisMin-Bench (arXiv 2407.16772) from its release: 2,084 pairs of captions and images that differ in one thing, as arrow or
parquet.

``text_0`` is ``image_0``'s, as the release's own evaluation has it (rabiulcste/vismin@29ce2c0); the first files on the hub, of
November 2024, had them mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .paired import CAPTION_QUERY, SHOWN, PairItem, caption_measures, caption_summary, score_items, texts
from .protocol import Benchmark
from .rows import check_pictures, need, picture, split_rows

NAME = "vismin_bench"


def read(folder: Path) -> list[PairItem]:
    """The pairs in the files' order; UserError for what is not the release."""
    items = [_item(where, row, folder) for where, row in split_rows(folder, "test", NAME)]
    check_pictures([image for item in items for image in item.images], folder)
    return items


def _item(where: str, row: Mapping[str, Any], folder: Path) -> PairItem:
    need(row, where, "id", "image_0", "image_1")
    first, second, category = texts(row, where, "text_0", "text_1", "category")
    images = picture(row, where, folder, "image_0"), picture(row, where, folder, "image_1")
    return PairItem(str(row["id"]), CAPTION_QUERY, (first, second), images, {"kind": category})


BENCHMARK = Benchmark(
    NAME,
    title="VisMin-Bench, group score (log-probabilities)",
    fetch="git clone https://huggingface.co/datasets/mair-lab/vismin-bench vismin_bench   (Git LFS; CC BY 4.0, by its hub card)",
    read=read,
    answer=partial(score_items, NAME),
    measures=caption_measures,
    summary=caption_summary,
    headline="group_accuracy",
    shown=SHOWN,
)
