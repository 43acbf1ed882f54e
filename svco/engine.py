"""The only door to DeepSpeed: loading partitioned, forward, backward, step, and state on disk.

``DeepSpeedEngine`` and :class:`~svco.plain_engine.PlainEngine` have one interface, so the train loop has no mode.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .adapters import load_values
from .config import OptimConfig
from .dist import World
from .ds_config import size
from .errors import UserError
from .model import Tuned
from .optimizer import MOMENTS, STATE_FILE, TrainableState, make_adamw
from .plain_engine import PlainEngine

if TYPE_CHECKING:
    import torch
    from torch import nn


class Engine(Protocol):
    """What the train loop needs of an engine."""

    portable: bool
    """Checkpoints fit any engine and any number of ranks."""

    def __call__(self, batch: Any) -> Any: ...
    def train(self, mode: bool = True) -> None: ...
    def accumulation(self) -> AbstractContextManager[None]: ...
    def backward(self, loss: torch.Tensor) -> None: ...
    def step(self, lr: float) -> torch.Tensor: ...
    def values(self) -> dict[str, torch.Tensor]: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


def start(world: World) -> None:
    """Joins the ranks (gloo on CPU, NCCL on GPUs). The launcher's environment must be set.

    Alone under ``python`` rather than a launcher, it supplies the variables a world of one needs.
    """
    for key, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch has since renamed; nobody who runs svco can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    import deepspeed
    import torch

    if torch.cuda.is_available():
        # Before the first collective: NCCL runs on the current device, which is GPU 0 for everyone unless said otherwise.
        torch.cuda.set_device(world.local_rank)
    deepspeed.logger.setLevel(logging.WARNING)
    deepspeed.init_distributed(verbose=False)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop() -> None:
    """Leaves the ranks; quiet when ``start`` was never called."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def loading(ds: dict[str, Any] | None) -> Iterator[None]:
    """Inside, ``from_pretrained`` partitions weights as it loads them when ``ds`` says ZeRO-3: each rank holds its share.

    transformers looks for a live ``HfDeepSpeedConfig``; it must stay referenced for as long as models are loaded.
    """
    if ds is None or ds["zero_optimization"]["stage"] < 3:
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    alive = HfDeepSpeedConfig(size(ds, None))
    yield
    del alive


@contextmanager
def counting_collectives(world: World) -> Iterator[dict[str, tuple[int, int]]]:
    """Fills the yielded dict on leaving: collective -> (calls, bytes of the whole tensors they move). They block meanwhile.

    DeepSpeed logs the bytes a rank puts in; a gathered tensor has ``world.size`` times as many.
    """
    import deepspeed.comm

    found: dict[str, tuple[int, int]] = {}
    deepspeed.comm.comms_logger.reset_data()
    deepspeed.comm.configure(enabled=True, prof_all=True, verbose=False)
    try:
        yield found
    finally:
        deepspeed.comm.configure(enabled=False)
    for name, sizes in deepspeed.comm.comms_logger.comms_dict.items():
        times = world.size if "gather" in name else 1
        found[name] = sum(s[0] for s in sizes.values()), sum(times * size * s[0] for size, s in sizes.items())


def make_engine(
    tuned: Tuned, config: OptimConfig, world: World, ds: dict[str, Any] | None, resume: Path | None
) -> Engine:
    """The engine for ``ds`` (None: without DeepSpeed), continued from checkpoint folder ``resume`` if one is given."""
    if resume is not None and (resume / STATE_FILE).exists():
        # Before DeepSpeed takes the parameters over: setting the masters later would leave the forward's copy untrained.
        load_values(tuned.policy, TrainableState.load(resume).values)
    engine: Engine = PlainEngine(tuned, config, world) if ds is None else DeepSpeedEngine(tuned, config, ds, world)
    if resume is not None:
        engine.load(resume)
    return engine


def _weights(module: nn.Module) -> int:
    """Weights of ``module``, which may be partitioned."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters())


class DeepSpeedEngine:
    """ZeRO-1, -2 or -3 around the scorer, with svco's own AdamW, accumulation and learning rate."""

    def __init__(self, tuned: Tuned, config: OptimConfig, ds: dict[str, Any], world: World):
        import deepspeed

        self.world = world
        self.trainable = tuned.trainable
        self.portable = tuned.wrapped is not None
        self.managed = ds["managed_gradient_accumulation"]
        self.stage = ds["zero_optimization"]["stage"]
        self.optimizer = make_adamw(self.trainable, config)
        self.decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        if self.stage == 3:
            leaves = tuple(tuned.scorer.leaves)
            if leaves:
                deepspeed.utils.set_z3_leaf_modules(tuned.scorer, list(leaves))
            ds = size(ds, max((_weights(m) for m in tuned.scorer.modules() if isinstance(m, leaves)), default=0))
        self.engine, self.zero, _, _ = deepspeed.initialize(
            model=tuned.scorer, optimizer=self.optimizer, config=ds, dist_init_required=False
        )

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
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm() or 0.0)

    def values(self) -> dict[str, torch.Tensor]:
        """Every trained parameter in the model's dtype, full, on the CPU. A collective; all ranks get them."""
        import deepspeed

        gathered = {}
        for name, p in self.trainable.items():
            with deepspeed.zero.GatheredParameters([p], enabled=self.stage == 3):
                gathered[name] = p.detach().cpu().clone()
        return gathered

    def save(self, folder: Path) -> None:
        """Writes this rank's part of the state into ``folder``. A collective."""
        if not self.portable:
            # The frozen copy and the tower are the base model's and stay out.
            self.engine.save_checkpoint(str(folder), tag="zero", save_latest=False, exclude_frozen_parameters=True)
            return
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._make_moments()
        state = TrainableState(
            {name: safe_get_full_fp32_param(p).cpu().clone() for name, p in self.trainable.items()},
            {
                m: {name: safe_get_full_optimizer_state(p, m).cpu().clone() for name, p in self.trainable.items()}
                for m in MOMENTS
            },
            max(int(s["step"]) for s in self.optimizer.state.values()),
        )
        if self.world.is_main:
            state.save(folder)

    def load(self, folder: Path) -> None:
        """Reads the state ``save`` wrote. A collective."""
        if not self.portable:
            self._load_partitioned(folder)
            return
        state = TrainableState.load(folder)
        self._make_moments(state.adam_step)
        for name, p in self.trainable.items():
            self._set(p, state.values[name], None)
            for moment in MOMENTS:
                self._set(p, state.moments[moment][name], moment)

    def _load_partitioned(self, folder: Path) -> None:
        saved = len(list((folder / "zero").glob("*optim_states.pt")))
        if saved and saved != self.world.size:
            raise UserError(
                f"The checkpoint {folder} was written by {saved} ranks and this run has {self.world.size}. Full "
                f"fine-tuning keeps DeepSpeed's own partitioned state: resume with {saved} ranks."
            )
        path, _ = self.engine.load_checkpoint(str(folder), tag="zero", load_module_strict=False)
        if path is None:
            raise UserError(f"DeepSpeed cannot load the checkpoint {folder}/zero; resume from an older step-N folder.")
        for group, decay in zip(self.optimizer.param_groups, self.decays, strict=True):
            group["weight_decay"] = decay  # DeepSpeed restores the first group's hyper-parameters into every group

    def _flats(self) -> list[torch.Tensor]:
        """The flat float32 tensors on which AdamW runs here, one a sub-group."""
        return list(
            self.zero.fp32_partitioned_groups_flat if self.stage == 3 else self.zero.single_partition_of_fp32_groups
        )

    def _make_moments(self, adam_step: int = 0) -> None:
        """AdamW makes its state at the first step only; DeepSpeed's accessors need it to be there."""
        import torch

        for flat in self._flats():
            if not self.optimizer.state.get(flat):
                self.optimizer.state[flat] = {"step": torch.tensor(float(adam_step))} | {
                    m: torch.zeros_like(flat) for m in MOMENTS
                }
        if self.stage < 3:
            self.zero._lazy_init_hp_params_optimizer_state()

    def _set(self, p: torch.nn.Parameter, value: torch.Tensor, moment: str | None) -> None:
        """Puts a full float32 ``value`` into this rank's share of the master (moment None) or of a moment of ``p``."""
        import torch
        from deepspeed import utils

        if self.stage < 3:
            if moment is None:
                utils.safe_set_full_fp32_param(p, value)
            else:
                utils.safe_set_full_optimizer_state(p, value, moment)
            return
        # DeepSpeed's full setters refuse sizes that the ranks do not divide; its shares are padded at the end.
        share = p.ds_tensor.numel()
        padded = torch.zeros(share * self.world.size, dtype=value.dtype)
        padded[: value.numel()] = value.flatten()
        mine = padded[share * self.world.rank : share * (self.world.rank + 1)].to(self.world.device)
        if moment is None:
            utils.safe_set_local_fp32_param(p, mine)
        else:
            utils.safe_set_local_optimizer_state(p, mine, moment)
