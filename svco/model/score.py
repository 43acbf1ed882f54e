"""What a model says of a few pairs in memory, for scripts; whole shard sets are svco eval's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.views import CORRUPT, Scores, cells_to_evaluate
from ..batches.encode import Encode
from ..batches.pack import PackedCollate
from ..data.corruption import Corruptions
from ..data.pairs import Pair
from ..recipe.config import CorruptConfig
from .subject import Subject, load_subject


def score(
    model: str | Path | Subject,
    pairs: Sequence[Pair],
    adapter: str | Path | None = None,
    *,
    corrupt: CorruptConfig | None = None,
    at_once: int = 8,
) -> Scores:
    """Log-probabilities of all cells of P ``pairs`` under ``model``, in the pairs' order.

    ``model`` is a base or whole model (folder or hub id), with the PEFT ``adapter`` on it if one is given, loaded for this call
    onto the GPU, or the CPU where there is none. Or it is a :class:`Subject` that ``svco.model.subject.load_subject`` loaded once
    for many calls, with the dtype, device and truncation it was asked for.

    Returns ``logps`` (P, 2, 3), float32 (float64 of a float64 model), in nats: response of side s under match, blind and
    clash, summed over its tokens; and ``tokens`` (P, 2), int64. Both are on the model's device. With ``corrupt``, which says how
    images are corrupted, there is a fourth view: (P, 2, 4). ``at_once`` pairs go through the model together; that changes
    memory, and results by rounding only.

    Where parameters of ``subject.policy`` require gradients (of a Subject just loaded none does) ``logps`` can be
    differentiated: adapters, decoder layers, norm, embedding and projector are reached, the vision tower and the language-model
    head are not, and are refused.

    BadSample for a pair that cannot be scored, with its key and the reason; UserError for a model or adapter that cannot be
    loaded.
    """
    if not pairs:
        raise UserError("score was given no pairs.")
    subject = _loaded(model, adapter)
    cells = cells_to_evaluate({(0, CORRUPT)} if corrupt else ())
    encode = Encode(subject.family, PackedCollate(cells), Corruptions.of(cells, corrupt or CorruptConfig()))
    parts = []
    with torch.set_grad_enabled(torch.is_grad_enabled() and _learns(subject)):
        for start in range(0, len(pairs), at_once):
            batch, bad = encode(pairs[start : start + at_once])
            if bad:
                raise bad[0]
            parts.append(subject.scorer(batch.to(subject.device))[0])
        return Scores(torch.cat([part.logps for part in parts]), torch.cat([part.tokens for part in parts]))


def _loaded(model: str | Path | Subject, adapter: str | Path | None) -> Subject:
    if not isinstance(model, Subject):
        return load_subject(str(model), None if adapter is None else str(adapter), device=World().device)
    if adapter is not None:
        raise UserError(f"{model.name} is loaded already; give its adapter {adapter} to load_subject.")
    return model


def _learns(subject: Subject) -> bool:
    """Whether some parameter requires a gradient; UserError if it is one that none would reach."""
    parts = subject.family.parts(subject.policy)
    unreached = {"vision tower": parts.tower, "language-model head (or the embedding it is tied to)": parts.head}
    for name, module in unreached.items():
        if any(p.requires_grad for p in module.parameters()):
            raise UserError(
                f"Parameters of {subject.name}'s {name} require gradients, and score gives them none: set their "
                "requires_grad to False."
            )
    return any(p.requires_grad for p in subject.policy.parameters())
