"""A tiny random base model of every family: the true classes, and the chat templates of the releases.

Tokenizer, image processor and template are saved one by one, as they lie in the releases' repositories: transformers' whole
processors of the newer families need torchvision.
"""

from __future__ import annotations

import json

import torch
from places import BASE
from tokenizers.processors import ByteLevel
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    GotOcr2ImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
    SmolVLMImageProcessorPil,
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
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'][0]['text'] + '\n\n' %}"
    "{% set told = messages[1:] %}{% else %}{% set first = '' %}{% set told = messages %}{% endif %}{% for m in told %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (first if loop.first else '') }}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ c['text'] | trim }}{% endif %}"
    "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_TURNS = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]

INTERN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOL = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% elif c['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_OWN_TOKENS = {
    INTERN: {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"},
    GEMMA: {"boi_token": _TURNS[2], "eoi_token": _TURNS[3], "image_token": _TURNS[4]},
    SMOL: {"fake_image_token": "<fake_token_around_image>", "end_of_utterance_token": "<end_of_utterance>"},
}
"""Template -> the tokens by which its releases' tokenizers know what stands around an image. ``<global-img>`` and a tile's row
and column are tokens of SmolVLM's vocabulary as well."""
QWEN35 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)
"""Opens thoughts unless it is told not to, and shows an answer behind empty ones."""
_PLACEHOLDERS = dict.fromkeys((QWEN, QWEN3, QWEN35), "<|image_pad|>") | {INTERN: "<IMG_CONTEXT>"}
"""Template -> the word of an image feature, where it is not ``<image>``."""

_CLIP = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 7, "hidden_act": "quick_gelu"}
_SIGLIP = {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7, "vision_use_head": False}
_PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28]]
_SIZE = {"height": 28, "width": 28}


def _tokenizer(template):
    own = _OWN_TOKENS.get(template)
    tokenizer = AutoTokenizer.from_pretrained(BASE, **({"extra_special_tokens": own} if own else {}))
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens(special, special_tokens=True)
    if template is SMOL:
        tokenizer.add_tokens(
            ["<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2))], special_tokens=True
        )
        tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<end_of_utterance>"
        tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)  # it puts nothing before a text
    if template in _PLACEHOLDERS:
        tokenizer.eos_token = "<|im_end|>"
    if template is GEMMA:
        tokenizer.add_tokens(_TURNS, special_tokens=True)
        tokenizer.add_tokens(["\n\n\n", "\n\n"])  # as in its vocabulary: a picture's first line break joins the turn's
    if template is QWEN35:
        tokenizer.add_tokens(
            ["<|endoftext|>"], special_tokens=True
        )  # which transformers adds to every tokenizer of this type
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


def _patches(side, least, most):
    """Patches of ``side`` pixels of images whose area is that of squares of ``least`` to ``most``."""
    size = {"shortest_edge": least**2, "longest_edge": most**2}
    return Qwen2VLImageProcessorPil(patch_size=side, merge_size=2, temporal_patch_size=2, size=size)


def _qwen():
    vision = {
        "model_type": "qwen2_5_vl_vision", "hidden_size": 32, "depth": 3, "num_heads": 2, "intermediate_size": 48,
        "out_hidden_size": 64, "patch_size": 7, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 28,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = {"model_type": "qwen2_5_vl", "vision_config": vision}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    return QWEN, _patches(7, 28, 98), _config(config, {}, "qwen2_5_vl_text", QWEN, rope_parameters=rope)


def _qwen3():
    vision = {
        "model_type": "qwen3_vl_vision", "hidden_size": 32, "depth": 4, "num_heads": 2, "intermediate_size": 48,
        "out_hidden_size": 64, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "num_position_embeddings": 25, "deepstack_visual_indexes": [2, 0],
    }  # fmt: skip
    config = {"model_type": "qwen3_vl", "vision_config": vision}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    return QWEN3, _patches(8, 32, 96), _config(config, {}, "qwen3_vl_text", QWEN3, rope_parameters=rope, head_dim=16)


def _internvl():
    """3.5: Qwen3. Its config leaves it to its class, which ties them, whether head and embedding are one; two are stored."""
    images = GotOcr2ImageProcessorPil(size=_SIZE, min_patches=1, max_patches=4)
    tower = {"model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [7, 7], "attention_bias": True}
    config = {"model_type": "internvl", "downsample_ratio": 0.5, "image_seq_length": 4}
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    return INTERN, images, _config(config, tower, "qwen3", INTERN, head_dim=16, rope_parameters=rope)


def _smolvlm(kind="smolvlm"):
    """Up to 2 × 2 tiles and the whole picture."""
    images = SmolVLMImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    tower = {"model_type": f"{kind}_vision", "image_size": 28, "patch_size": 7}
    return SMOL, images, _config({"model_type": kind, "scale_factor": 2}, tower, "llama", SMOL)


def _gemma():
    """A window shorter than a picture, which is shorter than a prompt; one layer of three attends to all."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    begin, end, image = (_tokenizer(GEMMA).convert_tokens_to_ids(word) for word in _TURNS[2:])
    config = {"model_type": "gemma3", "mm_tokens_per_image": 16, "boi_token_index": begin, "eoi_token_index": end}
    made = _config(
        config, _SIGLIP | {"image_size": 56}, "gemma3_text", GEMMA, head_dim=16, query_pre_attn_scalar=24,
        sliding_window=12, layer_types=kinds, rope_parameters=ropes,
    )  # fmt: skip
    made.image_token_id, made.tie_word_embeddings, made.text_config.tie_word_embeddings = image, True, True
    return GEMMA, Gemma3ImageProcessorPil(size={"height": 56, "width": 56}), made


def _qwen35():
    """Two DeltaNet layers before one of attention; key heads, value heads and both of their sizes differ."""
    vision = {
        "model_type": "qwen3_5_vision", "hidden_size": 32, "depth": 2, "num_heads": 2, "intermediate_size": 48,
        "out_hidden_size": 64, "patch_size": 7, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "num_position_embeddings": 16,
    }  # fmt: skip
    text = {
        "head_dim": 32, "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 8,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.25,
        },
    }  # fmt: skip
    return (
        QWEN35,
        _patches(7, 28, 98),
        _config({"model_type": "qwen3_5", "vision_config": vision}, {}, "qwen3_5_text", QWEN35, **text),
    )


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
    image = tokenizer.convert_tokens_to_ids(_PLACEHOLDERS.get(template, "<image>"))
    config |= {"text_config": text, "image_token_index": image, "image_token_id": image, "tie_word_embeddings": False}
    return AutoConfig.for_model(**config)


BASES = {
    "llava15": lambda: _llava(VICUNA, _CLIP, "llama"),
    "interleave": lambda: _llava(INTERLEAVE, _SIGLIP, "qwen2"),
    "next_mistral": lambda: _next(MISTRAL, "mistral", sliding_window=20),
    "next_yi": lambda: _next(YI, "llama"),
    "onevision": _onevision,
    "qwen25_vl": _qwen,
    "qwen3_vl": _qwen3,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "gemma3": _gemma,
    "qwen35": _qwen35,
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
            if not parameter.any() and parameter.dim() > 1:  # Gemma's projection begins at zero
                parameter.normal_(std=0.1)
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)
    if template is INTERN:
        told = json.loads((file := folder / "config.json").read_text())
        told.pop("tie_word_embeddings")
        file.write_text(json.dumps(told))
    return folder
