"""Weights that are read when their turn comes and written shard by shard: one shard in memory, and one tensor."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError, first_line
from ..basics.files import write_whole
from ..basics.progress import Progress
from ..basics.strict_json import json_text, parse_json
from ..model.adapter_files import save_readable

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Weight:
    """A tensor that is not read yet."""

    shape: tuple[int, ...]
    """Its shape."""
    dtype: torch.dtype
    """The dtype that ``read`` returns."""
    read: Callable[[], torch.Tensor]
    """Reads or computes it, on the CPU."""

    def to(self, dtype: torch.dtype | None) -> Weight:
        """The same in ``dtype``; None, or integers, leave it as it is."""
        if dtype in (None, self.dtype) or not self.dtype.is_floating_point:
            return self
        return replace(self, dtype=dtype, read=lambda: self.read().to(dtype))


def read_file(file: Path) -> dict[str, Weight]:
    """The tensors of a safetensors file, none of them read."""
    import torch
    from safetensors import SafetensorError, safe_open

    found = {}
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (a safetensors file is no dict)
                part = opened.get_slice(name)
                dtype = getattr(torch, _DTYPES[part.get_dtype()])
                found[name] = Weight(tuple(part.get_shape()), dtype, partial(_read, file, name))
    except KeyError as error:
        raise UserError(f"{file} holds {name} in the format {error}, which svco cannot convert.") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {error}. It is damaged or was copied in part.") from None
    return found


def _read(file: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    # Read, not mapped: a mapped file counts as memory of this process for as long as it is open.
    with safe_open(file, "pt", backend="pread") as opened:
        return opened.get_tensor(name)


def read_folder(folder: Path) -> dict[str, Weight]:
    """The weights of a model in Hugging Face layout by their names in its files; UserError if a file is missing."""
    told = _weight_map(folder / INDEX) if (folder / INDEX).is_file() else None
    files = [SINGLE] if told is None else sorted(set(told.values()))
    if missing := [file for file in files if not (folder / file).is_file()]:
        others = " It has .bin files: load and save it once with transformers." if list(folder.glob("*.bin")) else ""
        raise UserError(
            f"The model {folder} lacks {len(missing)} of its {len(files)} weight files, e.g. {missing[0]}.{others}"
        )
    found: dict[str, Weight] = {}
    for file in files:
        weights = read_file(folder / file)
        if odd := sorted(name for name in weights if told is not None and told.get(name) != file):
            raise UserError(
                f"{folder / file} holds {odd[0]}, which {INDEX} does not say. One of them is damaged or of another model."
            )
        found |= weights
    if lost := sorted((told or {}).keys() - found.keys()):
        raise UserError(
            f"{folder / INDEX} names {lost[0]}, which no file has. One of them is damaged or of another model."
        )
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """Weight -> the file beside ``index`` that holds it; UserError if that is not what is in there."""
    try:
        found = parse_json(index.read_bytes())["weight_map"]
        pairs = {str(name): str(file) for name, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of weight files ({first_line(error)}). Copy it again.") from None
    if outside := [file for file in pairs.values() if Path(file).name != file]:
        raise UserError(f"{index} names the file {outside[0]!r}, which is none beside it. Copy it again.")
    return pairs


@dataclass(frozen=True)
class ShardPlan:
    """Which weight goes into which file."""

    files: Mapping[str, list[str]]
    """File -> its weights."""
    index: Mapping[str, Any] | None
    """What the index file says; None for a single file."""

    @property
    def order(self) -> list[str]:
        """The weights in the order in which they are read and written."""
        return [name for names in self.files.values() for name in names]


def plan_shards(disk: Path, weights: Mapping[str, Weight], shard_size: str) -> ShardPlan:
    """``weights`` in files of at most ``shard_size``, as ``save_pretrained`` divides them; UserError if ``disk`` is too full."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards

    shapes = {name: torch.empty(w.shape, dtype=w.dtype, device="meta") for name, w in weights.items()}
    try:
        split = split_torch_state_dict_into_shards(
            shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_size
        )
    except ValueError as error:
        raise UserError(f"The shard size {shard_size!r} is no size ({error}); write it like 5GB or 500MB.") from None
    require_space(disk, split.metadata["total_size"])
    numbers = sum(tensor.numel() for tensor in shapes.values())
    index = {"metadata": {"total_parameters": numbers, **split.metadata}, "weight_map": split.tensor_to_filename}
    return ShardPlan(split.filename_to_tensors, index if split.is_sharded else None)


def write_shards(folder: Path, weights: Mapping[str, Weight], plan: ShardPlan, progress: Progress) -> None:
    """Writes ``weights`` into ``folder``, one shard in memory at a time."""
    shard: dict[str, torch.Tensor] = {}
    places = [(file, name) for file, names in plan.files.items() for name in names]
    for file, name in progress(places, "writing weights"):
        shard[name] = weights[name].read().contiguous()
        if len(shard) == len(plan.files[file]):
            save_readable(shard, folder / file)
            shard = {}
    if plan.index is not None:
        write_whole(folder / INDEX, json_text(plan.index, indent=2, sort_keys=True) + "\n")


def require_space(folder: Path, size: int) -> None:
    """UserError unless ``size`` bytes are free where ``folder`` is."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free and the weights take {size / 1e9:.1f} GB. Free some, or export to "
            "another disk with --to."
        )
