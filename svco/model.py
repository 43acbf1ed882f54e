"""Loads the base model, decides what is trained, and builds the root module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .adapters import adapters_off, add_adapters
from .config import Config
from .errors import UserError
from .families import Family
from .padded import PaddedScorer

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Tuned:
    """The model of a run: what learns, what it is compared with, and the module that scores both."""

    policy: nn.Module
    """The Hugging Face model, with its adapters inside under LoRA."""
    reference: nn.Module | None
    """The frozen copy of full fine-tuning; None under LoRA, where the reference is the policy with adapters off."""
    wrapped: Any
    """peft's wrapper around ``policy``, or None."""
    scorer: PaddedScorer
    """``scorer(batch) -> (policy Scores, reference Scores)``: the root module."""

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter that learns, by its name in ``policy``."""
        return {name: p for name, p in self.policy.named_parameters() if p.requires_grad}


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    import torch

    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def load_tuned(config: Config, family: Family, dtype: torch.dtype, progress: bool = True) -> Tuned:
    """Policy, reference and scorer of a recipe, on the CPU or partitioned (see ``engine.loading``).

    ``progress`` False keeps transformers' own bars off the terminal (ranks above 0).
    """
    import torch
    from transformers.utils import logging

    if not progress:
        logging.disable_progress_bar()
    policy = _load_base(config, dtype)
    reference, wrapped = None, None
    if config.model.tune == "lora":
        whole = (module_name(policy, family.projector(policy)),) if config.model.train_projector else ()
        policy.requires_grad_(False)
        # LoRA's initial values: the same on every rank and in every engine. Not before loading, which draws random numbers
        # or not according to how the weights are partitioned.
        torch.manual_seed(config.run.seed)
        wrapped = add_adapters(policy, config.lora, module_name(policy, family.language_model(policy)), whole)
    else:
        # What the authors train: projector and language model, head included.
        policy.requires_grad_(True)
        for module in family.vision_modules(policy):
            module.requires_grad_(False)
        reference = _load_base(config, dtype).requires_grad_(False)
    if config.optim.gradient_checkpointing:
        policy.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return Tuned(policy, reference, wrapped, PaddedScorer(family, policy, reference, adapters_off))


def module_name(root: nn.Module, module: nn.Module) -> str:
    """The dotted name of ``module`` in ``root``."""
    return next(name for name, candidate in root.named_modules() if candidate is module)


def _load_base(config: Config, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoConfig, AutoModelForImageTextToText

    base = config.model.base
    try:
        architecture = AutoConfig.from_pretrained(base)
        # A reference that drops attention weights at random is no reference.
        for part in (architecture, architecture.get_text_config()):
            if getattr(part, "attention_dropout", 0.0):
                part.attention_dropout = 0.0
        model, info = AutoModelForImageTextToText.from_pretrained(
            base, config=architecture, dtype=dtype, attn_implementation=config.model.attention, output_loading_info=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"The base model {base!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    if odd := sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"])):
        raise UserError(
            f"The base model {base!r} does not hold all weights of its architecture: {len(odd)} are missing or of "
            f"another shape, e.g. {odd[0]}. It was saved by another version or is damaged."
        )
    return model
