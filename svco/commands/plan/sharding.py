"""A DeepSpeed config as the plan reads it, and the bytes that are there whatever is computed: weights, gradients, optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...recipe.config import Config
from ...recipe.ds_config import fill, with_leaf_sizes
from .architecture import Architecture
from .traffic import Limits
from .workload import Tuning

MASTER, MOMENTS, GRADIENT = 4, 8, 4
"""Bytes a trained weight in float32: the master, AdamW's two moments, the gradient of a step."""


@dataclass(frozen=True)
class Sharding:
    """How a DeepSpeed config spreads and moves a model."""

    name: str
    """Of the config."""
    stage: int
    """ZeRO stage."""
    limits: Limits
    """ZeRO-3's."""
    bucket: float
    """``reduce_bucket_size``, in weights."""
    parameters: str = "gpu"
    """Where the shards of weights are: ``gpu``, ``cpu``, ``nvme``."""
    optimizer: str = "gpu"
    """Where masters and moments are."""
    group: int = 1
    """GPUs of a second partition inside a node (``zero_hpz_partition_size``); 1: none."""
    quantized_weights: bool = False
    """Weights travel in 8 bits."""
    quantized_gradients: bool = False
    """Gradients travel in 4 bits."""

    @classmethod
    def of(cls, name: str, ds: dict[str, Any], config: Config, ranks: int, layer: int) -> Sharding:
        """Of JSON ``ds`` for recipe ``config``; ``layer``: weights that a leaf module gathers at once.

        A second partition of "auto" spans all ranks here: the plan cuts it to a node.
        """
        # A plan writes nothing to disk: any place will do.
        config = replace(config, run=replace(config.run, swap=config.run.swap or "the run's own"))
        zero = with_leaf_sizes(fill(ds, config, ranks, _dtype(config), name), layer)["zero_optimization"]

        def number(key: str, default: float) -> float:
            found = zero.get(key, "auto")
            return default if found == "auto" else float(found)

        def device(key: str) -> str:
            found = (zero.get(key) or {}).get("device", "none")
            return "gpu" if found == "none" else found

        return cls(
            name=name,
            stage=zero["stage"],
            limits=Limits(
                number("stage3_max_reuse_distance", 1e9),
                number("stage3_prefetch_bucket_size", 5e7),
                number("stage3_max_live_parameters", 1e9),
                number("stage3_param_persistence_threshold", 1e5),
            ),
            bucket=number("reduce_bucket_size", 5e8),
            parameters=device("offload_param"),
            optimizer=device("offload_optimizer"),
            group=int(number("zero_hpz_partition_size", ranks if "zero_hpz_partition_size" in zero else 1)),
            quantized_weights=bool(zero.get("zero_quantized_weights", False)),
            quantized_gradients=bool(zero.get("zero_quantized_gradients", False)),
        )


def _dtype(config: Config) -> str:
    return "bfloat16" if config.model.dtype == "auto" else config.model.dtype


@dataclass(frozen=True)
class States:
    """Bytes of one rank, wherever they are."""

    weights: float
    """Weights of the base model: its shard, or all of them."""
    adapters: float
    """Weights of adapters, and of a projector that is trained beside them."""
    copy: float
    """Weights of the frozen copy."""
    second: float
    """The second partition inside a node."""
    persistent: float
    """Small weights that every rank keeps whole."""
    optimizer: float
    """Float32 masters and AdamW's moments."""
    gradients: float
    """Float32 gradients of a step."""
    local: float
    """Gradients in the weights' dtype where they are made, until they are reduced."""
    bucket: float
    """Buffers in which gradients are reduced."""


def states(a: Architecture, tuning: Tuning, sharding: Sharding, ranks: int, persistent: float) -> States:
    """What one of ``ranks`` holds between steps and while gradients gather; ``persistent``: weights never partitioned."""
    b, trained = tuning.weight_bytes, tuning.trained(a)
    split = ranks if sharding.stage == 3 else 1
    beside = 0 if tuning.full else trained
    everything = tuning.held(a)
    bucket = min(sharding.bucket, trained) if sharding.stage < 3 else sharding.bucket
    return States(
        weights=tuning.base(a) / split,
        adapters=b * beside / split,
        copy=b * tuning.copy(a) / split,
        second=b * everything / sharding.group if sharding.group > 1 and sharding.stage == 3 else 0.0,
        persistent=b * persistent if sharding.stage == 3 else 0.0,
        optimizer=(MASTER + MOMENTS) * trained / ranks,
        gradients=GRADIENT * trained / ranks,
        local=0.0 if tuning.full and sharding.stage >= 2 else b * trained,
        bucket=b * bucket,
    )
