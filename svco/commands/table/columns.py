"""The paper's columns, and in what the figures here differ from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..evaluation.benchmarks.table import BENCHMARKS


@dataclass(frozen=True)
class Column:
    """One of the paper's columns."""

    title: str
    """As the paper's rows have it."""
    benchmarks: tuple[str, ...]
    """Those that give it, the nearest to the paper's first."""
    measure: str = "score"
    """Of the benchmark's measures."""
    scale: float = 100.0
    """What it is multiplied by."""
    digits: int = 1
    """Shown."""
    printed: int = 1
    """Digits in the paper."""
    lower_is_better: bool = False
    """Whether its sign is flipped in TOTAL."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Benchmark -> what stands under the figure: how it is scored, where others score otherwise."""


_JUDGED = "another judge and prompt than the paper's"
COLUMNS = (
    Column("MMHal score", ("mmhal",), scale=1.0, digits=2, printed=2, notes={"mmhal": _JUDGED}),
    Column(
        "MMHal hallucination %", ("mmhal",), "hallucination", printed=0, lower_is_better=True, notes={"mmhal": _JUDGED}
    ),
    Column(
        "CV-Bench",
        ("cv_bench",),
        notes={"cv_bench": "the release's formula; lmms-eval gives the share of all questions instead"},
    ),
    Column("MMVP", ("mmvp",), notes={"mmvp": "pairs, with the files' answers; lmms-eval's copy corrects two pairs"}),
    Column("RealWorldQA", ("realworldqa",)),
    Column("MM-Vet", ("mm_vet",), printed=2, notes={"mm_vet": _JUDGED}),
    Column("LLaVA-Bench-W", ("llava_bench_w",), notes={"llava_bench_w": _JUDGED}),
    Column(
        "TextVQA",
        ("textvqa_ocr", "textvqa"),
        printed=2,
        notes={
            "textvqa_ocr": "OCR tokens in the prompt, as in the authors'; lmms-eval has none",
            "textvqa": "no OCR tokens in the prompt, where the authors' has them",
        },
    ),
    Column("ScienceQA", ("scienceqa",), printed=2, notes={"scienceqa": "the questions with an image"}),
)
"""In the order of the paper."""


def with_variants(held: Mapping[str, Path]) -> dict[str, Path]:
    """``held`` (benchmark -> its folder), and the scoring that is nearest to the paper's where other files of it are there."""
    found = dict(held)
    for column in COLUMNS:
        there = [folder for name, folder in held.items() if name in column.benchmarks]
        if there and column.benchmarks[0] in BENCHMARKS:
            found.setdefault(column.benchmarks[0], there[0])
    return {name: found[name] for name in BENCHMARKS if name in found}


def total(base: Mapping[str, float], other: Mapping[str, float]) -> tuple[float | None, tuple[str, ...]]:
    """The paper's TOTAL of ``other`` against ``base`` (title -> figure), and the columns that it is over: the mean relative
    change in %, its sign flipped where lower is better. Columns that one of them lacks, or in which the base has 0, do not
    count."""
    changes = {
        column.title: (-1 if column.lower_is_better else 1)
        * 100
        * (other[column.title] - base[column.title])
        / base[column.title]
        for column in COLUMNS
        if column.title in base and column.title in other and base[column.title]
    }
    return (sum(changes.values()) / len(changes) if changes else None), tuple(changes)
