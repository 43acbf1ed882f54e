"""The architectures of published checkpoints, for plans and counts on machines that cannot ask the hub.

Each is the part of the release's ``config.json`` that decides sizes; what it leaves out has transformers' defaults.
"""

from __future__ import annotations

from typing import Any

_CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
_NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_ONEVISION_PINPOINTS = [[384 * down, 384 * across] for down in range(1, 7) for across in range(1, 7)]


def _text(
    kind: str, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        **more,
    }


_VICUNA_7B = _text("llama", 4096, 11008, 32, 32, 32, 32064, max_position_embeddings=4096, rms_norm_eps=1e-5)
_VICUNA_13B = _text("llama", 5120, 13824, 40, 40, 40, 32064, max_position_embeddings=4096, rms_norm_eps=1e-5)
_MISTRAL_7B = _text(
    "mistral", 4096, 14336, 32, 32, 8, 32064, max_position_embeddings=32768, rms_norm_eps=1e-5, sliding_window=None
)
_YI_34B = _text("llama", 7168, 20480, 60, 56, 8, 64064, max_position_embeddings=4096, rms_norm_eps=1e-5)


def _llava(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llava",
        "image_token_index": 32000,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": text,
        "vision_config": _CLIP,
    }


def _llava_next(text: dict[str, Any], image_token: int = 32000) -> dict[str, Any]:
    return _llava(text) | {
        "model_type": "llava_next",
        "image_token_index": image_token,
        "image_grid_pinpoints": _NEXT_PINPOINTS,
    }


def _qwen25_vl(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    text = _text("qwen2_5_vl_text", hidden, inner, layers, heads, kv_heads, vocabulary, max_position_embeddings=128000)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text["tie_word_embeddings"] = tied
    vision = {
        "model_type": "qwen2_5_vl_vision",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "depth": 32,
        "num_heads": 16,
        "out_hidden_size": hidden,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    return {
        "model_type": "qwen2_5_vl",
        "image_token_id": 151655,
        "tie_word_embeddings": tied,
        "text_config": text,
        "vision_config": vision,
    }


def _qwen3_vl(
    hidden: int, inner: int, layers: int, heads: int, tower: tuple[int, int, int], taken: list[int], tied: bool
) -> dict[str, Any]:
    width, tower_inner, depth = tower
    text = _text("qwen3_vl_text", hidden, inner, layers, heads, 8, 151936, head_dim=128, max_position_embeddings=262144)
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    }
    text["tie_word_embeddings"] = tied
    vision = {
        "model_type": "qwen3_vl_vision",
        "hidden_size": width,
        "intermediate_size": tower_inner,
        "depth": depth,
        "num_heads": 16,
        "out_hidden_size": hidden,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": taken,
    }
    return {
        "model_type": "qwen3_vl",
        "image_token_id": 151655,
        "tie_word_embeddings": tied,
        "text_config": text,
        "vision_config": vision,
    }


_SMALL_TOWER, _LARGE_TOWER = (1024, 4096, 24), (1152, 4304, 27)
"""Qwen3-VL's: width, width inside an MLP, blocks."""


def _qwen35(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, values: int, tower: tuple[int, int, int, int]
) -> dict[str, Any]:
    """``values``: value heads of a DeltaNet layer; ``tower``: blocks, width, inner width, heads. The release's extra layer for
    guessing ahead (``mtp``) is no part of the model that transformers loads. The 2B's tower is from memory."""
    tied = hidden < 4096  # the 9B and the 27B have a head of their own
    text = _text("qwen3_5_text", hidden, inner, layers, heads, kv_heads, 248320, max_position_embeddings=262144)
    text["linear_num_value_heads"] = values
    text["tie_word_embeddings"] = tied
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1e7,
        "mrope_section": [11, 11, 10],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    }
    blocks, width, tower_inner, tower_heads = tower
    vision = {
        "model_type": "qwen3_5_vision",
        "depth": blocks,
        "hidden_size": width,
        "intermediate_size": tower_inner,
        "num_heads": tower_heads,
        "out_hidden_size": hidden,
    }
    return {"model_type": "qwen3_5", "tie_word_embeddings": tied, "text_config": text, "vision_config": vision}


PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": _llava(_VICUNA_7B),
    "llava-hf/llava-1.5-13b-hf": _llava(_VICUNA_13B),
    "llava-hf/llava-v1.6-mistral-7b-hf": _llava_next(_MISTRAL_7B),
    "llava-hf/llava-v1.6-vicuna-7b-hf": _llava_next(_VICUNA_7B),
    "llava-hf/llava-v1.6-vicuna-13b-hf": _llava_next(_VICUNA_13B),
    "llava-hf/llava-v1.6-34b-hf": _llava_next(_YI_34B, image_token=64000),
    "llava-hf/llava-interleave-qwen-7b-hf": {
        "model_type": "llava",
        "image_token_index": 151646,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": _text("qwen2", 4096, 11008, 32, 32, 32, 152000, max_position_embeddings=32768),
        "vision_config": _SIGLIP,
    },
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {
        "model_type": "llava_onevision",
        "image_token_index": 151646,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": _ONEVISION_PINPOINTS,
        "text_config": _text("qwen2", 3584, 18944, 28, 28, 4, 152000, max_position_embeddings=32768),
        "vision_config": _SIGLIP,
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen25_vl(2048, 11008, 36, 16, 2, 151936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen25_vl(3584, 18944, 28, 28, 4, 152064, tied=False),
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3_vl(2048, 6144, 28, 16, _SMALL_TOWER, [5, 11, 17], tied=True),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3_vl(2560, 9728, 36, 32, _SMALL_TOWER, [5, 11, 17], tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3_vl(4096, 12288, 36, 32, _LARGE_TOWER, [8, 16, 24], tied=False),
    "Qwen/Qwen3-VL-32B-Instruct": _qwen3_vl(5120, 25600, 64, 64, _LARGE_TOWER, [8, 16, 24], tied=False),
    "Qwen/Qwen3.5-0.8B": _qwen35(1024, 3584, 24, 8, 2, 16, (12, 768, 3072, 12)),
    "Qwen/Qwen3.5-2B": _qwen35(2048, 6144, 24, 8, 2, 16, (24, 1024, 4096, 16)),
    "Qwen/Qwen3.5-4B": _qwen35(2560, 9216, 32, 16, 4, 32, (24, 1024, 4096, 16)),
    "Qwen/Qwen3.5-9B": _qwen35(4096, 12288, 32, 16, 4, 32, (27, 1152, 4304, 16)),
    "Qwen/Qwen3.5-27B": _qwen35(5120, 17408, 64, 24, 4, 48, (27, 1152, 4304, 16)),
}
"""Hub id -> what its ``config.json`` says."""


def published_config(hub_id: str) -> Any | None:
    """The transformers config of a published checkpoint, or None when it is not in the table."""
    from transformers import AutoConfig

    if hub_id not in PUBLISHED:
        return None
    return AutoConfig.for_model(**PUBLISHED[hub_id])
