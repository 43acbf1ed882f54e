"""The DeepSpeed JSON: read, checked against the recipe, and its "auto" fields filled. Imports no DeepSpeed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..basics.errors import UserError
from ..basics.shipped import DS_CONFIGS, find
from ..basics.strict_json import parse_json
from .config import Config

_OURS = {
    "optimizer": "svco builds AdamW itself: set optim.* in the recipe",
    "scheduler": "svco sets the learning rate itself: set optim.lr and optim.warmup_fraction in the recipe",
    "activation_checkpointing": "set optim.recompute in the recipe",
    "tensorboard": "svco writes the run's own TensorBoard log",
    "wandb": "svco logs to TensorBoard and metrics.jsonl",
}
"""Section that a config may not have -> what is done instead."""
_OFFLOAD = {
    "offload_param": {"none": (1, 2, 3), "cpu": (3,), "nvme": (3,)},
    "offload_optimizer": {"none": (1, 2, 3), "cpu": (1, 2, 3), "nvme": (3,)},
}
"""What can be offloaded where, at which stages."""
_REQUIRED_OFFLOAD = {
    "ratio": 1,
    "super_offload": False,
    "pipeline_read": False,
    "pipeline_write": False,
    "fast_init": False,
}
"""Settings of ``offload_optimizer`` under which svco could not save the optimizer's state, at the value they must have."""
COMPRESSED = ("zero_quantized_weights", "zero_quantized_gradients")
"""ZeRO++'s quantised settings; "auto": for full fine-tuning."""

_LIVE = 10**9
"""Weights that may be gathered at once when layers are small: 2 GB in half precision."""


def read_ds_config(path: str | Path) -> dict[str, Any]:
    """The JSON object in ``path``, or in the shipped config of that name."""
    file = find(path, DS_CONFIGS, "DeepSpeed config")
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The DeepSpeed config {path} cannot be read: {error}") from None
    except ValueError as error:
        raise UserError(f"The DeepSpeed config {path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"The DeepSpeed config {path} must be a JSON object, not a {type(found).__name__}.")
    return found


def fill(
    ds: dict[str, Any],
    config: Config,
    world_size: int,
    dtype: str,
    path: str = "the DeepSpeed config",
    local_size: int = 0,
) -> dict[str, Any]:
    """``ds`` with every field the recipe decides filled in; a field that says otherwise is an error naming both.

    ``local_size`` is the number of ranks on a node; 0: all of them.

    DeepSpeed's own batch fields are 1 / 1 / world: svco packs micro-batches by tokens and weights them itself, so the
    number of micro-batches varies from step to step and DeepSpeed must neither count nor average them.
    """
    ds = copy.deepcopy(ds)
    for key, remedy in _OURS.items():
        if key in ds:
            raise UserError(f"{path} has a section {key!r}; remove it: {remedy}.")
    zero = ds.get("zero_optimization", {})
    if zero.get("stage", 0) not in (1, 2, 3):
        raise UserError(
            f"{path} has zero_optimization.stage {zero.get('stage', 0)!r}; svco runs with stage 1, 2 or 3, or with --ds none "
            "in one process without DeepSpeed."
        )
    _check_quantised(zero, config, path)
    _check_offload(zero, config, path)
    _check_zeropp(zero, config, world_size, local_size or world_size, path)
    clip = config.optim.max_grad_norm
    decided = {
        ("train_micro_batch_size_per_gpu",): (1, "svco sizes micro-batches by optim.tokens_per_micro_batch"),
        ("gradient_accumulation_steps",): (1, "svco accumulates to optim.global_batch pairs itself"),
        ("train_batch_size",): (world_size, "svco's global batch is optim.global_batch, counted in pairs"),
        ("gradient_clipping",): (clip, f"optim.max_grad_norm is {clip}"),
        ("bf16", "enabled"): (dtype == "bfloat16", f"model.dtype is {dtype}"),
        ("fp16", "enabled"): (dtype == "float16", f"model.dtype is {dtype}"),
        ("data_types", "grad_accum_dtype"): ("fp32", "gradients are accumulated in float32"),
        # Full fine-tuning: gradients are as large as the model and must be sharded as they come; LoRA reduces once a step.
        ("managed_gradient_accumulation",): (config.model.tune == "lora", f"model.tune is {config.model.tune}"),
    }
    for keys, (value, why) in decided.items():
        section = ds
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        found = section.get(keys[-1], "auto")
        if found not in ("auto", value):
            raise UserError(
                f"{path} sets {'.'.join(keys)} to {found!r}, but {why}, which makes it {value!r}. "
                'Write "auto" there, or change the recipe.'
            )
        section[keys[-1]] = value
    ds.setdefault("steps_per_print", 2**31 - 1)  # the run's own log says it all
    return ds


def _check_quantised(zero: dict[str, Any], config: Config, path: str) -> None:
    """UserError for a quantised base where weights are sharded."""
    if zero["stage"] == 3 and config.model.quantise != "none":
        raise UserError(
            f"{path} has zero_optimization.stage 3 and model.quantise is {config.model.quantise}: transformers loads a quantised "
            "model whole on every rank, and the scales of its weights would stay whole there: sharding would save nothing when "
            "memory is needed. Use ds_configs/zero2.json, or --ds none on one GPU; or model.quantise=none under ZeRO-3."
        )


def _check_offload(zero: dict[str, Any], config: Config, path: str) -> None:
    """UserError for offloading that DeepSpeed or svco cannot do; fills ``nvme_path``."""
    for key, devices in _OFFLOAD.items():
        section = zero.get(key) or {}
        is_adapters_state = key == "offload_optimizer" and config.model.tune == "lora"
        if section.get("device") == "auto":
            # Adapters' state is small, and saving them gathers it a parameter at a time.
            section["device"] = "cpu" if is_adapters_state else "nvme"
        device = section.get("device", "none")
        if device == "nvme" and is_adapters_state:
            raise UserError(
                f"{path} offloads the optimizer to NVMe and model.tune is lora: the state of adapters is small. Set "
                f'{key}.device to "cpu" or "auto".'
            )
        if zero["stage"] not in devices.get(device, ()):
            allowed = ", ".join(f"{name} (stage {', '.join(map(str, stages))})" for name, stages in devices.items())
            raise UserError(f"{path} sets {key}.device to {device!r} at stage {zero['stage']}. It can be {allowed}.")
        for name, value in _REQUIRED_OFFLOAD.items():
            if key == "offload_optimizer" and section.get(name, value) != value:
                raise UserError(f"{path} sets {key}.{name} to {section[name]!r}; svco runs with {value!r} only.")
        if device != "nvme":
            section.pop("nvme_path", None)
        elif section.get("nvme_path", "auto") == "auto":
            if not config.run.swap:
                raise UserError(
                    f'{path} offloads to NVMe and leaves its nvme_path "auto": set run.swap to a folder on each node\'s own '
                    "disk, e.g. run.swap=/local/scratch."
                )
            section["nvme_path"] = config.run.swap


def _check_zeropp(zero: dict[str, Any], config: Config, world_size: int, local_size: int, path: str) -> None:
    """UserError for ZeRO++ settings that do not fit the recipe or the ranks; fills those that are "auto"."""
    if zero.get("zero_quantized_nontrainable_weights"):
        raise UserError(
            f"{path} sets zero_quantized_nontrainable_weights, which keeps 8-bit shards that svco cannot check. Remove it."
        )
    lora = config.model.tune == "lora"
    for key in COMPRESSED:
        if zero.get(key) == "auto":
            zero[key] = not lora
        if zero.get(key) and lora:
            raise UserError(
                f"{path} sets {key} and model.tune is lora: 8-bit gathers round young adapters away, and their gradients are "
                f'small and travel once a step. Set {" and ".join(COMPRESSED)} to false or "auto"; zero_hpz_partition_size '
                "works without."
            )
    if zero.get("zero_hpz_partition_size") == "auto":
        zero["zero_hpz_partition_size"] = local_size
    size = zero.get("zero_hpz_partition_size", 1)
    asked = [key for key in COMPRESSED if zero.get(key)]
    if size != 1:
        asked.append("zero_hpz_partition_size")
    if asked and (zero["stage"] != 3 or offloaded({"zero_optimization": zero}, "param") != "none"):
        raise UserError(f"{path} sets {', '.join(asked)}: ZeRO++ needs stage 3 without offload_param.")
    if not isinstance(size, int) or size < 1 or world_size % size:
        raise UserError(
            f"{path} sets zero_hpz_partition_size to {size!r}, which does not divide the {world_size} ranks. It is the number "
            'of ranks that share a node; "auto" takes it from the launcher.'
        )


def offloaded(ds: Mapping[str, Any], what: str) -> str:
    """Where ``what`` (``param`` or ``optimizer``) lives between its uses: ``none`` (the device), ``cpu`` or ``nvme``."""
    return (ds["zero_optimization"].get(f"offload_{what}") or {}).get("device", "none")


def check_swapped(place: str, reference: str) -> None:
    """UserError if weights that live in ``place`` cannot be those of a run whose reference is ``reference``, once chosen."""
    if place == "nvme" and reference == "frozen-copy":
        raise UserError(
            "The weights are offloaded to NVMe and the reference is a frozen copy: DeepSpeed swaps one model a run. Use "
            "model.reference=cached, or offload to the CPU (ds_configs/zero3_offload.json)."
        )


def with_leaf_sizes(ds: dict[str, Any], layer: int | None) -> dict[str, Any]:
    """``ds`` with ZeRO-3's "auto" sizes filled from ``layer``, the weights that one leaf module gathers at once; None leaves
    them out, for loading, where they play no part.

    DeepSpeed gathers ahead at most ``stage3_prefetch_bucket_size`` weights at each module: fewer than a layer's leave the rest
    of it to be waited for. It stops gathering ahead when ``stage3_max_live_parameters`` are there: those of the layer that
    computes, of the next, and of what is kept between forward and backward.
    """
    sizes = {
        "stage3_prefetch_bucket_size": layer,
        "stage3_max_live_parameters": layer and max(_LIVE, 3 * layer),
    }
    zero = dict(ds["zero_optimization"])
    for key, value in sizes.items():
        if zero.get(key) == "auto":
            del zero[key]
            if value is not None:
                zero[key] = value
    return ds | {"zero_optimization": zero}
