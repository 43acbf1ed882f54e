"""Names of weights in both conventions, for every kind of model that is planned for."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from svco.basics.errors import UserError
from svco.model.weight_names import WeightNames

CLIP = {"model_type": "clip_vision_model", "num_hidden_layers": 1}
KINDS = {
    "llava": ("llama", CLIP),
    "llava_next": ("mistral", CLIP),
    "llava_onevision": ("qwen2", {"model_type": "siglip_vision_model", "num_hidden_layers": 1}),
    "gemma3": ("gemma3_text", {"model_type": "siglip_vision_model", "num_hidden_layers": 1}),
    "qwen2_5_vl": ("qwen2_5_vl_text", {"model_type": "qwen2_5_vl", "depth": 1}),
    "qwen3_vl": ("qwen3_vl_text", {"model_type": "qwen3_vl", "depth": 1, "deepstack_visual_indexes": [0]}),
    "internvl": ("qwen3", {"model_type": "internvl_vision", "num_hidden_layers": 1}),
    "smolvlm": ("llama", {"model_type": "smolvlm_vision", "num_hidden_layers": 1}),
}

ALIKE = {"qwen3_vl", "smolvlm"}
"""Whose names transformers 5 left as they were."""


def names_of(kind):
    text, vision = KINDS[kind]
    config = AutoConfig.for_model(kind, text_config={"model_type": text, "num_hidden_layers": 2}, vision_config=vision)
    with torch.device("meta"):
        return WeightNames(AutoModelForImageTextToText.from_config(config))


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind):
    names = names_of(kind)
    four = names.convert(names.weights, "4")
    assert names.convert(four.values(), "5") == {old: five for five, old in four.items()}
    assert names.convert(names.weights, "5") == {five: five for five in names.weights}
    changed = {five for five, old in four.items() if five != old}
    assert changed >= {five for five in names.weights if five.startswith("model.") and kind not in ALIKE}
    if kind in ALIKE:
        assert not changed
        return
    lora = "model.language_model.layers.1.self_attn.q_proj.lora_A.weight"
    assert names.to5(names.to4(lora)) == lora != names.to4(lora)


def test_known_names():
    """As llava-hf/llava-1.5-7b-hf has them on the hub."""
    names = names_of("llava")
    for five, four in {
        "lm_head.weight": "language_model.lm_head.weight",
        "model.language_model.embed_tokens.weight": "language_model.model.embed_tokens.weight",
        "model.vision_tower.pre_layrnorm.bias": "vision_tower.vision_model.pre_layrnorm.bias",
        "model.multi_modal_projector.linear_1.bias": "multi_modal_projector.linear_1.bias",
    }.items():
        assert (names.to4(five), names.to5(four)) == (four, five)
    with pytest.raises(UserError, match="both be named"):
        names.convert(["language_model.model.norm.weight", "model.language_model.norm.weight"], "5")
