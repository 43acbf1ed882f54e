"""The diverging scale that colours tokens, in nats; ``page.css`` has its colours."""

from __future__ import annotations

from math import isnan

EDGES = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Nats between two steps of the scale, in both directions: fixed, so that pages and models can be compared."""


def step(nats: float) -> str:
    """The step of the scale for a difference of ``nats``; ``none`` for NaN."""
    if isnan(nats):
        return "none"
    size = sum(abs(nats) >= edge for edge in EDGES)
    if not size:
        return "z"
    return f"{'p' if nats > 0 else 'n'}{size}"


def legend() -> list[tuple[str, str]]:
    """(step, its words) from the lowest to the highest."""
    texts = [f"{low:g} to {high:g}" for low, high in zip(EDGES, EDGES[1:])] + [f"{EDGES[-1]:g} and more"]
    below = [(f"n{size}", f"−{text}") for size, text in enumerate(texts, 1)]
    above = [(f"p{size}", f"+{text}") for size, text in enumerate(texts, 1)]
    return [*reversed(below), ("z", f"within ±{EDGES[0]:g}"), *above]
