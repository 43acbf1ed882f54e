"""A run under way: what its parts do together between two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..basics.dist import World
from ..basics.errors import Stopped, UserError
from ..basics.progress import Progress, shown
from ..basics.views import cells_to_evaluate
from ..batches.split import Split, evaluation_loader
from ..engine import Engine
from ..model.load import Tuned
from ..record.board import Board
from ..record.checkpoint import Checkpoints
from ..record.manifest import Position, Score
from ..record.state import Heartbeat
from ..scores.before_after import summarise
from ..scores.pair_scores import score_pairs
from .cached_reference import reference_of
from .folder import RunFolder
from .job import Job
from .stopping import StopRequests

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Session:
    """A run under way."""

    job: Job
    """What was decided before the model was loaded."""
    tuned: Tuned
    """The model."""
    engine: Engine
    """What steps it."""
    world: World
    """This rank among the others."""
    board: Board
    """Where metrics go."""
    stops: StopRequests
    """What may end it early."""
    heartbeat: Heartbeat
    """Where it tells how it is."""
    folder: RunFolder
    """Where what it leaves behind is."""
    references: dict[str, np.ndarray] = field(default_factory=dict)
    """Split -> cached log-probs of the reference; empty when it runs beside the policy."""

    def progress(self) -> Progress:
        """(batches, what is being done) -> the batches, shown as they go, with Stopped raised between two of them."""
        show = shown(self.world.is_main)

        def watched(batches: Any, what: str) -> Any:
            self.begin(what)
            for batch in show(self.stops.stopping_between(batches), what):
                yield batch
                self.heartbeat.moved()

        return watched

    def begin(self, what: str) -> None:
        """Tells those who ask, and the time limit, that the run now does ``what``."""
        self.heartbeat.tell(doing=what)
        self.stops.begin(what)

    def precompute(self, resumed: bool) -> None:
        """Before the first step, while the model is still the base: what no reference stream will say. A collective."""
        wanted = {"cached": ("train", "validation", "heldout"), "none": ("validation", "heldout")}
        for name in (name for name in wanted.get(self.job.reference, ()) if name in self.job.splits):
            self.references[name] = reference_of(
                self.job.splits[name], self.job, self.tuned, self.engine, self.world, self.progress(), resumed
            )

    def validates(self, step: int) -> bool:
        """Whether the validation pairs are scored after ``step``."""
        return "validation" in self.job.splits and self.job.due(step, self.job.config.evaluate.every)

    def validate(self, step: int) -> tuple[str, Score | None]:
        """The metrics of the validation pairs into the log: (why they were not, when that is cut short, or an empty string; what
        ``checkpoint.keep_best`` goes by, where it is a finite number)."""
        try:
            summary = self.compare("validation")[0]
        except Stopped as stopped:
            self.heartbeat.tell(reason=str(stopped))
            return str(stopped), None
        self.board.write(step, {f"validation/{name}": value for name, value in summary["after"].items()})
        self.begin("training")
        if self.job.judged_by is None:
            return "", None
        measure, higher_is_better = self.job.judged_by
        value = summary["after"].get(measure, math.nan)
        score = Score(self.job.config.checkpoint.keep_best, value, higher_is_better)
        return "", score if math.isfinite(value) else None

    def compare(self, name: str) -> tuple[dict[str, Any], Any, Split]:
        """(summary, scores, split) of the pairs of the split ``name`` under the reference (before) and the policy (after)."""
        self.check_finite()
        job, engine, world, split = self.job, self.engine, self.world, self.job.splits[name]
        loader = evaluation_loader(
            split,
            cells_to_evaluate(job.objective.cells),
            job.family,
            job.config,
            world,
            at_once=max(world.size, job.config.optim.global_batch),
            at_most=job.config.evaluate.max_pairs,
            references=self.references.get(name),
        )
        engine.train(False)
        scores = score_pairs(engine, self.progress()(loader, "scoring pairs"), world)
        engine.train()
        contrasts = {index: split.shards.read_text(index).contrast for index in scores.index.tolist()}
        return summarise(scores, contrasts), scores, split

    def check_finite(self) -> None:
        """UserError, on all ranks, when a trained weight is no finite number: nothing is made of such weights. A collective."""
        if not all(self.world.gather(self.engine.finite())):
            raise UserError(
                "Some trained weights are not finite numbers, so nothing is evaluated, saved or exported. Go on from the last "
                "checkpoint (run.resume=auto) with a lower optim.lr."
            )

    def check_before_writing(self) -> None:
        """UserError, on all ranks, when the folder is another run's by now or the weights are not finite. A collective."""
        self.folder.check_owner(self.world)
        self.check_finite()

    def save(self, checkpoints: Checkpoints, here: Position, score: Score | None) -> None:
        """A checkpoint of this moment, with what its validation said of it."""
        self.heartbeat.tell(doing="saving")
        self.check_before_writing()
        with self.stops.saving():
            checkpoints.save(here, self.engine.save, score)
        self.heartbeat.tell(doing="training")
