"""What a filter counted, in memory that does not grow with the pairs."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import numpy as np

from ..records import Record
from .thresholds import ALIKE, BOTH, CLIP, DINO, EXEMPT, KEPT, MIRRORED, UNLIKE, Threshold, Thresholds

POINTS = 20_000
"""Pairs that the scatter shows at most, drawn at random from all."""
NEAREST = 12
"""Borderline pairs that are shown, of those kept and of those not."""
ROWS = 8
"""Other thresholds that are shown of each score, besides the one asked for."""
CLASSES = {KEPT: "kept", MIRRORED: "exempt", EXEMPT: "exempt", UNLIKE: "left out", ALIKE: "left out", BOTH: "left out"}
"""Verdict -> how it is drawn."""
BINS = np.linspace(-1, 1, 201)
"""Edges of the histograms."""
_FINE = 201
"""Hundredths of a cosine."""


@dataclass
class Tally:
    """Counts of all pairs, and a few pairs to show."""

    thresholds: Thresholds
    """Which were asked for."""
    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(source, type, verdict) -> pairs."""
    unreadable: list[str] = field(default_factory=list)
    """Why, of the first pairs whose images cannot be read."""
    unread: int = 0
    """Pairs whose images cannot be read."""
    points: list[tuple[float, float, str]] = field(default_factory=list)
    """(clip, dino, class), a sample of all."""
    histograms: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """(score, class) -> pairs a bin of ``BINS``."""
    nearest: dict[bool, list[tuple[float, int, Record]]] = field(default_factory=lambda: {True: [], False: []})
    """Kept or not -> (minus the distance from the threshold, order, pair): heaps, the farthest on top."""

    def __post_init__(self) -> None:
        self._cells = np.zeros((_FINE, _FINE), np.int64)
        self._exempt = 0
        self._rng, self._seen = Random(0), 0

    def add(self, record: Record, scores: Mapping[str, float], verdict: str) -> None:
        """Counts one pair."""
        self.verdicts[record.source, record.type, verdict] += 1
        drawn = CLASSES[verdict]
        for name, value in scores.items():
            counts = self.histograms.setdefault((name, drawn), np.zeros(len(BINS) - 1, np.int64))
            counts[min(int((value + 1) * 100), len(counts) - 1)] += 1
        if drawn == "exempt":
            self._exempt += 1
        else:
            # Hundredths, in whole numbers: (k, k + 1] for what has to be above, [k, k + 1) for what has to be below.
            clip, dino = (round(1e6 * scores[name]) + 1_000_000 for name in (CLIP, DINO))
            self._cells[max(-(-clip // 10_000) - 1, 0), min(dino // 10_000, _FINE - 1)] += 1
        self._show(record, scores, drawn, self.thresholds[record.type])

    def _show(self, record: Record, scores: Mapping[str, float], drawn: str, threshold: Threshold) -> None:
        place = self._seen if self._seen < POINTS else self._rng.randrange(self._seen + 1)
        point = (scores[CLIP], scores[DINO], drawn)
        if place == len(self.points):
            self.points.append(point)
        elif place < POINTS:
            self.points[place] = point
        if drawn != "exempt":
            heap = self.nearest[drawn == "kept"]
            item = (-abs(threshold.margin(scores)), -self._seen, record)
            if len(heap) < NEAREST:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
        self._seen += 1

    def fail(self, reason: str) -> None:
        """Counts a pair whose images cannot be read."""
        self.unread += 1
        if len(self.unreadable) < 20:
            self.unreadable.append(reason)

    def would_keep(self, clip_above: float, dino_below: float) -> int:
        """The pairs that these thresholds, whole hundredths, would keep if all types had them."""
        clip, dino = (round(100 * value) + 100 for value in (clip_above, dino_below))
        return int(self._cells[clip:, :dino].sum()) + self._exempt

    def others(self) -> dict[str, list[float]]:
        """Score -> thresholds that divide the pairs, and the one asked for, in whole hundredths."""
        found = {}
        general = self.thresholds.general
        for axis, (score, asked) in enumerate(((CLIP, general.clip_above), (DINO, general.dino_below))):
            counts = self._cells.sum(1 - axis)
            shares = np.cumsum(counts) / max(1, counts.sum())
            places = [np.searchsorted(shares, (step + 0.5) / ROWS) for step in range(ROWS)]
            found[score] = sorted({round(place / 100 - 1, 2) for place in places} | {round(asked, 2)})
        return found

    @property
    def scored(self) -> int:
        return self._seen

    @property
    def kept(self) -> int:
        return sum(count for (_, _, verdict), count in self.verdicts.items() if CLASSES[verdict] != "left out")

    def borderline(self) -> list[tuple[bool, Record]]:
        """(kept, pair), the nearest to the thresholds first."""
        found = [
            (-distance, -order, kept, record) for kept, heap in self.nearest.items() for distance, order, record in heap
        ]
        return [(kept, record) for _, _, kept, record in sorted(found, key=lambda item: item[:2])]
