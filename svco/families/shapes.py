"""How the configs of published families are made of the sizes in which their releases differ."""

from __future__ import annotations

from typing import Any

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
INTERN_300M = {
    "model_type": "internvl_vision",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "attention_bias": True,
    "image_size": [448, 448],
    "patch_size": [14, 14],
}
NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION_PINPOINTS = [[384 * down, 384 * across] for down in range(1, 7) for across in range(1, 7)]


def language_model(
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


VICUNA_7B = language_model("llama", 4096, 11008, 32, 32, 32, 32064, max_position_embeddings=4096, rms_norm_eps=1e-5)
VICUNA_13B = language_model("llama", 5120, 13824, 40, 40, 40, 32064, max_position_embeddings=4096, rms_norm_eps=1e-5)
MISTRAL_7B = language_model(
    "mistral", 4096, 14336, 32, 32, 8, 32064, max_position_embeddings=32768, rms_norm_eps=1e-5, sliding_window=None
)
YI_34B = language_model("llama", 7168, 20480, 60, 56, 8, 64064, max_position_embeddings=4096, rms_norm_eps=1e-5)


def llava(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llava",
        "image_token_index": 32000,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": text,
        "vision_config": CLIP,
    }


def llava_next(text: dict[str, Any], image_token: int = 32000) -> dict[str, Any]:
    return llava(text) | {
        "model_type": "llava_next",
        "image_token_index": image_token,
        "image_grid_pinpoints": NEXT_PINPOINTS,
    }


def qwen25_vl(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    text = language_model(
        "qwen2_5_vl_text", hidden, inner, layers, heads, kv_heads, vocabulary, max_position_embeddings=128000
    )
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


def gemma3(hidden: int, layers: int, heads: int, kv_heads: int, head: int, scalar: int) -> dict[str, Any]:
    """Every sixth layer attends to all, the others within 1,024 tokens."""
    text = language_model(
        "gemma3_text", hidden, 4 * hidden, layers, heads, kv_heads, 262208, max_position_embeddings=131072
    )
    text |= {"head_dim": head, "query_pre_attn_scalar": scalar, "sliding_window": 1024}
    text["rope_parameters"] = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    return {
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "image_token_index": 262144,
        "text_config": text,
        "vision_config": SIGLIP | {"num_hidden_layers": 27, "image_size": 896},
    }


def qwen3_vl(
    hidden: int, inner: int, layers: int, heads: int, tower: tuple[int, int, int], taken: list[int], tied: bool
) -> dict[str, Any]:
    width, tower_inner, depth = tower
    text = language_model(
        "qwen3_vl_text", hidden, inner, layers, heads, 8, 151936, head_dim=128, max_position_embeddings=262144
    )
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


SMALL_TOWER, LARGE_TOWER = (1024, 4096, 24), (1152, 4304, 27)
"""Qwen3-VL's: width, width inside an MLP, blocks."""


def internvl(text: dict[str, Any], image_token: int) -> dict[str, Any]:
    # The releases leave it to their class, which ties them, whether head and embedding are one; they store two.
    return {
        "model_type": "internvl",
        "image_token_id": image_token,
        "tie_word_embeddings": False,
        "text_config": text,
        "vision_config": INTERN_300M,
    }


def internvl3(hidden: int, inner: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    text = language_model("qwen2", hidden, inner, layers, heads, kv_heads, 151674, max_position_embeddings=32768)
    text["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0}
    return internvl(text, 151667)


def internvl35(hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    text = language_model("qwen3", hidden, inner, layers, heads, 8, 151936, max_position_embeddings=40960, head_dim=128)
    return internvl(text | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 151671)


def idefics(kind: str, text: dict[str, Any], scale: int, image_token: int, **vision: int) -> dict[str, Any]:
    return {
        "model_type": kind,
        "image_token_id": image_token,
        "scale_factor": scale,
        "tie_word_embeddings": False,
        "text_config": text,
        "vision_config": {"model_type": f"{kind}_vision", **vision},
    }


SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
BASE_512 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "image_size": 512,
}


def smolvlm2(text: tuple[int, ...], scale: int, vision: dict[str, int]) -> dict[str, Any]:
    hidden, inner, layers, heads, kv_heads = text
    language = language_model("llama", hidden, inner, layers, heads, kv_heads, 49280, max_position_embeddings=8192)
    return idefics("smolvlm", language, scale, 49190, **vision)


def qwen35(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, values: int, tower: tuple[int, int, int, int]
) -> dict[str, Any]:
    """``values``: value heads of a DeltaNet layer; ``tower``: blocks, width, inner width, heads. The release's extra layer for
    guessing ahead (``mtp``) is no part of the model that transformers loads."""
    tied = hidden < 4096  # the 9B and the 27B have a head of their own
    text = language_model(
        "qwen3_5_text", hidden, inner, layers, heads, kv_heads, 248320, max_position_embeddings=262144
    )
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
