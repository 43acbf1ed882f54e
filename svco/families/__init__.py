"""One adapter per VLM family, all of the protocol in :mod:`svco.families.protocol`."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from ..basics.errors import UserError, first_line
from .protocol import EncodedText, Family, HfModel, ModelSide, Parts, Pictures

__all__ = [
    "EncodedText",
    "Family",
    "HfModel",
    "ModelSide",
    "Parts",
    "Pictures",
    "architecture",
    "base_config",
    "check_supported",
    "load_family",
]

FAMILIES = {
    "llava": ("svco.families.llava", "Llava"),
    "llava_next": ("svco.families.tiles", "LlavaNext"),
    "llava_onevision": ("svco.families.tiles", "Onevision"),
    "qwen2_5_vl": ("svco.families.qwen", "Qwen"),
    "qwen3_vl": ("svco.families.qwen3", "Qwen3VL"),
    "internvl": ("svco.families.internvl", "InternVL"),
    "idefics3": ("svco.families.idefics", "Idefics"),
    "smolvlm": ("svco.families.idefics", "Idefics"),
    "gemma3": ("svco.families.gemma", "Gemma"),
    "qwen3_5": ("svco.families.qwen3_5", "Qwen35"),
}
"""transformers ``model_type`` -> the module and the name of its adapter: ``<name>Architecture`` needs no processor,
``<name>Family`` is the whole. Imported when used."""

LANGUAGE_MODELS = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen2_5_vl_text",
    "qwen3_vl_text",
    "qwen3_5_text",
    "gemma3_text",
)
"""``model_type`` of the language models whose layers do with a packed row what they do with a sequence."""

REFUSED = {
    "paligemma": "attends in both directions among the tokens of image and prompt",
    "mllama": "shows images to its layers by cross-attention",
    "qwen3_vl_moe": "sends each token to experts of its own, whose weights are no linear layers that adapters fit",
    "qwen3_5_moe": "routes each token to experts of its own",
    "qwen3_next": "routes each token to experts of its own, and its DeltaNet layers have other projections than Qwen3.5's",
    "llama4": "attends in chunks",
}
"""Types that would need more than an adapter, and why."""

UNSUPPORTED_SETTINGS = {
    "attn_logit_softcapping": "caps its attention scores",
    "final_logit_softcapping": "caps its logits",
    "use_bidirectional_attention": "attends in both directions among all tokens",
}
"""Settings of a language model that a packed row does not follow, and what they do."""


def load_family(base: str, max_text_tokens: int, paper_compat: bool = False) -> Family:
    """The adapter for base model ``base`` (folder or hub id), chosen by the ``model_type`` of its config."""
    config = base_config(base)
    check_supported(config, base)
    return _adapter(config["model_type"], "Family")(base, max_text_tokens, paper_compat)


def architecture(model_type: str) -> Any:
    """The half of a family's adapter that needs no processor: where the parts of its model are and how they run."""
    return _adapter(model_type, "Architecture")()


def _adapter(model_type: str, kind: str) -> type:
    module, name = FAMILIES[model_type]
    return getattr(importlib.import_module(module), name + kind)


def check_supported(config: dict[str, Any], base: str) -> None:
    """UserError, naming what stands in the way and what is supported, for a model that svco cannot pack."""
    model_type = config.get("model_type")
    supported = f"Supported: {', '.join(FAMILIES)}, with a language model of {', '.join(LANGUAGE_MODELS)}."
    if model_type in REFUSED:
        raise UserError(
            f"The base model {base!r} is of type {model_type!r}, which {REFUSED[model_type]}; svco does not do that. {supported}"
        )
    if model_type not in FAMILIES:
        raise UserError(
            f"The base model {base!r} is of type {model_type!r}, which svco does not support yet. {supported} "
            "Adding one is one adapter in svco/families/."
        )
    if stored := config.get("quantization_config"):
        how = stored.get("quant_method", "some way") if isinstance(stored, dict) else "some way"
        raise UserError(
            f"The base model {base!r} is stored quantised ({how}), and svco starts from weights in full, into which adapters are "
            "merged. Give the model that it was made from; model.quantise=nf4 holds that in 4 bits while adapters are trained."
        )
    text = config.get("text_config") or config
    language = text.get("model_type", "llama")
    language = "qwen2_5_vl_text" if model_type == language == "qwen2_5_vl" else language  # as older configs say it
    if language not in LANGUAGE_MODELS:
        raise UserError(f"The base model {base!r} has a language model of type {language!r}. {supported}")
    for setting, does in UNSUPPORTED_SETTINGS.items():
        if text.get(setting):
            raise UserError(
                f"The base model {base!r} {does} ({setting} = {text[setting]!r} in its config), which svco does not. {supported}"
            )


def base_config(base: str) -> dict[str, Any]:
    """The ``config.json`` of a base model: a folder here, or what the hub (or its cache) gives."""
    folder = Path(base)
    if folder.is_dir():
        file = folder / "config.json"
        try:
            found = json.loads(file.read_text())
            found["model_type"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"model.base is {base!r}, but {file} is not a model's config ({error}). Point model.base at a "
                "folder in Hugging Face layout."
            ) from None
        return found
    from transformers import PreTrainedConfig

    try:
        return PreTrainedConfig.get_config_dict(base)[0]
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"model.base is {base!r}, which is neither a folder here nor a model the hub gives us ({reason}). "
            "On a machine without internet, download the model elsewhere and give its folder."
        ) from None
