"""What ``svco probe`` does with its arguments."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.markdown import markdown
from ...basics.progress import shown
from ...basics.secrets import redacted
from ...basics.strict_json import json_text
from ...basics.views import BLIND, CORRUPT, MATCH, cells_to_evaluate
from ...batches.loader import Loader
from ...batches.pack import PackedBatch
from ...batches.split import Split, evaluation_loader
from ...data.corruption import corrupt
from ...data.pairs import Pair
from ...data.pictures import decode_image
from ...data.schema import CONTRASTS
from ...data.shards import DEFAULT_CACHE, ShardSet, expand
from ...export import public_base
from ...model.subject import Subject, load_subject
from ...recipe.config import Config, CorruptConfig, CorruptKind, OptimConfig
from ...scores.pair_scores import in_turn
from .figure import draw
from .page import Card, page
from .perplexity import NOTE, by_contrast, looking, reading, table, token_shares, word_table
from .tokens import PairTokens, Probed, probe_pairs, readable

if TYPE_CHECKING:
    import torch

_STEP = 32
"""Pairs the loader reads at once."""
_WORDS = 12
"""Tokens listed as most and as least depending on the image."""


def run(arguments: Namespace) -> int:
    """Scores, and writes ``probe.json``, ``probe.md``, ``perplexity.png`` and ``tokens.html``; always 0."""
    _check(arguments)
    world, progress = World(), shown(True)
    subject = load_subject(
        arguments.base,
        arguments.adapter and str(arguments.adapter),
        dtype=arguments.dtype,
        attention=arguments.attention,
        quantise=arguments.quantise,
        max_text_tokens=arguments.max_text_tokens,
        device=world.device,
        progress=True,
        other_base=arguments.other_base,
    )
    split = Split.open(tuple(arguments.shards), subject.family, DEFAULT_CACHE.expanduser(), world, progress)
    loader = _loader(subject, split, arguments, world)
    probed = probe_pairs(models_of(subject), progress(loader, "scoring pairs"), world.device)
    for problem in probed.bad:
        print(f"left out: {problem}", file=sys.stderr)
    if not probed.pairs:
        raise UserError(f"No pair of {' '.join(map(redacted, arguments.shards))} could be scored: {probed.bad[0]}")
    contrasts = [split.shards.read_text(pair.index).contrast for pair in probed.pairs]
    models = {name: by_contrast(probed.logps(name), probed.tokens, contrasts) for name in probed.pairs[0].logps}
    ids, gaps = _gaps(probed)
    shares = {name: token_shares(values) for name, values in gaps.items()}
    words = _words(ids, gaps, subject.family.tokenizer)
    cards = _cards(probed, contrasts, split.shards, subject.family.tokenizer, arguments)
    facts = _facts(arguments, probed, subject)
    _write(arguments, facts, models, shares, words, cards)
    print(f"{markdown(table(models), 2)}\n\n{reading(models)}\n{looking(shares)}\n")
    print(f"token by token: {arguments.output / 'tokens.html'}")
    return 0


def _check(arguments: Namespace) -> None:
    """UserError for arguments that cannot be meant, before a model is loaded."""
    expand(arguments.shards)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {arguments.output} of -o cannot be made: {error.strerror}. Choose another."
        ) from None


def models_of(subject: Subject) -> dict[str, Callable[[PackedBatch], torch.Tensor]]:
    """Name -> function from batch to (R,) log-probabilities: ``base``, and ``tuned`` where there is an adapter."""
    scorer = subject.scorer
    if subject.adapter is None:
        return {"base": scorer.token_logps}

    def base(batch: PackedBatch) -> torch.Tensor:
        with scorer.as_reference():
            return scorer.token_logps(batch)

    return {"base": base, "tuned": scorer.token_logps}


def _loader(subject: Subject, split: Split, arguments: Namespace, world: World) -> Loader:
    config = Config(
        optim=OptimConfig(tokens_per_micro_batch=arguments.tokens),
        corrupt=CorruptConfig(kind=arguments.corrupt or CorruptConfig.kind),
    )
    cells = cells_to_evaluate({(0, CORRUPT)} if arguments.corrupt else ())
    return evaluation_loader(split, cells, subject.family, config, world, at_once=_STEP, at_most=arguments.pairs)


def turns(contrasts: Sequence[str], count: int) -> list[int]:
    """Which ``count`` of the pairs are shown: the first of every contrast type, then the second of each, and so on."""
    queues = [[row for row, found in enumerate(contrasts) if found == kind] for kind in CONTRASTS]
    return in_turn(queues)[:count]


def _cards(
    probed: Probed, contrasts: Sequence[str], shards: ShardSet, tokenizer: Any, arguments: Namespace
) -> list[Card]:
    rows = turns(contrasts, arguments.pages)
    return [_one_card(probed.pairs[row], contrasts[row], shards, tokenizer, arguments.corrupt) for row in rows]


def _one_card(tokens: PairTokens, contrast: str, shards: ShardSet, tokenizer: Any, kind: CorruptKind | None) -> Card:
    pair = shards.read(tokens.index)
    special = set(tokenizer.all_special_ids)
    first, second = (ids.tolist() for ids in tokens.ids)
    return Card(
        key=pair.text.key,
        query=pair.text.query,
        contrast=contrast,
        images=pair.images,
        corrupted=_corrupted(pair, kind) if kind else (),
        pieces=(readable(tokenizer, first), readable(tokenizer, second)),
        special=([i in special for i in first], [i in special for i in second]),
        logps=tokens.logps,
    )


def _corrupted(pair: Pair, kind: CorruptKind) -> tuple[bytes, ...]:
    """The two images as the corrupt view has them, as PNG."""
    made = []
    for side, data in enumerate(pair.images):
        stream = io.BytesIO()
        image = corrupt(decode_image(data, pair.text.key), pair.text.key, side, CorruptConfig(kind=kind))
        image.save(stream, "PNG")
        made.append(stream.getvalue())
    return tuple(made)


def _gaps(probed: Probed) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(R,) ids of all tokens that have both views, and model -> (R,) their match − blind, nats."""
    sides = [(pair, side) for pair in probed.pairs for side in (0, 1)]
    ids = np.concatenate([pair.ids[side] for pair, side in sides])
    gaps = {}
    for name in probed.pairs[0].logps:
        logps = np.concatenate([pair.logps[name][side] for pair, side in sides])
        gaps[name] = logps[:, MATCH] - logps[:, BLIND]
    kept = np.isfinite(next(iter(gaps.values())))
    return ids[kept], {name: gap[kept] for name, gap in gaps.items()}


def _words(ids: np.ndarray, gaps: dict[str, np.ndarray], tokenizer: Any) -> list[dict[str, Any]]:
    """The tokens of all pairs that the image says most and least about."""
    text = {i: readable(tokenizer, [i])[0] for i in np.unique(ids).tolist()}
    return word_table([text[i] for i in ids.tolist()], gaps, _WORDS)


def _facts(arguments: Namespace, probed: Probed, subject: Subject) -> dict[str, Any]:
    """What was read with what; names only, no paths."""
    return {
        "base": public_base(subject.base).name,
        "adapter": subject.name if subject.adapter else None,
        "shards": [Path(redacted(spec)).name for spec in arguments.shards],
        "pairs": len(probed.pairs),
        "left_out": len(probed.bad),
        "tokens": int(probed.tokens.sum()),
        "dtype": subject.precision,
        "device": subject.device.type,
        "corrupt": arguments.corrupt,
    }


def _write(
    arguments: Namespace,
    facts: dict[str, Any],
    models: dict[str, Any],
    shares: dict[str, Any],
    words: list[dict[str, Any]],
    cards: list[Card],
) -> None:
    folder, line = arguments.output, reading(models)
    title = arguments.title or f"Where {facts['base']} looks, and where it guesses"
    shown_facts = {name.replace("_", " "): str(value) for name, value in facts.items() if value is not None}
    shown_facts["shards"] = ", ".join(facts["shards"])
    rule = (
        f"{len(cards)} of {facts['pairs']:,} pairs. The rule: in the shards' order, the first pair of every contrast type, then "
        "the second of each, and so on; none is picked by hand."
    )
    views = list(next(iter(models.values()))["overall"]["perplexity"])
    found = facts | {
        "views": views,
        "reading": line,
        "models": models,
        "token_shares": shares,
        "words": words,
        "shown": [card.key for card in cards],
    }
    write_whole(folder / "probe.json", json_text(found, indent=1, ascii_only=False) + "\n")
    write_whole(
        folder / "probe.md",
        f"# {title}\n\n{line}\n\n{looking(shares)}\n\n{markdown(table(models), 2)}\n\n{NOTE}\n",
    )
    draw(models, line, folder / "perplexity.png")
    text = page(title, (line, looking(shares)), shown_facts, rule, table(models), words, cards, len(views))
    write_whole(folder / "tokens.html", text)
