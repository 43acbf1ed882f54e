"""DeepSpeed's partitioned checkpoint, read without starting DeepSpeed: float32 masters, one parameter at a time.

DeepSpeed's own zero_to_fp32 joins whole groups under ZeRO-1 and -2 (every master at once) and knows only the scorer's
names; a test holds this against it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError, first_line

if TYPE_CHECKING:
    import torch

NAMES = "names.json"
"""In ``zero/``: parameter name in the root module -> name in the model."""


def read_partitioned(folder: Path) -> dict[str, tuple[tuple[int, ...], Callable[[], torch.Tensor]]]:
    """{parameter name in the model: (shape, reads its float32 master)} of a checkpoint's ``zero`` folder.

    The files are mapped, so what is read stays the page cache's. Parts of several ranks are joined.
    """

    if not (folder / NAMES).is_file():
        raise UserError(f"{folder} has no {NAMES}, without which its weights have no names in the model.")
    names = json.loads((folder / NAMES).read_text())
    ranks = [_load(file)["optimizer_state_dict"] for file in _by_rank(folder.glob("*_optim_states.pt"))]
    model = _load(_by_rank(folder.glob("*_model_states.pt"))[0])
    stage = int(ranks[0]["zero_stage"])
    if stage == 3:
        flats = [state["fp32_flat_groups"] for state in ranks]
        shapes = {name: shape for group in model["param_shapes"] for name, shape in group.items()}
        groups = [(shapes, [0] * len(shapes), flats)]
    else:
        flats = [state["single_partition_of_fp32_groups"] for state in ranks]
        paddings = ranks[0].get("param_alignment_paddings") or [[0] * len(group) for group in model["param_shapes"]]
        groups = [
            (shapes, paddings[g], [[rank[g]] for rank in flats]) for g, shapes in enumerate(model["param_shapes"])
        ]
    found = {}
    for shapes, padding, parts in groups:
        start = 0
        for (name, shape), pad in zip(shapes.items(), padding, strict=True):
            count = math.prod(shape)
            share = -(-count // len(parts))
            # ZeRO-3: every parameter is cut in one share a rank. Below: a group's parameters lie one after another, and the
            # whole is cut.
            pieces = [(rank, start, share) for rank in parts] if stage == 3 else [(sum(parts, []), start, count)]
            found[names[name]] = tuple(shape), _joined(pieces, tuple(shape))
            start += share if stage == 3 else count + pad
    return found


def _joined(pieces: list[tuple[list[torch.Tensor], int, int]], shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    """Reads the parameter made of ``pieces``: (flat tensors that lie end to end, where it starts, length)."""

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


def _load(file: Path) -> dict[str, Any]:
    import torch

    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed, imported by its objects, warns that it finds no GPU
    try:
        # DeepSpeed's files hold objects of its own; the checkpoint's digests say that they are what the run wrote.
        return torch.load(file, map_location="cpu", mmap=True, weights_only=False)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{file} cannot be read: {first_line(error)}") from None
