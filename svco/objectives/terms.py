"""Terms: what every objective is a sum of, and the one place where they are computed.

A term is a few cells with coefficients. With Δ = log π − log π_ref, its margin is β · Σ coefficient · Δ[cell] − shift, and
its loss is weight · link(margin). Its name finds its keys in the recipe: ``objective.beta_<name>``, ``objective.weight_<name>``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from ..basics.views import Cell, Scores, cell_name
from ..recipe.config import ObjectiveConfig

Report = dict[str, torch.Tensor]
"""Name -> (P,) detached values, one a pair; the run averages them by the pairs' weights."""
Link = str | Callable[[torch.Tensor], torch.Tensor]
"""``preference``: −log σ(margin), with the recipe's label smoothing and ``link`` (ipo); ``anchor``: −log σ(margin − δ),
neither smoothed nor ipo; ``square``: (Σ c Δ − shift)², without β; ``nll``: −Σ c log π of the policy per token, without
reference or β. Or a function of the margins (P,) that gives losses (P,)."""


@dataclass(frozen=True)
class Term:
    """One summand of an objective, as published."""

    name: str
    """What it is called in recipes and reports. ``text``, ``image``, ``anchor``, ``attend``, ``reject`` have β and weights in
    the recipe, ``margin`` a weight; any other name has the common β and its own weight."""
    side: int | None
    """The side it is about (0 or 1: it ends its report's keys and picks β and weight), or None: the pair as a whole."""
    cells: Mapping[Cell, float]
    """Cell -> coefficient of its Δ."""
    weight: float = 1.0
    """Weight as published; the recipe's is multiplied with it."""
    shift: float = 0.0
    """Subtracted from the margin."""
    link: Link = "preference"
    """How a margin becomes a loss."""


@dataclass(frozen=True)
class BoundTerm:
    """A term with a recipe's numbers: all that its value depends on, so that two are equal when they compute the same."""

    key: str
    """Ends the names of its report: ``attend_0``, ``margin``."""
    cells: tuple[tuple[Cell, float], ...]
    """(cell, coefficient), none of them 0."""
    weight: float
    """Weight, never 0."""
    link: Link
    """As of a term, or ``ipo``."""
    beta: float = 1.0
    """β of the margin."""
    shift: float = 0.0
    """Subtracted from the margin."""
    smoothing: float = 0.0
    """Share of the loss taken of the negated margin (cDPO)."""
    per_token: bool = False
    """Δ is divided by the response's tokens."""

    def losses(self, margins: torch.Tensor) -> torch.Tensor:
        """The link: margins (P,) -> unweighted losses (P,)."""
        if callable(self.link):
            return self.link(margins)
        if self.link == "square":
            return margins.square()
        if self.link == "ipo":
            # (h − 1/(2β))² with h = margin / β.
            return ((margins - 0.5) / self.beta).square()
        loss = -logsigmoid(margins)
        return torch.lerp(loss, -logsigmoid(-margins), self.smoothing) if self.smoothing else loss


def bind(term: Term, config: ObjectiveConfig, scale: float = 1.0) -> BoundTerm | None:
    """``term`` with the recipe's numbers, its weight times ``scale``; None where its weight is 0 (its cells go with it)."""
    side = term.side or 0
    weight = term.weight * config.weights_of(term.name)[side] * scale
    if not weight:
        return None
    key = term.name if term.side is None else f"{term.name}_{term.side}"
    cells = tuple(sorted((cell, float(factor)) for cell, factor in term.cells.items() if factor))
    if term.link == "nll":
        return BoundTerm(key, cells, weight, "nll")
    per_token = config.length_normalised
    if term.link == "square":
        return BoundTerm(key, cells, weight, "square", shift=term.shift, per_token=per_token)
    beta = config.betas_of(term.name)[side]
    if term.link == "anchor":
        return BoundTerm(key, cells, weight, "anchor", beta, term.shift + config.delta, per_token=per_token)
    if term.link == "preference" and config.link == "ipo":
        return BoundTerm(key, cells, weight, "ipo", beta, term.shift, per_token=per_token)
    smoothing = config.label_smoothing if term.link == "preference" else 0.0
    return BoundTerm(key, cells, weight, term.link, beta, term.shift, smoothing, per_token)


def add_up(terms: Sequence[BoundTerm], policy: Scores, reference: Scores) -> tuple[torch.Tensor, Report]:
    """The weighted sum of ``terms``, (P,), and the report.

    ``delta/{cell}``: Δ in nats of every cell a term compares; for each term ``loss/{key}`` (unweighted), and, but for ``nll``,
    ``margin/{key}`` and, but for ``square`` too, ``accuracy/{key}`` (1 where the margin is above 0).
    """
    loss = policy.logps.new_zeros(policy.logps.shape[0])
    report: Report = {}
    for term in terms:
        if term.link == "nll":
            of_cells = [
                factor * policy.logps[:, side, view] / policy.tokens[:, side].clamp(min=1)
                for (side, view), factor in term.cells
            ]
            losses = -sum(of_cells, start=torch.zeros_like(loss))
        else:
            margins = term.beta * _compared(term, policy, reference, report) - term.shift
            losses = term.losses(margins)
            report[f"margin/{term.key}"] = margins.detach()
            if term.link != "square":
                report[f"accuracy/{term.key}"] = (margins.detach() > 0).to(margins.dtype)
        report[f"loss/{term.key}"] = losses.detach()
        loss = loss + term.weight * losses
    return loss, report


def _compared(term: BoundTerm, policy: Scores, reference: Scores, report: Report) -> torch.Tensor:
    """Σ coefficient · Δ[cell] of ``term``, (P,); puts every Δ into ``report``."""
    total = policy.logps.new_zeros(policy.logps.shape[0])
    for (side, view), factor in term.cells:
        delta = policy.logps[:, side, view] - reference.logps[:, side, view]
        report[f"delta/{cell_name((side, view))}"] = delta.detach()
        if term.per_token:
            delta = delta / policy.tokens[:, side].clamp(min=1)
        total = total + factor * delta
    return total
