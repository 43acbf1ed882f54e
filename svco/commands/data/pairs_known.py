"""The pairs of a build: the records on the disk, and what has to be known of all of them at once."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ...basics.errors import BadSample, UserError, allowing
from ...basics.progress import Progress
from ...data.pairs import content_of
from .known import Known, Pictures
from .manifest import Recipes
from .records import NOT_STATED, Record
from .spool import Spool


class Pairs:
    """What is known of a build's pairs: some hundred bytes of each, besides its pictures."""

    def __init__(self, spool: Spool):
        self.spool = spool
        self.pictures = Pictures()
        self._sides = array("q")
        self.chosen = array("q")
        """The records that are built, by their number."""
        self.content: list[bytes] = []
        """What makes each of them the pair it is: 16 bytes."""
        self.recipes = Recipes()
        self.made = array("q")
        """The number of the recipe of each."""
        self.licences: Counter[str] = Counter()
        self._strata: dict[tuple[str, str], int] = {}
        self._stratum = array("q")

    def take_in(self, records: Iterable[Record], progress: Progress) -> None:
        """Writes ``records`` on the disk and numbers their pictures. UserError for records that have no question yet."""
        unwritten = 0
        for record in progress(records, "reading records"):
            self.spool.append(record)
            self._sides.extend(self.pictures.number(path) for path in record.images)
            unwritten += not record.written
        self.spool.flush()
        if not len(self.spool):
            raise UserError("There is no pair to build shards of: all of the records were rejected.")
        if unwritten:
            raise UserError(
                f"{unwritten} of {len(self.spool)} pairs have no question and answers yet: svco data rewrite makes them of "
                "captions and instructions."
            )

    def choose(self, max_unreadable: float, no_contrast: list[BadSample], progress: Progress) -> dict[str, int]:
        """Chooses what is built: readable, a contrast, and the first of each repetition. How many are left out, by reason."""
        problems = self.pictures.problems
        readable = [n for n in range(len(self.spool)) if problems.keys().isdisjoint(self._sides[2 * n : 2 * n + 2])]
        lost = len(self.spool) - len(readable)
        if lost > max_unreadable * len(self.spool) or not readable:
            allow = f" {allowing(lost, len(self.spool))}" if readable else ""
            raise UserError(
                f"{lost} of {len(self.spool)} pairs have an image that cannot be decoded; the first: {problems[min(problems)]}. "
                f"Mend or remove them, or allow a share to be left out with --max-unreadable{allow}."
            )
        seen: set[bytes] = set()
        repeated = 0
        for number in progress(readable, "comparing pairs"):
            record, known = self.spool[number], self.known(number)
            if known[0].pixels == known[1].pixels:
                shown = f"{' and '.join(record.images)} show the same, which is no contrast"
                no_contrast.append(BadSample("same-images", shown))
                continue
            pixels = [side.pixels for side in known]
            content = content_of(pixels, record.query, record.responses, record.system)
            if content in seen:
                repeated += 1
                continue
            seen.add(content)
            self._choose(number, record, content)
        if not self.chosen:
            raise UserError(f"No pair is a contrast; the first: {no_contrast[0]}.")
        return {"unreadable": lost, "no_contrast": len(no_contrast), "duplicate": repeated}

    def _choose(self, number: int, record: Record, content: bytes) -> None:
        self.chosen.append(number)
        self.content.append(content)
        self.made.append(self.recipes.number(record))
        self.licences[record.licence or NOT_STATED] += 1
        stratum = (record.source, record.type)
        self._stratum.append(self._strata.setdefault(stratum, len(self._strata)))

    def known(self, number: int) -> tuple[Known, Known]:
        """What the images of record ``number`` are known by."""
        first, second = self._sides[2 * number : 2 * number + 2]
        return self.pictures[first], self.pictures[second]

    @property
    def sides(self) -> np.ndarray:
        """(chosen, 2) numbers of their pictures."""
        return np.array(self._sides).reshape(-1, 2)[np.array(self.chosen)]

    def strata(self) -> tuple[list[tuple[str, str]], np.ndarray]:
        """((source, type) in their order, (chosen,) which of them each is)."""
        names = sorted(self._strata)
        place = {self._strata[name]: number for number, name in enumerate(names)}
        return names, np.array([place[stratum] for stratum in self._stratum])


def key_of(content: bytes) -> str:
    """The key of a pair of this content: two builds share keys only where they share pairs."""
    return f"pair-{content.hex()[:16]}"
