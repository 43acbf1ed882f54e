"""A base in 4 bits, for adapters to be trained beside (QLoRA, arXiv 2305.14314): the only door to bitsandbytes.

The matrices of the decoder layers are NF4 in blocks of 64, whose scales are quantised again to 8 bits in blocks of 256: 4.13 bits
a weight. A matrix is made whole again, in the model's dtype, when it is multiplied. All else is what it was: tower and projector,
which may be trained; embedding and head, whose weight is read as it is (:mod:`svco.model.logprobs`); norms and biases.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..basics.errors import UserError
from ..families import Family, HfModel
from ..recipe.config import Quantise
from .adapter_files import import_peft
from .provenance import read_provenance
from .weight_names import module_name

if TYPE_CHECKING:
    import torch

KEY = "model.quantise"
"""What a run's identity calls it."""
HowHeld = Literal["auto", Quantise]
"""How a base is to be held that is looked at; ``auto``: as the adapter on it was trained."""


def resolve_quantise(wanted: HowHeld, adapter: str | Path | None) -> Quantise:
    """``wanted`` of a base that ``adapter`` is put on; ``auto`` without one, or of one that svco did not write, is ``none``."""
    if wanted != "auto":
        return wanted
    found = None if adapter is None else read_provenance(adapter)
    return "nf4" if found is not None and (found.run or {}).get(KEY) == "nf4" else "none"


def load_in_4_bits(
    architecture: Any, family: Family, dtype: torch.dtype, device: torch.device | None
) -> dict[str, Any]:
    """What ``from_pretrained`` takes to load a model of the config ``architecture`` so, straight onto ``device``, where its
    matrices are quantised one by one. UserError without bitsandbytes."""
    import torch
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError(
            "A base in 4 bits (model.quantise or --quantise nf4) needs the package bitsandbytes, which is not installed: "
            "pip install 'svco[quantised]'."
        )
    import_peft()  # which imports bitsandbytes, quietly
    with torch.device("meta"):
        outline = AutoModelForImageTextToText.from_config(architecture)
    name = module_name(outline, family.parts(outline).layers)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[rf"(?!{re.escape(name)}\.).*"],  # whatever the name says: of 4 bits as of 8
    )
    return {"quantization_config": config, "device_map": {"": device or "cpu"}}


def keep_trainable(model: HfModel) -> None:
    """Has every matrix of 4 bits stay in the form that can be trained through.

    On a processor with bfloat16 instructions (AVX512-BF16) bitsandbytes rewrites a layer's weight when it first runs outside of
    training, for a kernel that has no backward pass and rounds more: after a validation no gradient would get past the layer.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
