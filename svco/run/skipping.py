"""Steps that are skipped because a loss or a gradient is not finite: counted, their pairs named, and not too many of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import append
from ..basics.strict_json import json_text
from ..recipe.config import OptimConfig
from ..record.board import keep_up_to
from ..record.manifest import finished
from .step import Taken

BAD_STEPS = "bad_steps.jsonl"
CHECKED_FROM = 20
"""Steps before a share of them means anything."""
_NAMED_AT_MOST = 5


class SkipWatch:
    """Keeps ``bad_steps.jsonl`` of run ``folder``, from step ``start`` on."""

    def __init__(self, folder: Path, config: OptimConfig, world: World, start: int = 0):
        self.folder, self.config, self.world = folder, config, world
        self.total = world.on_main(lambda: keep_up_to(folder / BAD_STEPS, start))
        self._in_a_row = 0

    def add(self, step: int, taken: Taken, scaled: bool, at_end: bool) -> None:
        """Looks at step ``step``; a collective where it was skipped. UserError when more are than the recipe lets be.

        ``scaled``: gradients of float16 overflow now and then, until the loss scale fits; such a step does not count where no
        loss is to blame.
        """
        if taken.skipped:
            suspects = [suspect for part in self.world.gather(taken.suspects) for suspect in part]
            if scaled and not suspects:
                return
            self.total += 1
            self._in_a_row += 1
            if self.world.is_main:
                line = {"step": step, "pairs": [asdict(s) for s in suspects]}
                append(self.folder / BAD_STEPS, json_text(line) + "\n")
            named = ", ".join(f"{s.key} ({', '.join(s.terms)})" for s in suspects[:_NAMED_AT_MOST])
            why = (
                f"of {len(suspects)} pairs: {named}"
                if suspects
                else "though every loss is: the gradients alone are not"
            )
            self._check(step, f"A loss or gradient was not finite in step {step}, {why}", at_end)
        else:
            self._in_a_row = 0
            if at_end:
                self._check(step, "Losses or gradients were not finite in many steps", at_end)

    def _check(self, step: int, what: str, at_end: bool) -> None:
        too_many_in_a_row = self._in_a_row > self.config.max_skipped_steps
        share = self.total > self.config.max_skipped_fraction * step and (at_end or step >= CHECKED_FROM)
        if not too_many_in_a_row and not share:
            return
        kept = finished(self.folder / "checkpoints")
        last = (
            f"the last checkpoint is {kept[-1].name}, of weights that are sound" if kept else "there is no checkpoint"
        )
        limits = (
            f"optim.max_skipped_steps is {self.config.max_skipped_steps} and optim.max_skipped_fraction "
            f"{self.config.max_skipped_fraction}"
        )
        raise UserError(
            f"{what}. {self._in_a_row} steps in a row and {self.total} in all were skipped; {limits}. They moved no weight, and "
            f"{last}. {self.folder / BAD_STEPS} names the pairs: mend or remove them, or the base if all are named; if none "
            "are, lower optim.lr."
        )
