"""Objectives: pure functions of what the policy and the reference say of a pair.

Each takes two :class:`~svco.views.Scores` of (P, 2, V) log-probabilities and gives a loss per pair and a report. It
declares the cells it reads; the others are never computed and may hold anything. Δ is policy minus reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from .config import ObjectiveConfig
from .errors import UserError
from .views import BLIND, CLASH, MATCH, Cell, Scores, cell_name

Report = dict[str, torch.Tensor]
"""Name -> (P,) detached values, one a pair; the run averages them by the pairs' weights."""


@dataclass(frozen=True)
class Objective:
    """A loss with what it needs."""

    name: str
    """Its name in recipes and tables."""
    cells: frozenset[Cell]
    """The (side, view) cells it reads."""
    function: Callable[[Scores, Scores], tuple[torch.Tensor, Report]]
    """(policy, reference) -> (loss (P,), report)."""
    needs_reference: bool = True
    """Whether it reads the reference at all."""

    def __call__(self, policy: Scores, reference: Scores) -> tuple[torch.Tensor, Report]:
        return self.function(policy, reference)


def svco_loss(policy: Scores, reference: Scores, config: ObjectiveConfig) -> tuple[torch.Tensor, Report]:
    """S-VCO (arXiv 2502.13928, eq. 4 to 6): for each side s, with Δ = log π − log π_ref,

        attend_s = −log σ(β (Δ[s, match] − Δ[s, blind])),   reject_s = −log σ(β (Δ[s, blind] − Δ[s, clash])),

    summed over both sides: seeing the true image must make the response likelier than seeing none, and seeing the
    contradicting image less likely than seeing none. With policy == reference the loss is 4 ln 2.

    Returns the loss (P,) and the report: the four terms, the mean Δ of each cell read, and for attend and reject the
    rewards' margins (β times the difference of Δ) and accuracies (share of margins above 0).
    """
    loss = policy.logps.new_zeros(policy.logps.shape[0])
    report: Report = {}

    def delta(side: int, view: int) -> torch.Tensor:
        value = policy.logps[:, side, view] - reference.logps[:, side, view]
        report[f"delta/{cell_name((side, view))}"] = value.detach()
        return value

    for name, better, worse, weights, betas in _svco_terms(config):
        for side in (0, 1):
            if weights[side] == 0:
                continue
            margin = betas[side] * (delta(side, better) - delta(side, worse))
            term = -logsigmoid(margin)
            loss = loss + weights[side] * term
            report |= {
                f"loss/{name}_{side}": term.detach(),
                f"margin/{name}_{side}": margin.detach(),
                f"accuracy/{name}_{side}": (margin.detach() > 0).to(margin.dtype),
            }
    return loss, report


def _svco_terms(config: ObjectiveConfig):
    return (
        ("attend", MATCH, BLIND, config.weight_attend, config.beta_attend),
        ("reject", BLIND, CLASH, config.weight_reject, config.beta_reject),
    )


def _make_svco(config: ObjectiveConfig) -> Objective:
    cells = frozenset(
        (side, view)
        for _, better, worse, weights, _ in _svco_terms(config)
        for side in (0, 1)
        if weights[side]
        for view in (better, worse)
    )
    return Objective("svco", cells, lambda policy, reference: svco_loss(policy, reference, config))


def dpo_loss(policy: Scores, reference: Scores, config: ObjectiveConfig) -> tuple[torch.Tensor, Report]:
    """DPO on contrast pairs (arXiv 2305.18290, eq. 7; the baseline of arXiv 2502.13928): under image s, response s over the
    other response,

        −log σ(β (Δ[s, match] − Δ[1 − s, clash])),

    for side 0, or with ``symmetric`` for both, summed. With policy == reference each is ln 2.
    """
    loss = policy.logps.new_zeros(policy.logps.shape[0])
    report: Report = {}
    for side in _sides(config):
        better, worse = (side, MATCH), (1 - side, CLASH)
        deltas = [policy.logps[:, s, v] - reference.logps[:, s, v] for s, v in (better, worse)]
        margin = config.beta * (deltas[0] - deltas[1])
        loss = loss - logsigmoid(margin)
        report |= {f"delta/{cell_name(cell)}": delta.detach() for cell, delta in zip((better, worse), deltas)}
        report |= {
            f"margin/dpo_{side}": margin.detach(),
            f"accuracy/dpo_{side}": (margin.detach() > 0).to(margin.dtype),
        }
    return loss, report


def sft_loss(policy: Scores, reference: Scores, config: ObjectiveConfig) -> tuple[torch.Tensor, Report]:
    """Supervised fine-tuning: −log π(response s | image s) per token, for side 0, or with ``symmetric`` the mean of both."""
    terms = {s: -policy.logps[:, s, MATCH] / policy.tokens[:, s].clamp(min=1) for s in _sides(config)}
    return sum(terms.values()) / len(terms), {f"loss/sft_{side}": term.detach() for side, term in terms.items()}


def _sides(config: ObjectiveConfig) -> tuple[int, ...]:
    return (0, 1) if config.symmetric else (0,)


def _make_dpo(config: ObjectiveConfig) -> Objective:
    cells = frozenset(cell for side in _sides(config) for cell in ((side, MATCH), (1 - side, CLASH)))
    return Objective("dpo", cells, lambda policy, reference: dpo_loss(policy, reference, config))


def _make_sft(config: ObjectiveConfig) -> Objective:
    cells = frozenset((side, MATCH) for side in _sides(config))
    return Objective("sft", cells, lambda policy, reference: sft_loss(policy, reference, config), needs_reference=False)


OBJECTIVES: dict[str, Callable[[ObjectiveConfig], Objective]] = {
    "svco": _make_svco,
    "dpo": _make_dpo,
    "sft": _make_sft,
}


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective a recipe names, with its hyper-parameters bound."""
    if config.name not in OBJECTIVES:
        raise UserError(f"objective.name is {config.name!r}; known objectives: {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[config.name](config)
