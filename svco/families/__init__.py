"""One adapter per VLM family, all of the protocol in :mod:`svco.families.protocol`."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import UserError
from .protocol import EncodedText, Family, Parts

__all__ = ["EncodedText", "Family", "Parts", "load_family"]

FAMILIES = {"llava": ("svco.families.llava", "LlavaFamily")}
"""transformers ``model_type`` -> the module and class of its adapter (imported when used)."""


def load_family(base: str, max_text_tokens: int) -> Family:
    """The adapter for base model ``base`` (folder or hub id), chosen by the ``model_type`` of its config."""
    import importlib

    model_type = _model_type(base)
    if model_type not in FAMILIES:
        raise UserError(
            f"The base model {base!r} is of type {model_type!r}, which svco does not support yet; supported: "
            f"{', '.join(FAMILIES)}. Adding one is one adapter in svco/families/."
        )
    module, name = FAMILIES[model_type]
    return getattr(importlib.import_module(module), name)(base, max_text_tokens)


def _model_type(base: str) -> str:
    folder = Path(base)
    if folder.is_dir():
        file = folder / "config.json"
        try:
            return json.loads(file.read_text())["model_type"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"model.base is {base!r}, but {file} is not a model's config ({error}). Point model.base at a "
                "folder in Hugging Face layout."
            ) from None
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base).model_type
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.base is {base!r}, which is neither a folder here nor a model the hub gives us ({reason}). "
            "On a machine without internet, download the model elsewhere and give its folder."
        ) from None
