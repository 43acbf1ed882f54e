"""``DeepSpeedEngine``: ZeRO-1, -2 or -3 around the scorer."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.dist import World
from ..model.compiling import without_a_compiler
from ..model.load import Tuned
from ..recipe.config import OptimConfig
from ..recipe.ds_config import offloaded, with_leaf_sizes
from .gathered import GatherCheck, compressed
from .optimizer import all_finite, make_adamw, parameter_groups
from .state import PartitionedState, PortableState, SwappedState

if TYPE_CHECKING:
    import torch
    from torch import nn


def _weights(module: nn.Module) -> int:
    """Weights of ``module``, which may be partitioned."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters())


def _make_optimizer(trainable: dict[str, nn.Parameter], config: OptimConfig, ds: dict[str, Any]) -> Any:
    """AdamW; DeepSpeed's own, which is several times faster there, where its state lives on the CPU or on disk."""
    if offloaded(ds, "optimizer") == "none":
        return make_adamw(trainable, config)
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    groups = parameter_groups(trainable, config)
    return DeepSpeedCPUAdam(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)


class DeepSpeedEngine:
    """ZeRO-1, -2 or -3 around the scorer, with svco's own AdamW, accumulation and learning rate."""

    def __init__(self, tuned: Tuned, config: OptimConfig, ds: dict[str, Any], world: World):
        import deepspeed

        self.world = world
        self.scorer = tuned.scorer
        self.trainable = tuned.trainable
        self.portable = tuned.wrapped is not None
        self.skipped = False
        self.scaled = ds["fp16"]["enabled"]
        self.managed = ds["managed_gradient_accumulation"]
        self.stage = ds["zero_optimization"]["stage"]
        self.optimizer = _make_optimizer(self.trainable, config, ds)
        if self.stage == 3:
            leaves = tuple(tuned.scorer.leaves)
            if leaves:  # the benchmark's baselines have none, and DeepSpeed refuses an empty list
                deepspeed.utils.set_z3_leaf_modules(tuned.scorer, list(leaves))
            largest = max((_weights(m) for m in tuned.scorer.modules() if isinstance(m, leaves)), default=0)
            ds = with_leaf_sizes(ds, largest)
        with without_a_compiler():  # it asks each optimizer whether it is a Muon, whose module compiles its kernels
            self.engine, self.zero, _, _ = deepspeed.initialize(
                model=tuned.scorer, optimizer=self.optimizer, config=ds, dist_init_required=False
            )
        self.check = None
        if self.stage == 3 and compressed(ds):
            names = {id(p): name for name, p in tuned.scorer.named_parameters()}
            quantised = ds["zero_optimization"].get("zero_quantized_weights", False)
            self.check = GatherCheck(tuned.scorer.layers, names, quantised, world)
        self.state: PortableState | SwappedState | PartitionedState
        if self.portable:
            self.state = PortableState(self.zero, self.stage, self.optimizer, self.trainable, world)
        elif offloaded(ds, "optimizer") == "nvme":
            self.state = SwappedState(self.zero, self.optimizer, world)
        else:
            self.state = PartitionedState(self.engine, self.optimizer, self.trainable, world)

    def __call__(self, batch: Any) -> Any:
        return self.engine(batch)

    def train(self, mode: bool = True) -> None:
        self.engine.train(mode)

    def accumulation(self) -> AbstractContextManager[None]:
        """Around the backward passes of one step. LoRA: gradients stay local and are reduced once, on leaving."""
        return self.engine.coalesce_grad_reduction() if self.managed else nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def step(self, lr: float) -> torch.Tensor:
        """One update at learning rate ``lr``; the global gradient norm before clipping (0-d)."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = lr
        before = self.engine.skipped_steps
        self.engine.step()
        # DeepSpeed looks for gradients that are not finite in every dtype, and agrees on it before a weight moves.
        self.skipped = self.engine.skipped_steps > before
        if self.skipped and self.scaled and self.world.is_main:
            warnings.warn("float16 gradients overflowed: the step is skipped and the loss scale lowered", stacklevel=2)
        if self.check is not None:
            self.check.after(self.engine.global_steps)
        return torch.as_tensor(self.engine.get_global_grad_norm() or 0.0)

    def finite(self) -> bool:
        """Whether every trained weight is a finite number, of those that this rank holds in memory."""
        held = [getattr(p, "ds_tensor", p) for p in self.trainable.values()]
        # What is swapped out to a disk is looked at by nobody until it is needed.
        return all_finite(t for t in held if getattr(getattr(t, "status", None), "name", "AVAILABLE") == "AVAILABLE")

    def gather(self, name: str) -> torch.Tensor:
        """Trained parameter ``name`` in the model's dtype, full, on the CPU. A collective; all ranks get it."""
        import deepspeed

        p = self.trainable[name]
        with deepspeed.zero.GatheredParameters([p], enabled=self.stage == 3):
            return p.detach().cpu().clone()

    def save(self, folder: Path) -> list[Path]:
        """Writes this rank's part of the state into ``folder``; the files it wrote. A collective."""
        return self.state.save(folder)

    def load(self, folder: Path) -> None:
        """Reads the state ``save`` wrote. A collective."""
        self.state.load(folder)
