"""Loads the base model, decides what is trained, and builds the root module."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics import collector
from ..basics.errors import UserError, first_line
from ..basics.shipped import is_inside
from ..families import Family, HfModel
from ..recipe.config import Config, ModelConfig, Quantise
from .adapter_files import NOT_TENSORS
from .attention import attention_name, choose_backend, register
from .compiling import compile_layers
from .lora import adapter_switch, add_adapters
from .quantised import keep_trainable, load_in_4_bits
from .scorer import PackedScorer, Reference
from .stored_config import stored_config
from .weight_names import module_name

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Tuned:
    """The model of a run: what learns, what it is compared with, and the module that scores both."""

    policy: HfModel
    """The Hugging Face model, with its adapters inside under LoRA."""
    reference: HfModel | None
    """The frozen copy, without its vision tower, of ``model.reference: frozen-copy``."""
    wrapped: Any
    """peft's wrapper around ``policy``, or None."""
    scorer: PackedScorer
    """``scorer(batch) -> (policy Scores, reference Scores)``: the root module."""
    attention: str
    """The attention backend."""
    why_attention: str
    """Why that one."""

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter that learns, by its name in ``policy``."""
        return {name: p for name, p in self.policy.named_parameters() if p.requires_grad}


def resolve_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype of the weights for ``model.dtype`` on ``device``."""
    import torch

    if config.dtype == "auto" and device.type == "cuda":
        return torch.float16 if config.paper_compat else torch.bfloat16
    if config.dtype == "float16" and device.type != "cuda":
        raise UserError("model.dtype is float16, which DeepSpeed runs on GPUs alone. On a CPU use float32 or bfloat16.")
    return torch.float32 if config.dtype == "auto" else getattr(torch, config.dtype)


def load_tuned(
    config: Config,
    family: Family,
    dtype: torch.dtype,
    strategy: str,
    device: torch.device,
    progress: bool = True,
) -> Tuned:
    """Policy, reference and scorer of a recipe, on the CPU or partitioned (see ``engine.loading``).

    ``strategy`` says where the reference comes from (:mod:`svco.objectives.reference`), ``device`` where it will all run.
    ``progress`` False keeps transformers' own bars off the terminal (ranks above 0).
    """
    show_loading(progress)
    backend, why = choose_backend(config.model.attention, device, dtype)
    register(backend)
    policy = load_base(config.model.base, family, dtype, backend, config.model.quantise, device)
    wrapped = _choose_trained(policy, config, family)
    reference = None
    if strategy == "frozen-copy":
        reference = load_base(config.model.base, family, dtype, backend).requires_grad_(False)
        # The tower is never trained: the policy's does for both.
        family.drop_tower(reference)
    if config.model.compile:
        for model in filter(None, (policy, reference)):
            compile_layers(family.parts(model).layers)
    scorer = PackedScorer(family, policy, Reference(reference, strategy == "lockstep"), adapter_switch)
    return Tuned(policy, reference, wrapped, scorer, backend, why)


def show_loading(progress: bool) -> None:
    """Leaves transformers' own bars on where there is a terminal and ``progress`` is wanted (rank 0), and turns them off
    elsewhere: they are redrawn with control characters."""
    from transformers.utils import logging

    if not (progress and sys.stderr.isatty()):
        logging.disable_progress_bar()


def outline(config: Config, family: Family, dtype: torch.dtype) -> nn.Module:
    """The policy of :func:`load_tuned` on the meta device: every shape and what is trained, and no weight."""
    import torch
    from transformers import AutoModelForImageTextToText

    architecture = stored_config(config.model.base)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(architecture, dtype=dtype)
    _choose_trained(model, config, family)
    return model


def _choose_trained(policy: nn.Module, config: Config, family: Family) -> Any:
    """Sets what of ``policy`` learns and adds its adapters in place; peft's wrapper, or None for full fine-tuning."""
    import torch

    parts = family.parts(policy)
    if config.model.tune == "full":
        # What the authors train: projector and language model, head included.
        policy.requires_grad_(True)
        parts.tower.requires_grad_(False)
        return None
    learns = parts.projection if config.model.train_projector else ()
    whole = tuple(module_name(policy, module) for module in learns)
    policy.requires_grad_(False)
    # LoRA's initial values: the same on every rank and in every engine. Not before loading, which draws random numbers
    # or not according to how the weights are partitioned.
    torch.manual_seed(config.run.seed)
    return add_adapters(policy, config.lora, module_name(policy, parts.language_model), whole)


def check_base(base: str) -> None:
    """UserError where the index of a folder's weights names files outside of it."""
    for index in Path(base).glob("*.index.json"):
        try:
            names = json.loads(index.read_text())["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} is no index of weights ({first_line(error)}).") from None
        for name in names:
            if not is_inside(name):
                raise UserError(f"{index} names the file {name!r}, outside of its folder. No such file is read.")


def load_base(
    base: str,
    family: Family,
    dtype: torch.dtype,
    backend: str,
    quantise: Quantise = "none",
    device: torch.device | None = None,
) -> HfModel:
    """The Hugging Face model ``base`` (folder or hub id) as the scorer runs it; ``backend`` must be registered. With ``quantise``
    it is loaded onto ``device`` (None: the CPU), else onto the CPU. UserError where it cannot be loaded or lacks weights."""
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    check_base(base)
    try:
        architecture = stored_config(base)
        # A reference that drops attention weights at random is no reference.
        for part in (architecture, architecture.get_text_config()):
            if getattr(part, "attention_dropout", 0.0):
                part.attention_dropout = 0.0
        in_4_bits = {} if quantise == "none" else load_in_4_bits(architecture, family, dtype, device)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            base,
            config=architecture,
            dtype=dtype,
            attn_implementation={
                "text_config": attention_name(backend),
                "vision_config": family.vision_attention(backend),
            },
            output_loading_info=True,
            **in_4_bits,
            trust_remote_code=False,  # or transformers asks whether it may run what a folder brings along
            weights_only=True,
        )
        model, info = loaded
    except pickle.UnpicklingError:
        raise UserError(f"The base model {base!r} cannot be loaded: a file of its weights {NOT_TENSORS}") from None
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(f"The base model {base!r} cannot be loaded: {first_line(error)}") from None
    if odd := sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"])):
        raise UserError(
            f"The base model {base!r} does not hold all weights of its architecture: {len(odd)} are missing or of "
            f"another shape, e.g. {odd[0]}. It was saved by another version or is damaged."
        )
    if in_4_bits:
        keep_trainable(model)
    collector.go_on()
    return model
