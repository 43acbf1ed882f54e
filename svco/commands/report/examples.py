"""Held-out pairs to look at: what is asked, both pictures, and what each run makes of the pair."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...basics.errors import BadSample, UserError
from ...basics.views import VIEWS
from ...data.pairs import Pair
from ...data.remote import is_remote
from ...data.shards import ShardSet
from ...recipe.config import Config
from ...recipe.read import load_recipe
from ...scores.pair_scores import pair_right
from ...scores.style import WORDS
from ..probe.page import shown
from .runs import RECIPE, Run

SAMPLES = "samples.png"
_LARGEST = 16 * 2**20
"""Bytes of a picture that is taken into the page."""
RULE = (
    "The rule: of every contrast type in turn, first the pairs that training turned, then in the shards' order; none is picked "
    "by hand. Bars are log-probabilities in nats on the pair's own scale: longer means less likely."
)


@dataclass(frozen=True)
class Example:
    """One pair."""

    key: str
    """Its key."""
    query: str
    """What is asked."""
    contrast: str
    """Contrast type."""
    sides: tuple[dict[str, Any], ...]
    """Of each side its image, its response, and by model three bars."""
    verdicts: tuple[tuple[str, bool], ...]
    """(model, whether under both images the true response is likelier than the other side's)."""


def examples(runs: Sequence[Run], count: int) -> tuple[list[Example], str]:
    """(pairs, why there are none): those of the first run that kept scores and whose shards are here, under every run that
    scored them."""
    why = "No run has scored held-out pairs yet." if count else ""
    for run in runs if count else ():
        if run.scores is None or not len(run.scores.index):
            continue
        try:
            shards = _opened(run)
            return [
                _example(runs, run, row, shards.read(index_of(run, row, shards))) for row in rows_of(run, count)
            ], ""
        except (UserError, BadSample, OSError) as error:
            why = f"The held-out pairs of {run.name} cannot be shown: {error}"
    return [], why


def rows_of(run: Run, count: int) -> list[int]:
    """The rows of a run's scores that are shown."""
    return run.scores.examples(count) if run.scores else []


def _opened(run: Run) -> ShardSet:
    config = load_recipe(run.folder / RECIPE)
    check_here(config)
    return ShardSet.open(config.data.heldout, config.data.cache_dir or None, split="heldout")


def check_here(config: Config) -> None:
    """UserError for shards that are elsewhere, as a page fetches nothing, and for none."""
    if not config.data.heldout:
        raise UserError("its recipe names no held-out shards.")
    if absent := [spec for spec in config.data.heldout if is_remote(spec)]:
        raise UserError(f"its shards, {absent[0]}, are elsewhere, and nothing is fetched for a page.")


def index_of(run: Run, row: int, shards: ShardSet) -> int:
    """The pair's place in the shards; UserError where they are not those that were scored."""
    assert run.scores is not None
    index, key = int(run.scores.index[row]), str(run.scores.key[row])
    if not 0 <= index < len(shards) or shards.key(index) != key:
        raise UserError(f"the shards have changed since: {key!r} is not where it was.")
    return index


def _example(runs: Sequence[Run], first: Run, row: int, pair: Pair) -> Example:
    logps = _by_model(runs, first, row)
    low = min(float(values[..., : len(VIEWS)].min()) for values in logps.values())
    sides = tuple(
        {
            "image": shown(pair.images[side]),
            "response": pair.text.responses[side],
            "models": [(name, _bars(values[side], low)) for name, values in logps.items()],
        }
        for side in (0, 1)
    )
    verdicts = tuple((name, bool(pair_right(values[None])[0])) for name, values in logps.items())
    return Example(pair.text.key, pair.text.query, pair.text.contrast, sides, verdicts)


def _by_model(runs: Sequence[Run], first: Run, row: int) -> dict[str, np.ndarray]:
    """Name -> (2, V): before training, and after it in every run that scored the pair."""
    assert first.scores is not None
    key, found = first.scores.key[row], {"before": first.scores.before[row]}
    for run in runs:
        if run.scores is not None and len(rows := np.flatnonzero(run.scores.key == key)):
            found["after" if len(runs) == 1 else run.name] = run.scores.after[rows[0]]
    return found


def _bars(logps: np.ndarray, low: float) -> list[dict[str, str]]:
    width = [100 * float(value) / low if low < 0 and np.isfinite(value) else 0.0 for value in logps]
    return [
        {
            "view": view,
            "words": WORDS[view],
            "width": f"{min(100.0, max(0.5, width[v])):.1f}",
            "nats": f"{float(logps[v]):.2f}".replace("-", "−"),
        }
        for v, view in enumerate(VIEWS)
    ]


def contact_sheet(runs: Sequence[Run]) -> tuple[str, str]:
    """(run, its ``samples.png`` as an address) of the first run that has one; empty where there is none."""
    for run in runs:
        path = run.folder / SAMPLES
        try:
            if path.stat().st_size <= _LARGEST and (data := path.read_bytes()).startswith(b"\x89PNG"):
                return run.name, f"data:image/png;base64,{base64.b64encode(data).decode()}"
        except OSError:
            continue
    return "", ""
