"""Benchmarks of paired images: two images, under one query two answers, each true of its own. They are scored as pairs of a shard
are, all cells of one in one packed row, and nothing is generated."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ....basics.errors import UserError
from ....basics.views import VIEWS
from ....data.pairs import Pair, PairText
from ....data.pictures import picture_size
from ....scores.measures import MATCHES, NAMES, matched
from ....scores.statistics import Measure, estimate
from ..scoring import score_source
from .protocol import Asking, Lines
from .rows import Picture, need, picture_bytes

CAPTION_QUERY = "Provide a one-sentence caption for the provided image."
"""What a caption is the answer to: LLaVA-1.5's instruction for captions in its own training data."""
SHOWN = {name: NAMES[name] for name in MATCHES}
"""Figures of a benchmark of captions -> how the page calls them."""


@dataclass(frozen=True)
class PairItem:
    """One pair of a benchmark."""

    name: str
    """Its key."""
    query: str
    """What is asked of both images."""
    responses: tuple[str, str]
    """Answers, each true of the image of its side."""
    images: tuple[Picture, Picture]
    """Image of side 0 and of side 1."""
    labels: Mapping[str, str | int]
    """What scores are told apart by."""


@dataclass(frozen=True)
class ItemSource:
    """The pairs of a benchmark, as a loader reads them: a :class:`~svco.data.pairs.PairSource`."""

    items: Sequence[PairItem]
    """The pairs."""

    def __len__(self) -> int:
        return len(self.items)

    def key(self, i: int) -> str:
        return self.items[i].name

    @cached_property
    def _sizes(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        return [(_size(item.images[0]), _size(item.images[1])) for item in self.items]

    def image_sizes(self, i: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return self._sizes[i]

    def pixels(self, i: int) -> tuple[str, str]:
        """Pictures are not compared: what a release pairs is a pair."""
        first, second = ("" if size == (0, 0) else f"image {side}" for side, size in enumerate(self._sizes[i]))
        return first, second

    def read(self, i: int) -> Pair:
        first, second = map(picture_bytes, self.items[i].images)
        return Pair(self.read_text(i), (first, second))

    def read_text(self, i: int) -> PairText:
        item = self.items[i]
        return PairText(item.name, item.query, item.responses)


def _size(image: Picture) -> tuple[int, int]:
    try:
        return picture_size(picture_bytes(image))
    except Exception:  # BadSample, and whatever Pillow raises: decoding the picture says what is the matter
        return (0, 0)


def texts(row: Mapping[str, Any], where: str, *fields: str) -> tuple[str, ...]:
    """The ``fields`` of ``row``, which must be text with something in it; UserError."""
    need(row, where, *fields)
    for name in fields:
        if not (isinstance(row[name], str) and row[name].strip()):
            raise UserError(f"{where}: {name} is {row[name]!r:.80}; it must be text.")
    return tuple(row[name] for name in fields)


def score_items(what: str, items: Sequence[PairItem], asking: Asking) -> list[dict[str, Any]]:
    """Scores every pair; the lines of the answers file, in order, on every rank. A collective.

    A line: key, query, responses, ``logps`` (2, 3) in nats (response of side s under its own image, no image and the other one;
    null: the pair could not be scored, and counts as wrong), ``tokens`` of each response, ``cut`` (response tokens beyond
    ``--max-text-tokens``, which were not scored), and the labels.
    """
    found, lengths = score_source(
        asking.subject, ItemSource(items), asking.world, effort=asking.effort, show=asking.show, what=what
    )
    row_of = {index: row for row, index in enumerate(found.index.tolist())}
    if unread := [item.name for number, item in enumerate(items) if number not in row_of]:
        warnings.warn(
            f"{len(unread)} pairs of {what} could not be scored and count as wrong: {', '.join(unread[:10])}",
            stacklevel=2,
        )
    lines = []
    for number, item in enumerate(items):
        row = row_of.get(number)
        lines.append(
            {
                "key": item.name,
                "query": item.query,
                "responses": list(item.responses),
                "logps": None if row is None else found.policy[row].tolist(),
                "tokens": None if row is None else found.tokens[row].tolist(),
                "cut": int(lengths.cut[number]),
                **item.labels,
            }
        )
    return lines


def logps_of(lines: Lines) -> np.ndarray:
    """(N, 2, 3) float64 of the lines of :func:`score_items`; NaN, which no comparison finds right, where there are none."""
    nothing = np.full((2, len(VIEWS)), np.nan)
    rows = [nothing if line["logps"] is None else np.asarray(line["logps"], float) for line in lines]
    return np.stack(rows) if rows else np.empty((0, *nothing.shape))


def count_pairs(lines: Lines, rule: str) -> dict[str, Any]:
    """What a paired benchmark's part of eval.json has beside its scores."""
    return {
        "questions": len(lines),
        "not_asked": sum(line["logps"] is None for line in lines),
        "cut": sum(line["cut"] > 0 for line in lines),
        "rule": rule,
    }


def caption_measures(lines: Lines, paper_compat: bool) -> dict[str, Measure]:
    """By pair. ``score``: the group score; beside it :func:`~svco.scores.measures.matched`'s, of which it is one."""
    found = matched(logps_of(lines))
    return {"score": found["group_accuracy"], **found}


def caption_summary(lines: Lines, paper_compat: bool) -> dict[str, Any]:
    """The part of eval.json of a benchmark of captions. ``score`` is the group score, from 0 to 1."""
    measures = matched(logps_of(lines))
    kinds = np.array([line["kind"] for line in lines])
    return {
        "score": measures["group_accuracy"].value,
        **estimates(measures),
        "by_kind": by(kinds, measures),
        **count_pairs(lines, f"log-probability of each caption as the answer to “{CAPTION_QUERY}”"),
    }


def estimates(measures: Mapping[str, Measure]) -> dict[str, Any]:
    """Measure -> its estimate, as eval.json has it."""
    return {name: estimate(measure).json() for name, measure in measures.items()}


def by(labels: np.ndarray, measures: Mapping[str, Measure]) -> dict[str, Any]:
    """Label -> how many have it, and their estimates; ``labels`` (N,) str in the order of the measures, empty: none."""
    return {
        label: {
            "pairs": int((labels == label).sum()),
            **estimates({name: measure[labels == label] for name, measure in measures.items()}),
        }
        for label in sorted(set(labels.tolist()) - {""})
    }
