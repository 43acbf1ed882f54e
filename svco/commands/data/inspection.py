"""What is in records or shards, counted in memory that does not grow with the pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.errors import BadSample, UserError
from ...basics.progress import Progress
from ...data.pairs import PairText
from ...data.pictures import picture_file, picture_size
from ...data.shards import ShardSet, expand
from ...data.splits import by_split
from ...families import Family
from .images import Roots
from .records import NOT_STATED, Record, stream_records
from .words import words_of

COUNTED = ("split", "source", "type", "kind", "licence")
"""What pairs are counted by."""
SHARES = (0.05, 0.5, 0.95)
"""Places in the order of size that are told, besides the first and the last."""
_NAMED = 20
_PLACE = "(none)"


@dataclass
class Spread:
    """How often each whole number was met: lengths and sizes have few different ones."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, number: int) -> None:
        self.counts[number] += 1

    def at(self, share: float) -> int:
        """The number that ``share`` of all are not above."""
        reached, wanted = 0, share * self.counts.total()
        for number, count in sorted(self.counts.items()):
            reached += count
            if reached >= wanted:
                return number
        raise ValueError("nothing was counted")

    def facts(self) -> dict[str, float]:
        total = self.counts.total()
        mean = sum(number * count for number, count in self.counts.items()) / total
        quantiles = {f"p{round(100 * share)}": self.at(share) for share in SHARES}
        return {
            "count": total,
            "mean": round(mean, 2),
            "least": min(self.counts),
            **quantiles,
            "most": max(self.counts),
        }


@dataclass
class Inspection:
    """What was counted."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    """Of ``COUNTED`` each: value -> pairs."""
    spreads: dict[str, Spread] = field(default_factory=dict)
    """What is measured -> how it is spread: texts by field and unit, pictures by their sides."""
    pairs: int = 0
    """Pairs that could be read."""
    unwritten: int = 0
    """Of these, those that have no question yet."""
    bad: Counter[str] = field(default_factory=Counter)
    """Reason -> pairs that could not be read, and pictures that could not be measured."""
    named: list[str] = field(default_factory=list)
    """The first of these."""

    def fail(self, error: BadSample) -> None:
        self.bad[error.reason] += 1
        if len(self.named) < _NAMED:
            self.named.append(str(error))

    def measure(self, name: str, number: int) -> None:
        self.spreads.setdefault(name, Spread()).add(number)

    def facts(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "pairs": self.pairs,
            "without_question": self.unwritten,
            **{name: dict(counts.most_common()) for name, counts in self.counts.items()},
            "measures": {name: spread.facts() for name, spread in self.spreads.items()},
            "bad": dict(self.bad),
        }


def inspect(inputs: Sequence[str], roots: Roots | None, family: Family | None, progress: Progress) -> Inspection:
    """Counts what is in ``inputs``: files of records (``.jsonl``), or shards. ``roots``: where the pictures of records are, for
    their sizes; ``family``: whose tokens are counted too. UserError for what stops the reading."""
    found = Inspection()
    records = [name for name in inputs if name.endswith((".jsonl", ".json"))]
    if records and len(records) < len(inputs):
        raise UserError("Records and shards are inspected apart: give files of records alone, or shards alone.")
    for name in records:
        left: list[BadSample] = []
        for record in progress(stream_records(Path(name), left), f"reading {name}"):
            _count(found, _of_record(record), family)
            if roots:
                _measure_files(found, record, roots)
        for error in left:
            found.fail(error)
    if not records:
        _shards(found, inputs, family, progress)
    return found


def _shards(found: Inspection, inputs: Sequence[str], family: Family | None, progress: Progress) -> None:
    for split, names in by_split(expand(inputs)).items():
        shards = ShardSet.open(names, progress=progress)
        for number in progress(range(len(shards)), f"reading {split}"):
            try:
                text = shards.read_text(number)
            except BadSample as error:
                found.fail(error)
                continue
            _count(found, _of_pair(text, split), family)
            for side, size in enumerate(shards.image_sizes(number)):
                if min(size):
                    _measure_size(found, size)
                else:
                    found.fail(BadSample("undecodable-image", f"{split}/{text.key}: image {side} cannot be read"))


@dataclass(frozen=True)
class _Told:
    """What is counted of one pair."""

    by: Mapping[str, str]
    """Of ``COUNTED`` each."""
    texts: Sequence[tuple[str, str]]
    """(field, text)."""
    written: bool = True


def _of_record(record: Record) -> _Told:
    by = {
        "source": record.source,
        "type": record.type,
        "kind": record.kind or "",
        "licence": record.licence or NOT_STATED,
    }
    texts = [("query", record.query), *(("response", text) for text in record.responses)]
    texts += [("caption", text) for text in record.captions or ()]
    texts += [("instruction", record.instruction or ""), ("system", record.system or "")]
    return _Told(by, [(name, text) for name, text in texts if text], record.written)


def _of_pair(text: PairText, split: str) -> _Told:
    provenance = text.facts.get("provenance")
    licence = provenance.get("licence") if isinstance(provenance, dict) else None
    by = {"split": split, "source": text.source, "type": text.contrast, "kind": text.kind or ""}
    by["licence"] = str(licence or NOT_STATED)
    texts = [
        ("query", text.query),
        *(("response", response) for response in text.responses),
        ("system", text.system or ""),
    ]
    return _Told(by, [(name, said) for name, said in texts if said])


def _count(found: Inspection, told: _Told, family: Family | None) -> None:
    found.pairs += 1
    found.unwritten += not told.written
    for name, value in told.by.items():
        found.counts[name][value or _PLACE] += 1
    for name, text in told.texts:
        found.measure(f"{name}, characters", len(text))
        found.measure(f"{name}, words", len(words_of(text)))
        if family:
            found.measure(f"{name}, tokens", tokens(family, text))


def tokens(family: Family, text: str) -> int:
    """How many tokens of the base's tokenizer ``text`` takes by itself."""
    return len(family.tokenizer(text, add_special_tokens=False)["input_ids"])


def _measure_size(found: Inspection, size: tuple[int, int]) -> None:
    width, height = size
    found.measure("picture, width", width)
    found.measure("picture, height", height)
    found.measure("picture, longer side", max(width, height))


def _measure_files(found: Inspection, record: Record, roots: Roots) -> None:
    for path in record.images:
        try:
            _measure_size(found, _size(path, roots))
        except BadSample as error:
            found.fail(error)


def _size(path: str, roots: Roots) -> tuple[int, int]:
    data = picture_file(roots / path)
    try:
        return picture_size(data)
    except BadSample:
        raise
    except Exception as error:  # OSError, SyntaxError, struct.error, ...: of what is no picture
        raise BadSample("undecodable-image", f"{roots / path} cannot be measured ({error})") from None
