"""The vocabulary: pair, side, view, cell, and the (P, 2, V) tensor every objective is a function of.

A *pair* has two *sides*, 0 and 1; a side is an image and the response that is true of it; both share one query.
A response is scored under *views*: ``match`` (its own image), ``blind`` (no image at all), ``clash`` (the other
side's image). A *cell* is one (side, view). For side 0 the three are the paper's log π(y_w|i_w,q), log π(y_w|q) and
log π(y_w|i_l,q) (S-VCO, arXiv 2502.13928).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VIEWS = ("match", "blind", "clash")
MATCH, BLIND, CLASH = range(3)
CORRUPT = 3
"""The fourth view, of objectives that ask for it: the side's own image, corrupted (:mod:`svco.corruption`)."""

Cell = tuple[int, int]
"""(side, view), e.g. ``(0, CLASH)``: response 0 under image 1."""

ALL_CELLS: frozenset[Cell] = frozenset((side, view) for side in (0, 1) for view in range(len(VIEWS)))

BLIND_CONDITION = 2
"""Conditions are what a response can be read under: image 0, image 1, or no image (this index)."""


def condition(side: int, view: int) -> int:
    """The condition under which ``view`` scores the response of ``side``: 0 or 1 (an image), or no image."""
    return (side, BLIND_CONDITION, 1 - side)[view]


def cell_name(cell: Cell) -> str:
    side, view = cell
    return f"{side}_{(*VIEWS, 'corrupt')[view]}"


@dataclass(frozen=True)
class Scores:
    """What one model says of a batch of P pairs."""

    logps: torch.Tensor
    """(P, 2, V) float32 or float64, nats: log-probability of side s's response under view v, summed over its tokens.
    Cells an objective did not declare hold 0 and must not be read."""
    tokens: torch.Tensor
    """(P, 2) int64: number of scored tokens of each response."""
