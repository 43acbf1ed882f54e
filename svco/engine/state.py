"""What a run has learned, on disk: full tensors by name under LoRA, DeepSpeed's own partitioned state otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import write_whole, writing
from ..basics.strict_json import json_text
from ..recipe.ds_config import offloaded
from .optimizer import MOMENTS, STATE_FILE, TrainableState
from .stored import NAMES

if TYPE_CHECKING:
    import torch

_SWAPPED = "swapped-*.safetensors"
_FORMS = {
    STATE_FILE: "without DeepSpeed (--ds none)",
    "zero": "with the optimizer in memory (any config but ds_configs/zero3_nvme.json)",
    _SWAPPED: "with the optimizer on NVMe (ds_configs/zero3_nvme.json)",
}
"""What full fine-tuning leaves in a checkpoint -> what run reads and writes it."""


def check_form(folder: Path, ds: dict[str, Any] | None) -> None:
    """UserError if full fine-tuning under ``ds`` does not read what checkpoint ``folder`` holds."""
    if ds is None:
        ours = STATE_FILE
    else:
        ours = _SWAPPED if offloaded(ds, "optimizer") == "nvme" else "zero"
    found = [form for form in _FORMS if any(folder.glob(form))]
    if found and ours not in found:
        raise UserError(
            f"The checkpoint {folder} was written {_FORMS[found[0]]} and this run is one {_FORMS[ours]}. Each keeps the state of "
            "full fine-tuning in a form of its own: resume as it was written."
        )


def _moments(flat: torch.Tensor, optimizer: torch.optim.Optimizer, adam_step: int) -> dict[str, Any]:
    """AdamW's state of ``flat`` after ``adam_step`` steps without a gradient."""
    import torch

    # DeepSpeed's CPU kernel takes the step as a number, torch's AdamW as a tensor.
    step = torch.tensor(float(adam_step)) if isinstance(optimizer, torch.optim.AdamW) else adam_step
    return {"step": step} | {m: torch.zeros_like(flat) for m in MOMENTS}


class PortableState:
    """Values and moments of what is trained, gathered by parameter name: for any engine and any number of ranks."""

    def __init__(
        self, zero: Any, stage: int, optimizer: torch.optim.Optimizer, trainable: dict[str, Any], world: World
    ):
        self.zero, self.stage, self.optimizer, self.trainable, self.world = zero, stage, optimizer, trainable, world

    def save(self, folder: Path) -> list[Path]:
        """Rank 0 writes the file; what this rank wrote. A collective."""
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
        return self.world.on_each(lambda: state.save(folder) if self.world.is_main else [])

    def load(self, folder: Path) -> None:
        """Reads what ``save`` wrote. A collective."""
        state = TrainableState.load(folder)
        self._make_moments(state.adam_step)
        for name, p in self.trainable.items():
            self._set(p, state.values[name], None)
            for moment in MOMENTS:
                self._set(p, state.moments[moment][name], moment)

    def _flats(self) -> list[torch.Tensor]:
        """The flat float32 tensors on which AdamW runs here, one a sub-group."""
        if self.stage == 3:
            return list(self.zero.fp32_partitioned_groups_flat)
        return list(self.zero.single_partition_of_fp32_groups)

    def _make_moments(self, adam_step: int = 0) -> None:
        """AdamW makes its state at the first step only; DeepSpeed's accessors need it to be there."""
        for flat in self._flats():
            if not self.optimizer.state.get(flat):
                self.optimizer.state[flat] = _moments(flat, self.optimizer, adam_step)
        if self.stage < 3:
            self.zero._lazy_init_hp_params_optimizer_state()

    def _set(self, p: Any, value: torch.Tensor, moment: str | None) -> None:
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


class PartitionedState:
    """DeepSpeed's own checkpoint, a part a rank: under full fine-tuning gathered state would not fit one host."""

    def __init__(self, engine: Any, optimizer: torch.optim.Optimizer, trainable: dict[str, Any], world: World):
        self.engine, self.optimizer, self.world = engine, optimizer, world
        in_model = {id(p): name for name, p in trainable.items()}
        self.names = {name: in_model[id(p)] for name, p in engine.module.named_parameters() if id(p) in in_model}
        self.decays = [group["weight_decay"] for group in optimizer.param_groups]

    def save(self, folder: Path) -> list[Path]:
        """Writes this rank's part; the files it wrote. A collective."""
        # The frozen copy and the tower are the base model's and stay out.
        with writing(folder):
            self.engine.save_checkpoint(str(folder), tag="zero", save_latest=False, exclude_frozen_parameters=True)
        if self.world.is_main:
            write_whole(folder / "zero" / NAMES, json_text(self.names, indent=1))
        return [file for file in folder.rglob("*") if file.is_file() and writer(file, folder) == self.world.rank]

    def load(self, folder: Path) -> None:
        """Reads what ``save`` wrote, or its universal form. A collective."""
        import torch

        path, _ = self.engine.load_checkpoint(str(folder), tag="zero", load_module_strict=False)
        if path is None:
            raise UserError(f"DeepSpeed cannot load the checkpoint {folder}/zero; resume from an older step-N folder.")
        for state in self.optimizer.state.values():
            # From the universal form all groups get the same tensor, which each of them would then count up at every step.
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].clone()
        for group, decay in zip(self.optimizer.param_groups, self.decays, strict=True):
            group["weight_decay"] = decay  # DeepSpeed restores the first group's hyper-parameters into every group


def writer(file: Path, folder: Path) -> int:
    """The rank that wrote ``file`` of DeepSpeed's checkpoint in ``folder``: its name says so, and files for all are rank 0's."""
    named = re.search(r"pp_rank_(\d+)_|(?:^|/)rank(\d+)/", file.relative_to(folder).as_posix())
    return int(named[1] or named[2]) if named else 0


class SwappedState:
    """A rank's masters and moments from its disk, a file a sub-group.

    DeepSpeed's own checkpoint (0.19.8) copies the swap files, but a resumed run never reads their moments, starts Adam's step
    again at 0 and leaves alone sub-groups too small to be swapped: its second step was seen to be another one.
    """

    def __init__(self, zero: Any, optimizer: torch.optim.Optimizer, world: World):
        self.zero, self.optimizer, self.world = zero, optimizer, world

    def save(self, folder: Path) -> list[Path]:
        """Writes this rank's part; the files it wrote. A collective."""
        return self.world.on_each(lambda: self._save(folder))

    def _save(self, folder: Path) -> list[Path]:
        from safetensors.torch import save_file

        files = []
        for number, flat in enumerate(self.zero.fp32_partitioned_groups_flat):
            with self._in_memory(number):
                state = self.optimizer.state[flat]
                tensors = {"master": flat.detach()} | {m: state[m] for m in MOMENTS}
                files.append(self._file(folder, number))
                with writing(files[-1], sum(tensor.nbytes for tensor in tensors.values())):
                    save_file(tensors, files[-1], {"adam_step": str(int(state["step"]))})
        return files

    def load(self, folder: Path) -> None:
        """Reads what ``save`` wrote; UserError for another number of ranks. A collective."""
        import torch
        from safetensors import safe_open

        saved = {path.name.split("-")[1] for path in folder.glob(_SWAPPED)}
        if len(saved) != self.world.size:
            raise _other_ranks(folder, len(saved), self.world.size)
        self.zero._partition_all_parameters()
        for number, flat in enumerate(self.zero.fp32_partitioned_groups_flat):
            with self._in_memory(number), safe_open(self._file(folder, number), "pt") as file, torch.no_grad():
                step = int(file.metadata()["adam_step"])
                state = self.optimizer.state[flat] = _moments(flat, self.optimizer, step)
                flat.copy_(file.get_tensor("master"))
                for moment in MOMENTS:
                    state[moment].copy_(file.get_tensor(moment))
                self.zero._reassign_or_swap_out_partitioned_parameters(number)  # what the forward pass uses
        self.zero._post_step(set())

    def _file(self, folder: Path, number: int) -> Path:
        return folder / f"swapped-{self.world.rank:05d}-{number:05d}.safetensors"

    @contextmanager
    def _in_memory(self, number: int) -> Iterator[None]:
        """Inside, sub-group ``number`` is in memory; on leaving it goes back to where it lives."""
        swapped = self.zero._swappable_optimizer_subgroup(number)
        if swapped:
            self.zero._optimizer_states_and_gradient_swap_in(number)
        yield
        if swapped:
            self.zero._optimizer_states_and_gradient_swap_out(number)


def _other_ranks(folder: Path, saved: int, now: int) -> UserError:
    return UserError(
        f"The checkpoint {folder} was written by {saved} ranks and this run has {now}. Full fine-tuning keeps partitioned state: "
        f"resume with {saved} ranks."
    )
