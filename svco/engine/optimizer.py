"""AdamW as svco runs it: its parameter groups, its learning rate, and its state as a file.

The state is by parameter name in full float32 tensors, so it fits any number of ranks and any engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.files import writing
from ..recipe.config import OptimConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

STATE_FILE = "trainable.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``steps``: linear warm-up from 0, then cosine.

    A pure function, so a resumed run has nothing to restore. The first step already moves: warm-up of w steps gives
    step s the share (s + 1) / w.
    """
    warmup = math.ceil(config.warmup_fraction * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    floor = config.lr_min_ratio
    return config.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(trainable: dict[str, nn.Parameter], config: OptimConfig) -> list[dict[str, Any]]:
    """``trainable`` as AdamW's groups. Biases and norms get no weight decay; a group without parameters is left out."""
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for p in trainable.values():
        # Under ZeRO-3 a partitioned parameter has shape [0]; its true shape is ds_shape.
        (matrices if len(getattr(p, "ds_shape", p.shape)) > 1 else vectors).append(p)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_adamw(trainable: dict[str, nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over ``trainable``."""
    import torch

    return torch.optim.AdamW(
        parameter_groups(trainable, config),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=torch.cuda.is_available() or None,
    )


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every number in ``tensors`` is finite; the device is waited for once."""
    import torch

    flags = [torch.isfinite(tensor.detach()).all() for tensor in tensors if tensor.numel()]
    return not flags or bool(torch.stack(flags).all())


@dataclass(frozen=True)
class TrainableState:
    """What a run has learned, independent of the number of ranks."""

    values: dict[str, torch.Tensor]
    """Parameter name -> float32 master."""
    moments: dict[str, dict[str, torch.Tensor]]
    """``exp_avg`` and ``exp_avg_sq`` -> parameter name -> float32."""
    adam_step: int
    """Updates AdamW has made (its bias correction)."""

    def save(self, folder: Path) -> list[Path]:
        """Writes one file into ``folder`` and returns it."""
        from safetensors.torch import save_file

        tensors = {f"value/{name}": v for name, v in self.values.items()}
        tensors |= {f"{m}/{name}": v for m in MOMENTS for name, v in self.moments[m].items()}
        tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
        with writing(folder / STATE_FILE, sum(tensor.nbytes for tensor in tensors.values())):
            save_file(tensors, folder / STATE_FILE, {"adam_step": str(self.adam_step)})
        return [folder / STATE_FILE]

    @classmethod
    def load(cls, folder: Path) -> TrainableState:
        from safetensors import safe_open

        parts: dict[str, dict[str, torch.Tensor]] = {"value": {}, **{m: {} for m in MOMENTS}}
        with safe_open(folder / STATE_FILE, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (a safetensors file is no dict)
                kind, name = key.split("/", 1)
                parts[kind][name] = file.get_tensor(key)
            adam_step = int(file.metadata()["adam_step"])
        return cls(parts.pop("value"), parts, adam_step)
