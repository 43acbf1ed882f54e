"""The only door to DeepSpeed: loading partitioned, forward, backward, step, and state on disk.

``DeepSpeedEngine`` and :class:`~svco.engine.plain.PlainEngine` have one interface, so the train loop has no mode.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..basics.dist import World
from ..model.adapter_files import load_values
from ..model.load import Tuned
from ..recipe.config import OptimConfig
from .optimizer import STATE_FILE, TrainableState
from .plain import PlainEngine
from .process import can_build_async_io, counting_collectives, loading, start, stop
from .sharded import DeepSpeedEngine
from .state import check_form
from .stored import read_partitioned
from .swap import swapping
from .universal import fitting

if TYPE_CHECKING:
    import torch

    from ..model.scorer import PackedScorer

__all__ = [
    "DeepSpeedEngine",
    "Engine",
    "can_build_async_io",
    "counting_collectives",
    "loading",
    "make_engine",
    "read_partitioned",
    "start",
    "stop",
    "swapping",
]


class Engine(Protocol):
    """What the train loop needs of an engine."""

    scorer: PackedScorer
    """What it steps."""
    portable: bool
    """Checkpoints fit any engine and any number of ranks."""
    scaled: bool
    """Gradients are of float16, times a loss scale that is still being found: they overflow now and then."""
    skipped: bool
    """The last step was not taken, on any rank: some gradient was not finite. Weights and moments are what they were."""

    def __call__(self, batch: Any) -> Any: ...
    def train(self, mode: bool = True) -> None: ...
    def accumulation(self) -> AbstractContextManager[None]: ...
    def backward(self, loss: torch.Tensor) -> None: ...
    def step(self, lr: float) -> torch.Tensor: ...
    def finite(self) -> bool: ...
    def gather(self, name: str) -> torch.Tensor: ...
    def save(self, folder: Path) -> list[Path]: ...
    def load(self, folder: Path) -> None: ...


def make_engine(
    tuned: Tuned, config: OptimConfig, world: World, ds: dict[str, Any] | None, resume: Path | None
) -> Engine:
    """The engine for ``ds`` (None: without DeepSpeed), continued from checkpoint folder ``resume`` if one is given."""
    if resume is not None and (resume / STATE_FILE).exists():
        # Before DeepSpeed takes the parameters over: setting the masters later would leave the forward's copy untrained.
        load_values(tuned.policy, TrainableState.load(resume).values)
    if resume is not None and tuned.wrapped is None:
        check_form(resume, ds)
    with fitting(resume, ds, world) as (resume, ds):
        engine: Engine = PlainEngine(tuned, config, world) if ds is None else DeepSpeedEngine(tuned, config, ds, world)
        if resume is not None:
            engine.load(resume)
    return engine
