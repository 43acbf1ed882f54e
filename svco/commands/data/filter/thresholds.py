"""What is kept: thresholds, by contrast type where one differs, and the verdict on a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ....basics.errors import UserError
from ....data.pairs import CONTRASTS

CLIP, DINO = "clip", "dino"
"""The two scores: cosines of the images under an encoder of meaning (CLIP, SigLIP) and of looks (DINOv2)."""
KEPT, MIRRORED, EXEMPT = "kept", "kept: mirrored", "kept: exempt kind"
UNLIKE, ALIKE, BOTH = "meaning too far apart", "looks too alike", "meaning too far apart and looks too alike"
VERDICTS = (KEPT, MIRRORED, EXEMPT, UNLIKE, ALIKE, BOTH)
"""A mirrored pair's similarities say nothing of its contrast, so it is kept whatever they are."""


@dataclass(frozen=True)
class Threshold:
    """A pair is kept when its cosine under CLIP is above, and under DINOv2 below; both strictly."""

    clip_above: float = 0.7
    """The paper's, for SigLIP so400m-patch14-384."""
    dino_below: float = 0.5
    """The paper's, for DINOv2-large."""

    def verdict(self, scores: Mapping[str, float]) -> str:
        """On a pair of these scores."""
        unlike, alike = not scores[CLIP] > self.clip_above, not scores[DINO] < self.dino_below
        return BOTH if unlike and alike else UNLIKE if unlike else ALIKE if alike else KEPT

    def margin(self, scores: Mapping[str, float]) -> float:
        """How far a pair is from the other verdict: above 0 kept, else not."""
        return min(scores[CLIP] - self.clip_above, self.dino_below - scores[DINO])


@dataclass(frozen=True)
class Thresholds:
    """One for all types, and others for some."""

    general: Threshold = Threshold()
    """Where a type has none of its own."""
    of_type: Mapping[str, Threshold] = field(default_factory=dict)
    """Contrast type -> its own."""
    exempt: frozenset[str] = frozenset()
    """Kinds of pairs that are kept whatever their scores."""

    def __getitem__(self, kind: str) -> Threshold:
        return self.of_type.get(kind, self.general)

    def verdict(self, kind: str, finer: str | None, scores: Mapping[str, float], mirrored: bool) -> str:
        """On a pair of contrast type ``kind`` and the source's own type ``finer``."""
        if finer in self.exempt:
            return EXEMPT
        return MIRRORED if mirrored else self[kind].verdict(scores)


def read_thresholds(general: Threshold, given: Sequence[str], exempt: Sequence[str]) -> Thresholds:
    """Of ``TYPE=CLIP,DINO`` texts; UserError for what is none, and for a cosine that there is not."""
    own = {}
    for text in given:
        kind, equals, numbers = text.partition("=")
        try:
            clip, dino = map(float, numbers.split(","))
        except ValueError:
            equals = ""
        if not equals or kind not in CONTRASTS:
            raise UserError(
                f"--threshold is {text!r}; it must be TYPE=CLIP,DINO, such as attribute=0.8,0.6, with TYPE one of "
                f"{', '.join(CONTRASTS)}."
            )
        own[kind] = Threshold(clip, dino)
    for threshold in (general, *own.values()):
        for value in (threshold.clip_above, threshold.dino_below):
            if not -1 <= value <= 1:
                raise UserError(f"A threshold is {value}; cosines lie between -1 and 1.")
    return Thresholds(general, own, frozenset(exempt))
