"""The vocabulary: pair, side, view, cell, and the (P, 2, V) tensor every objective is a function of.

A *pair* has two *sides*, 0 and 1; a side is an image and the response that is true of it; both share one query.
A response is scored under *views*: ``match`` (its own image), ``blind`` (no image at all), ``clash`` (the other
side's image), and, where an objective asks for it, ``corrupt`` (its own image, corrupted). A *cell* is one (side, view).
For side 0 the first three are the paper's log π(y_w|i_w,q), log π(y_w|q) and log π(y_w|i_l,q) (S-VCO, arXiv 2502.13928).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VIEWS = ("match", "blind", "clash")
"""The views that every evaluation scores."""
ALL_VIEWS = (*VIEWS, "corrupt")
"""All there are: the fourth, the side's own image corrupted (:mod:`svco.data.corruption`), is scored where an objective
reads it."""
MATCH, BLIND, CLASH, CORRUPT = range(len(ALL_VIEWS))

Cell = tuple[int, int]
"""(side, view), e.g. ``(0, CLASH)``: response 0 under image 1."""

ALL_CELLS: frozenset[Cell] = frozenset((side, view) for side in (0, 1) for view in range(len(VIEWS)))
"""The six cells of the first three views."""

BLIND_CONDITION = 2
"""Conditions are what a response can be read under: image 0, image 1, no image (this index), image 0 or 1 corrupted (3, 4)."""


def condition(side: int, view: int) -> int:
    """The condition under which ``view`` scores the response of ``side``: an image, none, or a corrupted one."""
    return (side, BLIND_CONDITION, 1 - side, BLIND_CONDITION + 1 + side)[view]


def prefix_of(shown: int) -> int:
    """The condition (0, 1 or 2) whose token ids condition ``shown`` has: a corrupted image is as large as the image was, so
    that only pixels differ."""
    return shown % (BLIND_CONDITION + 1)


def views_of(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Names of the V views of a tensor that holds ``cells``: three, or four where one of them is of a corrupted image."""
    return ALL_VIEWS if any(view == CORRUPT for _, view in cells) else VIEWS


def cells_to_evaluate(cells: Iterable[Cell]) -> frozenset[Cell]:
    """All cells of both sides under ``views_of(cells)``: what an evaluation, or a cached reference, scores."""
    return frozenset((side, view) for side in (0, 1) for view in range(len(views_of(cells))))


def cell_name(cell: Cell) -> str:
    side, view = cell
    return f"{side}_{ALL_VIEWS[view]}"


@dataclass(frozen=True)
class Scores:
    """What one model says of P pairs: ``logps[p, side, view]`` of views ``MATCH``, ``BLIND``, ``CLASH`` (and ``CORRUPT``)."""

    logps: torch.Tensor
    """(P, 2, V) float32 or float64, nats: log-probability of side s's response under view v, summed over its tokens.
    Cells an objective did not declare hold 0 and must not be read."""
    tokens: torch.Tensor
    """(P, 2) int64: number of scored tokens of each response."""
