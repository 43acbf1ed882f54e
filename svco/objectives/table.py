"""The table of objectives: S-VCO, its ablations, the baselines of its paper, and its successors.

Each entry is a function of a side that lists the terms of that side (:mod:`svco.objectives.terms`); what a recipe may
change (β, weights, sides, smoothing, ...) is applied in one place. ``README.md`` beside this file has them all on one page
and shows how a new one is added without touching the package. Here s is the side a function is asked for and t the other
one, Δ is log π − log π_ref, LS is −log σ, and cells are written Δ[side, view] with views match, blind, clash, corrupt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..basics.errors import UserError
from ..basics.views import BLIND, CLASH, CORRUPT, MATCH, Cell, Scores
from ..recipe.config import ObjectiveConfig
from .terms import BoundTerm, Report, Term, add_up, bind


@dataclass(frozen=True)
class Objective:
    """A loss with what it needs. Called with the Scores of policy and reference, (P, 2, V) each, it gives (loss (P,), report).

    It reads its cells only: the others are never computed and may hold anything.
    """

    name: str
    """Its name in recipes and tables."""
    terms: tuple[BoundTerm, ...]
    """What it is the sum of."""

    @property
    def cells(self) -> frozenset[Cell]:
        """The (side, view) cells it reads."""
        return frozenset(cell for term in self.terms for cell, _ in term.cells)

    @property
    def needs_reference(self) -> bool:
        """Whether it reads the reference at all."""
        return any(term.link != "nll" for term in self.terms)

    def __call__(self, policy: Scores, reference: Scores) -> tuple[torch.Tensor, Report]:
        return add_up(self.terms, policy, reference)


SideTerms = Callable[[int, ObjectiveConfig], Sequence[Term]]
"""(side 0 or 1, recipe's ``objective`` section) -> the terms of that side."""


@dataclass(frozen=True)
class Entry:
    """A row of the table."""

    terms: SideTerms
    """What it lists for a side."""
    title: str
    """What a model card calls it."""
    sides: str
    """``first`` or ``both``: the sides it trains unless ``objective.sides`` says otherwise."""
    combine: str
    """``sum`` or ``mean`` of the sides."""
    across: tuple[Term, ...]
    """Terms of the pair as a whole, added once where both sides are trained."""


OBJECTIVES: dict[str, Entry] = {}
"""Name -> entry."""


def register(
    name: str, title: str, *, sides: str, combine: str, across: Sequence[Term] = ()
) -> Callable[[SideTerms], SideTerms]:
    """Puts the decorated function of (side, config), which lists a side's terms, into the table as ``objective.name=name``.

    ``title`` is for the model card; ``sides`` (``first`` or ``both``) is what it trains unless the recipe says otherwise;
    ``combine`` (``sum`` or ``mean``) says how sides add up; ``across`` are terms of the pair as a whole. UserError for a name
    that is taken or a word that is none of these.
    """
    if name in OBJECTIVES:
        raise UserError(f"An objective {name!r} is registered already; give yours another name.")
    if sides not in ("first", "both") or combine not in ("sum", "mean"):
        raise UserError(f"Objective {name!r}: sides is {sides!r} (first, both), combine is {combine!r} (sum, mean).")

    def put(terms: SideTerms) -> SideTerms:
        OBJECTIVES[name] = Entry(terms, title, sides, combine, tuple(across))
        return terms

    return put


def text(side: int, weight: float = 1.0) -> Term:
    """LS(β m_s), m_s = Δ[s, match] − Δ[t, clash]: under image s, its own response over the other one."""
    return Term("text", side, {(side, MATCH): 1, (1 - side, CLASH): -1}, weight)


def image(side: int, view: int) -> Term:
    """LS(β(Δ[s, match] − Δ[s, view])): a response is likelier under its own image than under another."""
    return Term("image", side, {(side, MATCH): 1, (side, view): -1})


def anchor(side: int, weight: float = 1.0) -> Term:
    """LS(βΔ[s, match] − δ): the true response stays as likely as under the reference."""
    return Term("anchor", side, {(side, MATCH): 1}, weight, link="anchor")


def attend(side: int) -> Term:
    """LS(β(Δ[s, match] − Δ[s, blind])): the true image counts for more than none (arXiv 2502.13928, section 3.1)."""
    return Term("attend", side, {(side, MATCH): 1, (side, BLIND): -1})


def reject(side: int) -> Term:
    """LS(β(Δ[s, blind] − Δ[s, clash])): the contradicting image counts for less than none (arXiv 2502.13928, section 3.1)."""
    return Term("reject", side, {(side, BLIND): 1, (side, CLASH): -1})


def nll(side: int, weight: float = 1.0) -> Term:
    """−log π(response s | image s) per token."""
    return Term("nll", side, {(side, MATCH): 1}, weight, link="nll")


def negative(config: ObjectiveConfig) -> int:
    """The view an own image is compared with, of objectives that leave the choice."""
    return {"corrupt": CORRUPT, "clash": CLASH}[config.image_negative]


@register("svco", "S-VCO (arXiv 2502.13928)", sides="both", combine="sum")
def svco(side: int, config: ObjectiveConfig) -> list[Term]:
    """Σ_s LS(β(Δ[s, match] − Δ[s, blind])) + LS(β(Δ[s, blind] − Δ[s, clash])): arXiv 2502.13928, eq. 4 to 6. Seeing the true
    image makes a response likelier than seeing none, seeing the contradicting one less likely. 4 ln 2 at the reference."""
    return [attend(side), reject(side)]


@register("vco", "VCO, S-VCO without its symmetry (arXiv 2502.13928)", sides="first", combine="sum")
def vco(side: int, config: ObjectiveConfig) -> list[Term]:
    """S-VCO's terms of side 0 alone: section 3.1 of arXiv 2502.13928 without 3.2, its ablation "no symmetry". 2 ln 2
    at the reference."""
    return [attend(side), reject(side)]


@register("attend", "S-VCO's attend term alone (arXiv 2502.13928)", sides="both", combine="sum")
def attend_alone(side: int, config: ObjectiveConfig) -> list[Term]:
    """Σ_s LS(β(Δ[s, match] − Δ[s, blind])): half of section 3.1 of arXiv 2502.13928, an ablation. 2 ln 2 at the reference."""
    return [attend(side)]


@register("reject", "S-VCO's reject term alone (arXiv 2502.13928)", sides="both", combine="sum")
def reject_alone(side: int, config: ObjectiveConfig) -> list[Term]:
    """Σ_s LS(β(Δ[s, blind] − Δ[s, clash])): the other half of section 3.1 of arXiv 2502.13928. 2 ln 2 at the reference."""
    return [reject(side)]


@register("dpo", "DPO on contrast pairs (arXiv 2305.18290)", sides="first", combine="mean")
def dpo(side: int, config: ObjectiveConfig) -> list[Term]:
    """LS(β(Δ[s, match] − Δ[t, clash])): arXiv 2305.18290, eq. 7, two responses under one image; the baseline of
    arXiv 2502.13928 takes image 0 alone. ln 2 at the reference."""
    return [text(side)]


@register("mdpo", "mDPO (arXiv 2406.11839)", sides="first", combine="mean")
def mdpo(side: int, config: ObjectiveConfig) -> list[Term]:
    """LS(β m_s) + LS(β(Δ[s, match] − Δ[s, corrupt])) + LS(βΔ[s, match] − δ): arXiv 2406.11839, its three losses DPO, conditional
    and anchor, and luka-group/mDPO@2221bb3. There policy and reference see different random crops; here the corrupted image is
    drawn once and shared. 3 ln 2 at the reference with δ = 0."""
    return [text(side), image(side, negative(config)), anchor(side)]


@register("copo", "mDPO's conditional term alone (arXiv 2406.11839)", sides="first", combine="mean")
def copo(side: int, config: ObjectiveConfig) -> list[Term]:
    """LS(β(Δ[s, match] − Δ[s, corrupt])): the conditional preference (CoPO) of arXiv 2406.11839 alone. ln 2 at the reference."""
    return [image(side, negative(config))]


@register("chip", "CHiP's visual term (arXiv 2501.16629)", sides="first", combine="mean")
def chip(side: int, config: ObjectiveConfig) -> list[Term]:
    """LS(β[m_s + Δ[s, match] − Δ[s, corrupt]]), both comparisons in one sigmoid as LVUGAI/CHiP@e7f5193 has them
    (arXiv 2501.16629). Its token-weighted and KL terms are not functions of the six numbers and are left out. ln 2 at the
    reference."""
    return [Term("image", side, {(side, MATCH): 2, (1 - side, CLASH): -1, (side, negative(config)): -1})]


MARGINS = {(0, MATCH): 1, (1, CLASH): -1, (1, MATCH): -1, (0, CLASH): 1}
"""m_0 − m_1."""


@register(
    "symmpo",
    "SymMPO without its text-pair term (arXiv 2506.11712)",
    sides="both",
    combine="sum",
    across=[Term("margin", None, MARGINS, 1e-4, link="square")],
)
def symmpo(side: int, config: ObjectiveConfig) -> list[Term]:
    """Σ_s [λ LS(β m_s) + LS(βΔ[s, match])] + 10⁻⁴ (m_0 − m_1)², λ = 0.5, the square on Δ without β: arXiv 2506.11712 and
    Liuwq-bit/SymMPO@a4a1a39. Its text-pair term needs a third response and is left out. 3 ln 2 at the reference."""
    return [text(side, 0.5), anchor(side)]


@register("ovip", "OViP (arXiv 2505.15963)", sides="first", combine="mean")
def ovip(side: int, config: ObjectiveConfig) -> list[Term]:
    """LS(β(Δ[s, match] − Δ[s, blind])) + LS(β(Δ[s, blind] − Δ[s, clash])) + LS(β m_s): arXiv 2505.15963, on given pairs.
    Its code halves the first two unless a flag is set: ``weight_attend`` and ``weight_reject`` 0.5. 3 ln 2 at the reference."""
    return [attend(side), reject(side), text(side)]


@register("icvco-single", "IC-VCO's single-image branch (arXiv 2605.31312)", sides="both", combine="mean")
def icvco_single(side: int, config: ObjectiveConfig) -> list[Term]:
    """mean_s 1.75 LS(β m_s) + 1.75 LS(βΔ[s, match]): the single-image branch of arXiv 2605.31312, weights of
    OPPO-Mente-Lab/IC-VCO@bead220, whose code adds the anchor a second time by an in-place sum; the paper, and this, once. They
    score the spans in which the responses differ, here whole responses count. 3.5 ln 2 at the reference."""
    return [text(side, 1.75), anchor(side, 1.75)]


@register("rdpo", "rDPO with the other image as the retrieved one (arXiv 2502.13146)", sides="first", combine="mean")
def rdpo(side: int, config: ObjectiveConfig) -> list[Term]:
    """LS(β m_s) + LS(β(Δ[s, match] − Δ[s, clash])): arXiv 2502.13146 (Re-Align), with the other side's image in the place of the
    retrieved one. 2 ln 2 at the reference."""
    return [text(side), image(side, CLASH)]


@register("sft", "SFT on contrast pairs", sides="both", combine="mean")
def sft(side: int, config: ObjectiveConfig) -> list[Term]:
    """mean_s −log π(response s | image s) per token; no reference. The SFT row of arXiv 2502.13928, on both sides."""
    return [nll(side)]


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective a recipe names, with its numbers. UserError for an unknown name, for terms that are all dropped, and for
    a key that is set but changes nothing."""
    if config.name not in OBJECTIVES:
        raise UserError(f"objective.name is {config.name!r}; known objectives: {', '.join(OBJECTIVES)}.")
    terms = _bound(config)
    if not terms:
        raise UserError(f"Every weight of {config.name}'s terms is 0: nothing is left to train on.")
    _refuse_idle_keys(config)
    return Objective(config.name, terms)


def _bound(config: ObjectiveConfig) -> tuple[BoundTerm, ...]:
    """The terms of ``config`` with their numbers, those of weight 0 left out."""
    entry = OBJECTIVES[config.name]
    wanted = entry.sides if config.sides == "auto" else config.sides
    sides = (0, 1) if wanted == "both" else (0,)
    share = 1 / len(sides) if entry.combine == "mean" else 1.0
    listed = [(term, share) for side in sides for term in entry.terms(side, config)]
    if len(sides) == 2:
        listed += [(term, 1.0) for term in entry.across]
    if config.nll and not any(term.name == "nll" for term, _ in listed):
        listed += [(nll(side), config.nll / len(sides)) for side in sides]
    terms = [bound for term, scale in listed if (bound := bind(term, config, scale))]
    if len({term.key for term in terms}) < len(terms):
        raise UserError(f"The objective {config.name!r} has two terms of one name for one side; each needs its own.")
    return tuple(terms)


def _refuse_idle_keys(config: ObjectiveConfig) -> None:
    """UserError for a key that differs from its default though any other value would make the same terms."""
    fields: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(ObjectiveConfig)}
    # A dropped term keeps its keys: attend alone by weight_reject=0 may still say what reject's β would be.
    weighted = replace(config, **{key: default for key, default in fields.items() if key.startswith("weight_")})
    for key, default in fields.items():
        value = getattr(config, key)
        if key in ("name", "sides") or value == default:
            continue
        as_set = _bound(replace(weighted, **{key: value}))
        if as_set == _bound(replace(weighted, **{key: _another(value)})):
            names = ", ".join(dict.fromkeys(term.key.rpartition("_")[0] or term.key for term in _bound(weighted)))
            raise UserError(
                f"objective.{key} is {value}, which changes nothing: {config.name} with the other keys as they are does not "
                f"use it (its terms: {names}; {config.name}'s equation is in svco/objectives/README.md). Leave "
                f"objective.{key} out."
            )


def _another(value: Any) -> Any:
    """A value of a key that cannot mean the same as ``value``."""
    if isinstance(value, tuple):
        return tuple(number + 1 for number in value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"corrupt": "clash", "clash": "corrupt", "sigmoid": "ipo", "ipo": "sigmoid"}[value]
    return value + 1
