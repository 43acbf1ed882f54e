"""The paper's motivating experiment: perplexity of the right response with its own image, with none, with the other one.

S-VCO (arXiv 2502.13928) starts from this: a vision-language model's perplexity on the right answer is often lowest when it
sees no image at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...basics.views import ALL_VIEWS, BLIND, MATCH, VIEWS
from ...data.schema import CONTRASTS
from ...scores.statistics import Measure, estimate

LOOKS = 0.5
"""Nats of match − blind from which on the image speaks for a token or, where they are negative, against it."""
SAME = 0.1
"""Nats of match − blind, either way, below which the image makes no difference to a token."""
NOTE = (
    "In brackets: 95% interval, pairs as units. Likeliest blind: responses that are likeliest without an image, of match, blind "
    "and clash. Blind over match: responses likelier without an image than with their own."
)
"""What the table's columns mean."""
_SHOWN = 2
"""Times a token must occur to be listed among those that count most or least."""


def perplexities(logps: np.ndarray, tokens: np.ndarray) -> dict[str, dict[str, float | None]]:
    """View -> ``{"value", "low", "high"}``: perplexity per token of all 2N responses, with its 95% interval over pairs; one pair
    has none (None). ``logps`` (N, 2, V) nats, ``tokens`` (N, 2).
    """
    count = tokens.sum(axis=1).astype(float)
    found = {}
    for v, view in enumerate(ALL_VIEWS[: logps.shape[-1]]):
        estimated = estimate(Measure(-logps[..., v].sum(axis=1), count, "exp")).json()
        found[view] = {part: estimated[part] for part in ("value", "low", "high")}
    return found


def read(logps: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    """What one model makes of N ≥ 1 pairs: ``pairs``, ``responses``, ``perplexity`` by view.

    ``likeliest``: match, blind, clash -> the share of responses that are likeliest under it of the three; ``blind_over_match``:
    the share likelier without an image than with their own.
    """
    best = logps[..., : len(VIEWS)].argmax(axis=-1)
    return {
        "pairs": len(logps),
        "responses": int(tokens.size),
        "perplexity": perplexities(logps, tokens),
        "likeliest": {view: float((best == v).mean()) for v, view in enumerate(VIEWS)},
        "blind_over_match": float((logps[..., BLIND] > logps[..., MATCH]).mean()),
    }


def by_contrast(logps: np.ndarray, tokens: np.ndarray, contrasts: Sequence[str]) -> dict[str, Any]:
    """``{"overall": part, "by_contrast": {type: part}}``, a part being :func:`read` of its pairs; ``contrasts`` (N,)."""
    kinds = np.asarray(contrasts, dtype=object)
    parts = {kind: read(logps[rows], tokens[rows]) for kind in CONTRASTS if (rows := kinds == kind).any()}
    return {"overall": read(logps, tokens), "by_contrast": parts}


def reading(models: Mapping[str, Mapping[str, Any]]) -> str:
    """One line: how often each model finds the right answer likeliest without the image."""
    shares = {name: f"{model['overall']['likeliest']['blind']:.1%}" for name, model in models.items()}
    first, *others = models
    responses = f"{models[first]['overall']['responses']:,} responses"
    text = f"The {first} finds the right answer likeliest without the image for {shares[first]} of {responses}"
    return text + "".join(f"; the {name} model for {shares[name]}" for name in others) + "."


def table(models: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Head and rows: one row a contrast type and model, perplexity under each view with its 95% interval."""
    first = next(iter(models.values()))
    views = list(first["overall"]["perplexity"])
    rows = [["pairs", "model", *(f"perplexity, {view}" for view in views), "likeliest blind", "blind over match"]]
    for kind in ("overall", *first["by_contrast"]):
        for name, model in models.items():
            part = model["overall"] if kind == "overall" else model["by_contrast"][kind]
            cells = [_cell(part["perplexity"][view]) for view in views]
            shares = [f"{part['likeliest']['blind']:.1%}", f"{part['blind_over_match']:.1%}"]
            rows.append([f"{kind} ({part['pairs']:,})", name, *cells, *shares])
    return rows


def _cell(value: Mapping[str, float | None]) -> str:
    if value["low"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def token_shares(gaps: np.ndarray) -> dict[str, float]:
    """Of (R,) match − blind of all tokens, nats: the shares that the image speaks for, makes no difference to, speaks against."""
    return {
        "for": float((gaps >= LOOKS).mean()),
        "no_difference": float((np.abs(gaps) < SAME).mean()),
        "against": float((gaps <= -LOOKS).mean()),
    }


def looking(shares: Mapping[str, Mapping[str, float]]) -> str:
    """:func:`token_shares` of every model in words."""
    texts = [
        f"{name}: {part['for']:.1%}, {part['no_difference']:.1%}, {part['against']:.1%}"
        for name, part in shares.items()
    ]
    return (
        f"Of all response tokens, by match − blind, the image speaks for ({LOOKS:g} nats and more), makes no difference to "
        f"(within ±{SAME:g}), speaks against (−{LOOKS:g} and less): {'; '.join(texts)}."
    )


def word_table(words: Sequence[str], gaps: Mapping[str, np.ndarray], at_most: int) -> list[dict[str, Any]]:
    """Tokens by how much the image says about them: the ``at_most`` that gain most and the ``at_most`` that gain least.

    ``words`` (R,) the text of every token of every response, ``gaps`` model -> (R,) match − blind, nats. Ordered by the
    last model's mean gain; tokens met once only are left out where others are enough.
    """
    names, place = np.unique(np.asarray(words, dtype=object).astype(str), return_inverse=True)
    count = np.bincount(place)
    means = {model: np.bincount(place, weights=values) / count for model, values in gaps.items()}
    often = np.flatnonzero(count >= _SHOWN)
    rows = often if len(often) >= 2 * at_most else np.arange(len(names))
    last = list(means.values())[-1]
    order = rows[np.argsort(-last[rows], kind="stable")]
    chosen = order if len(order) <= 2 * at_most else np.concatenate([order[:at_most], order[-at_most:]])
    return [
        {
            "token": str(names[i]),
            "count": int(count[i]),
            "gain": {model: float(values[i]) for model, values in means.items()},
        }
        for i in chosen
    ]
