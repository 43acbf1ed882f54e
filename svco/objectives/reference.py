"""Where the reference's log-probs come from.

lockstep      LoRA: the policy with its adapters off, layer by layer beside it (the default)
frozen-copy   full fine-tuning: a second, frozen model whose layers run beside the policy's (the default)
cached        log-probs computed once before the first step and read from a file ever after
none          objectives that compare with nothing
"""

from __future__ import annotations

from ..basics.errors import UserError
from .table import Objective

STRATEGIES = {"lora": ("lockstep", "cached", "none"), "full": ("frozen-copy", "cached", "none")}
"""``model.tune`` -> the reference strategies it can be run with, its default first."""


def choose_reference(wanted: str, tune: str, objective: Objective) -> str:
    """The strategy for ``model.reference`` = ``wanted``; UserError, listing what is allowed, for anything that is not."""
    allowed = [strategy for strategy in STRATEGIES[tune] if (strategy != "none") == objective.needs_reference]
    if wanted == "auto":
        return allowed[0]
    if wanted in allowed:
        return wanted
    rows = "; ".join(f"model.tune={name}: {', '.join(STRATEGIES[name])}" for name in STRATEGIES)
    needs = "needs a reference" if objective.needs_reference else "has no use for a reference: none"
    raise UserError(
        f"model.reference={wanted} cannot be combined with model.tune={tune} and the objective {objective.name}, which "
        f"{needs}. Here it can be: {', '.join(allowed)}. All combinations: {rows} (none only for objectives without one)."
    )
