"""The DeepSpeed JSON: read, checked against the recipe, and its "auto" fields filled. Imports no DeepSpeed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from .config import Config
from .errors import UserError

_OURS = {
    "optimizer": "svco builds AdamW itself: set optim.* in the recipe",
    "scheduler": "svco sets the learning rate itself: set optim.lr and optim.warmup_fraction in the recipe",
    "activation_checkpointing": "set optim.recompute in the recipe",
    "tensorboard": "svco writes the run's own TensorBoard log",
    "wandb": "svco logs to TensorBoard and metrics.jsonl",
}

_LIVE = 10**9
"""Weights that may be gathered at once when layers are small: 2 GB in half precision."""


def read_ds_config(path: str | Path) -> dict[str, Any]:
    """The JSON object in ``path``."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no DeepSpeed config {path}. Those that come with svco are in ds_configs/.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The DeepSpeed config {path} cannot be read: {error}") from None
    except ValueError as error:
        raise UserError(f"The DeepSpeed config {path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"The DeepSpeed config {path} must be a JSON object, not a {type(found).__name__}.")
    return found


def fill(
    ds: dict[str, Any], config: Config, world_size: int, dtype: str, path: str = "the DeepSpeed config"
) -> dict[str, Any]:
    """``ds`` with every field the recipe decides filled in; a field that says otherwise is an error naming both.

    DeepSpeed's own batch fields are 1 / 1 / world: svco packs micro-batches by tokens and weights them itself, so the
    number of micro-batches varies from step to step and DeepSpeed must neither count nor average them.
    """
    ds = copy.deepcopy(ds)
    for key, remedy in _OURS.items():
        if key in ds:
            raise UserError(f"{path} has a section {key!r}; remove it: {remedy}.")
    stage = ds.get("zero_optimization", {}).get("stage", 0)
    if stage not in (1, 2, 3):
        raise UserError(
            f"{path} has zero_optimization.stage {stage!r}; svco runs with stage 1, 2 or 3, or with --ds none in "
            "one process without DeepSpeed."
        )
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


def size(ds: dict[str, Any], layer: int | None) -> dict[str, Any]:
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
            zero |= {} if value is None else {key: value}
    return ds | {"zero_optimization": zero}
