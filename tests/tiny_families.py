"""A tiny random base model of every family: the true classes, and the chat templates of the releases.

Tokenizer, image processor and template are saved one by one, as they lie in the releases' repositories: transformers' whole
processors of the newer families need torchvision.
"""

from __future__ import annotations

import torch
from places import BASE
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
)

_IMAGES = "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}"
_TEXTS = "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}"
VICUNA = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
    f"{_IMAGES}{{{{ '<image>\n' }}}}{{% endfor %}}{_TEXTS}{{{{ c['text'] + ' ' }}}}{{% endfor %}}{{% endfor %}}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}"
    f"{_IMAGES}{{{{ '<image>\n' }}}}{{% endfor %}}{_TEXTS}{{{{ c['text'] }}}}{{% endfor %}}{{{{ ' [/INST]' }}}}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'][0]['text'] + '<\\\\s> ' }}{% endif %}{% endfor %}"
)
"""With the slip of the release: ``<\\s>`` is no token."""
YI = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    f"{_IMAGES}{{{{ '<image>\n' }}}}{{% endfor %}}{_TEXTS}{{{{ c['text'] }}}}{{% endfor %}}{{{{ '<|im_end|>' }}}}{{% endfor %}}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INTERLEAVE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
    f"{_IMAGES}{{{{ '<image>' }}}}{{% endfor %}}{_TEXTS}{{{{ '\n' + c['text'] }}}}{{% endfor %}}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Interleave's and OneVision's: a space behind the role when a turn is shown, none when one is asked for."""
QWEN = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = QWEN.partition("{% if loop.first")[0] + QWEN.partition("{% endif %}")[2]
"""No system prompt of its own."""

_CLIP = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 7, "hidden_act": "quick_gelu"}
_SIGLIP = {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7, "vision_use_head": False}
_PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28]]
_SIZE = {"height": 28, "width": 28}


def _tokenizer(template):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens(special, special_tokens=True)
    if template in (QWEN, QWEN3):
        tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def _llava(template, tower, language, **more):
    clip = tower is _CLIP
    images = (
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=_SIZE)
        if clip
        else SiglipImageProcessorPil(size=_SIZE)
    )
    config = {
        "model_type": "llava",
        "vision_feature_select_strategy": "default" if clip else "full",
        "vision_feature_layer": -2 if clip else -1,
    }
    return template, images, _config(config, tower, language, template, **more)


def _next(template, language, **more):
    images = LlavaNextImageProcessorPil(size={"shortest_edge": 28}, crop_size=_SIZE, image_grid_pinpoints=_PINPOINTS)
    config = {"model_type": "llava_next", "vision_feature_layer": -2, "image_grid_pinpoints": _PINPOINTS}
    return template, images, _config(config, _CLIP, language, template, **more)


def _onevision():
    images = LlavaOnevisionImageProcessorPil(size=_SIZE, image_grid_pinpoints=_PINPOINTS)
    config = {
        "model_type": "llava_onevision",
        "vision_feature_layer": -1,
        "vision_aspect_ratio": "anyres_max_2",
        "image_grid_pinpoints": _PINPOINTS,
    }
    return INTERLEAVE, images, _config(config, _SIGLIP, "qwen2", INTERLEAVE)


def _qwen():
    images = Qwen2VLImageProcessorPil(
        patch_size=7, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 98 * 98}
    )
    vision = {
        "model_type": "qwen2_5_vl_vision", "hidden_size": 32, "depth": 3, "num_heads": 2, "intermediate_size": 48,
        "out_hidden_size": 64, "patch_size": 7, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 28,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = {"model_type": "qwen2_5_vl", "vision_config": vision}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    return QWEN, images, _config(config, {}, "qwen2_5_vl_text", QWEN, rope_parameters=rope)


def _qwen3():
    images = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96}
    )
    vision = {
        "model_type": "qwen3_vl_vision", "hidden_size": 32, "depth": 4, "num_heads": 2, "intermediate_size": 48,
        "out_hidden_size": 64, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "num_position_embeddings": 25, "deepstack_visual_indexes": [2, 0],
    }  # fmt: skip
    config = {"model_type": "qwen3_vl", "vision_config": vision}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    return QWEN3, images, _config(config, {}, "qwen3_vl_text", QWEN3, rope_parameters=rope, head_dim=16)


def _config(config, tower, language, template, **more):
    tokenizer = _tokenizer(template)
    text = {
        "model_type": language, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False, **more,
    }  # fmt: skip
    if tower:
        config["vision_config"] = tower | {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        }  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>" if template in (QWEN, QWEN3) else "<image>")
    config |= {"text_config": text, "image_token_index": image, "image_token_id": image, "tie_word_embeddings": False}
    return AutoConfig.for_model(**config)


BASES = {
    "llava15": lambda: _llava(VICUNA, _CLIP, "llama"),
    "interleave": lambda: _llava(INTERLEAVE, _SIGLIP, "qwen2"),
    "next_mistral": lambda: _next(MISTRAL, "mistral", sliding_window=None),
    "next_yi": lambda: _next(YI, "llama"),
    "onevision": _onevision,
    "qwen25_vl": _qwen,
    "qwen3_vl": _qwen3,
}


def make_base(name, folder, tokenizer=None):
    """Saves tokenizer, image processor, template and random model of ``BASES[name]`` into ``folder``. ``tokenizer``: another than
    the embedded base's; it knows the template's tokens."""
    template, images, config = BASES[name]()
    if tokenizer is None:
        tokenizer = _tokenizer(template)
    else:
        word = "<|image_pad|>" if template in (QWEN, QWEN3) else "<image>"
        config.image_token_id, config.text_config.vocab_size = tokenizer.convert_tokens_to_ids(word), len(tokenizer)
        for end in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config.text_config, end, getattr(tokenizer, end))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # as initialised, nothing depends much on anything
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)
    return folder
