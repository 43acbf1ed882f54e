"""A few of the pairs token by token, by the base and by what each run has made of it: the part of the page that loads models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...basics.dist import World
from ...basics.errors import BadSample, UserError
from ...basics.progress import silent
from ...basics.views import cells_to_evaluate
from ...batches.split import Split, cache_dir, make_loader
from ...data.order import GivenOrder
from ...data.pairs import Pair
from ...model.subject import load_subject
from ...recipe.read import load_recipe
from ..probe.command import models_of
from ..probe.page import Card
from ..probe.tokens import PairTokens, probe_pairs, readable
from .examples import check_here, index_of, rows_of
from .runs import RECIPE, Run


def token_cards(runs: Sequence[Run], count: int) -> tuple[list[Card], list[str]]:
    """(``count`` of the examples token by token by the base and by every run's weights, what stood in the way)."""
    problems: list[str] = []
    cards: dict[str, Card] = {}
    first = next((run for run in runs if run.scores is not None and len(run.scores.index)), None)
    for run in runs:
        if first is None:
            break
        try:
            _add_tokens(cards, run, first, count, with_base=not any("base" in card.logps for card in cards.values()))
        except (UserError, BadSample, OSError) as error:
            problems.append(f"{run.name} token by token: {error}")
    if first is None and count:
        problems.append("Nothing is shown token by token: no run has scored held-out pairs.")
    return [card for card in cards.values() if card.logps], problems


def _add_tokens(cards: dict[str, Card], run: Run, first: Run, count: int, with_base: bool) -> None:
    """Adds what ``run``'s weights, and the base, say of the examples of ``first``."""
    weights = next((run.folder / name for name in ("adapter", "model") if (run.folder / name).is_dir()), None)
    if weights is None:
        raise UserError("it has no weights yet.")
    config, world = load_recipe(run.folder / RECIPE), World()
    scored = load_recipe(first.folder / RECIPE)
    check_here(scored)
    whole = weights.name == "model"
    subject = load_subject(
        str(weights) if whole else config.model.base,
        None if whole else str(weights),
        max_text_tokens=config.data.max_text_tokens,
        paper_compat=config.model.paper_compat,
        device=world.device,
        progress=False,
    )
    data, cache = scored.data, cache_dir(scored)
    split = Split.open(data.heldout, subject.family, cache, world, silent, data.equal_pictures, "heldout")
    indices = np.array([index_of(first, row, split.shards) for row in rows_of(first, count)], np.int64)
    order = GivenOrder(indices, max(1, len(indices)))
    loader = make_loader(split, order, cells_to_evaluate(()), subject.family, config, world, 0, order.steps_per_epoch)
    models = models_of(subject)
    if whole:
        models = {"tuned": models["base"]}
    elif not with_base:
        models.pop("base")
    for tokens in probe_pairs(models, loader, world.device).pairs:
        named = {run.name if name == "tuned" else name: sides for name, sides in tokens.logps.items()}
        pair = split.shards.read(tokens.index)
        new, old = _card(pair, tokens, named, subject.family.tokenizer), cards.get(pair.text.key)
        if old is None:
            cards[pair.text.key] = new
        elif old.pieces == new.pieces:
            together = sorted({**old.logps, **named}.items(), key=lambda item: item[0] != "base")
            cards[pair.text.key] = replace(old, logps=dict(together))
        else:
            raise UserError("it reads the responses in other tokens than the run before it.")


def _card(pair: Pair, tokens: PairTokens, logps: dict[str, Any], tokenizer: Any) -> Card:
    special = set(tokenizer.all_special_ids)
    first, second = (ids.tolist() for ids in tokens.ids)
    return Card(
        key=pair.text.key,
        query=pair.text.query,
        contrast=pair.text.contrast,
        images=pair.images,
        corrupted=(),
        pieces=(readable(tokenizer, first), readable(tokenizer, second)),
        special=([i in special for i in first], [i in special for i in second]),
        logps=logps,
    )
