"""DeepSpeed's partitioned checkpoint, read without starting DeepSpeed: float32 masters, one parameter at a time.

DeepSpeed's own zero_to_fp32 joins whole groups under ZeRO-1 and -2 (every master at once) and knows only the scorer's
names; a test holds this against it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError, first_line

if TYPE_CHECKING:
    import torch

NAMES = "names.json"
"""In ``zero/``: parameter name in the root module -> name in the model."""
_Piece = tuple[list["torch.Tensor"], int, int]
"""(flat tensors that lie end to end, where the piece starts in them, its length)."""
_Placed = Iterator[tuple[str, tuple[int, ...], list[_Piece]]]
"""Parameter name in the root module, shape, and the pieces it is made of."""


def read_partitioned(folder: Path) -> dict[str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]]:
    """{parameter name in the model: (shape, reads its float32 master)} of a checkpoint's ``zero`` folder.

    The files are mapped, so what is read stays the page cache's. Parts of several ranks are joined.
    """
    if not (folder / NAMES).is_file():
        raise UserError(f"{folder} has no {NAMES}, without which its weights have no names in the model.")
    names = json.loads((folder / NAMES).read_text())
    ranks = [_load(file)["optimizer_state_dict"] for file in _by_rank(folder.glob("*_optim_states.pt"))]
    model = _load(_by_rank(folder.glob("*_model_states.pt"))[0])
    if "zero_stage" not in ranks[0]:
        raise UserError(
            f"{folder} is in the form of DeepSpeed's bfloat16 optimizer (ZeRO-1), which svco does not read. Continue the run "
            "(run.resume=auto) to its end, which writes the model."
        )
    cut = _cut_parameters if int(ranks[0]["zero_stage"]) == 3 else _cut_groups
    placed = cut(model["param_shapes"], ranks)
    return {names[name]: (shape, _joined(pieces, shape)) for name, shape, pieces in placed}


def _cut_parameters(groups: list[Mapping[str, Any]], ranks: list[dict[str, Any]]) -> _Placed:
    """ZeRO-3: every parameter is cut in one share a rank, and a rank's shares lie one after another."""
    start = 0
    for shapes in groups:
        for name, shape in shapes.items():
            share = -(-math.prod(shape) // len(ranks))
            yield name, tuple(shape), [(state["fp32_flat_groups"], start, share) for state in ranks]
            start += share


def _cut_groups(groups: list[Mapping[str, Any]], ranks: list[dict[str, Any]]) -> _Placed:
    """ZeRO-1 and -2: a group's parameters lie one after another, padded, and the whole is cut."""
    paddings = ranks[0].get("param_alignment_paddings") or [[0] * len(shapes) for shapes in groups]
    for number, shapes in enumerate(groups):
        flats = [state["single_partition_of_fp32_groups"][number] for state in ranks]
        start = 0
        for (name, shape), padding in zip(shapes.items(), paddings[number], strict=True):
            count = math.prod(shape)
            yield name, tuple(shape), [(flats, start, count)]
            start += count + padding


def _joined(pieces: list[_Piece], shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    """Reads the parameter made of ``pieces``."""

    def read() -> torch.Tensor:
        import torch

        cut = []
        for flats, start, length in pieces:
            before = 0
            for flat in flats:
                first, last = max(start - before, 0), min(start + length - before, flat.numel())
                if first < last:
                    cut.append(flat[first:last])
                before += flat.numel()
        return torch.cat(cut)[: math.prod(shape)].view(shape)

    return read


def _by_rank(files: Any) -> list[Path]:
    return sorted(files, key=lambda file: [int(number) for number in re.findall(r"\d+", file.name)])


def require_plain(folder: Path, rank: int = 0, size: int = 1) -> None:
    """UserError where a file of DeepSpeed's in a checkpoint's ``zero`` folder holds anything but tensors, numbers and names:
    DeepSpeed itself reads them with Python's pickle, which runs what it is told to. Of ``size`` readers this is number ``rank``.
    No tensor is read."""
    for file in sorted(folder.rglob("*.pt"))[rank::size]:
        names = _load(file).get("param_shapes") or []
        # DeepSpeed's converter makes folders of these names.
        if odd := [name for group in names for name in group if not isinstance(name, str) or set(name) & set("/\\\0")]:
            raise UserError(f"{file} has a parameter called {odd[0]!r}, which no model has. {_FOREIGN}")


_FOREIGN = (
    "No run wrote that file as it is: it was damaged, or made to do harm. Take the checkpoint from a source you trust."
)


class _Plain:
    """Stands for an object of DeepSpeed's, of which nothing is needed: its class is neither imported nor called."""

    def __init__(self, *_: Any):
        pass


class _Number(int):
    """Stands for a number of DeepSpeed's."""


_STAGES = {"disabled": 0, "optimizer_states": 1, "gradients": 2, "weights": 3, "max_stage": 3}


def _member(of: type, name: str) -> _Number:
    """Stands for ``getattr``, by which Python 3.11.0 to 3.11.3 store a member of DeepSpeed's enumeration of stages; of nothing
    else."""
    import pickle

    if of is not _Number or name not in _STAGES:
        raise pickle.UnpicklingError("GLOBAL getattr is not allowed for anything else")
    return _Number(_STAGES[name])


_STAND_INS = (
    (_Plain, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
    (_Plain, "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler"),
    (_Plain, "deepspeed.utils.tensor_fragment.fragment_address"),
    (_Number, "deepspeed.runtime.zero.config.ZeroStageEnum"),
    (_member, "builtins.getattr"),
    (_member, "__builtin__.getattr"),
)
"""All that DeepSpeed's files hold beside tensors, numbers, texts and containers."""


def _load(file: Path) -> dict[str, Any]:
    """What the file holds, its tensors mapped and not read; UserError for anything that is not in a checkpoint of DeepSpeed's."""
    import pickle

    import torch

    try:
        with torch.serialization.safe_globals(list(_STAND_INS)):
            found = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)|function (.+?) ", str(error))
        what = (named[1] or named[2]) if named else "something that is no tensor"
        raise UserError(f"{file} asks for {what}, which no checkpoint needs, and was not read. {_FOREIGN}") from None
    except Exception as error:  # whatever a damaged file makes of torch's reader
        raise UserError(f"{file} cannot be read: {first_line(error)}. {_FOREIGN}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no checkpoint. {_FOREIGN}")
    return found
