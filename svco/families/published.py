"""The architectures of published checkpoints, for plans and counts on machines that cannot ask the hub.

Each is the part of the release's ``config.json`` that decides sizes; what it leaves out has transformers' defaults.
"""

from __future__ import annotations

from typing import Any

from .shapes import (
    BASE_512,
    LARGE_TOWER,
    MISTRAL_7B,
    ONEVISION_PINPOINTS,
    SIGLIP,
    SMALL_TOWER,
    SO400M,
    VICUNA_7B,
    VICUNA_13B,
    YI_34B,
    gemma3,
    idefics,
    internvl3,
    internvl35,
    language_model,
    llava,
    llava_next,
    qwen3_vl,
    qwen25_vl,
    qwen35,
    smolvlm2,
)

PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": llava(VICUNA_7B),
    "llava-hf/llava-1.5-13b-hf": llava(VICUNA_13B),
    "llava-hf/llava-v1.6-mistral-7b-hf": llava_next(MISTRAL_7B),
    "llava-hf/llava-v1.6-vicuna-7b-hf": llava_next(VICUNA_7B),
    "llava-hf/llava-v1.6-vicuna-13b-hf": llava_next(VICUNA_13B),
    "llava-hf/llava-v1.6-34b-hf": llava_next(YI_34B, image_token=64000),
    "llava-hf/llava-interleave-qwen-7b-hf": {
        "model_type": "llava",
        "image_token_index": 151646,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": language_model("qwen2", 4096, 11008, 32, 32, 32, 152000, max_position_embeddings=32768),
        "vision_config": SIGLIP,
    },
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {
        "model_type": "llava_onevision",
        "image_token_index": 151646,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": ONEVISION_PINPOINTS,
        "text_config": language_model("qwen2", 3584, 18944, 28, 28, 4, 152000, max_position_embeddings=32768),
        "vision_config": SIGLIP,
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": qwen25_vl(2048, 11008, 36, 16, 2, 151936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": qwen25_vl(3584, 18944, 28, 28, 4, 152064, tied=False),
    "Qwen/Qwen3-VL-2B-Instruct": qwen3_vl(2048, 6144, 28, 16, SMALL_TOWER, [5, 11, 17], tied=True),
    "Qwen/Qwen3-VL-4B-Instruct": qwen3_vl(2560, 9728, 36, 32, SMALL_TOWER, [5, 11, 17], tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": qwen3_vl(4096, 12288, 36, 32, LARGE_TOWER, [8, 16, 24], tied=False),
    "Qwen/Qwen3-VL-32B-Instruct": qwen3_vl(5120, 25600, 64, 64, LARGE_TOWER, [8, 16, 24], tied=False),
    "OpenGVLab/InternVL3-1B-hf": internvl3(896, 4864, 24, 14, 2),
    "OpenGVLab/InternVL3-8B-hf": internvl3(3584, 18944, 28, 28, 4),
    "OpenGVLab/InternVL3_5-1B-HF": internvl35(1024, 3072, 28, 16),
    "OpenGVLab/InternVL3_5-8B-HF": internvl35(4096, 12288, 36, 32),
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": smolvlm2((576, 1536, 30, 9, 3), 4, BASE_512),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": smolvlm2((960, 2560, 32, 15, 5), 4, BASE_512),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": smolvlm2((2048, 8192, 24, 32, 32), 3, SO400M | {"image_size": 384}),
    "HuggingFaceM4/Idefics3-8B-Llama3": idefics(
        "idefics3",
        language_model("llama", 4096, 14336, 32, 32, 8, 128259, max_position_embeddings=131072),
        2,
        128257,
        **SO400M | {"image_size": 364},
    ),
    "google/gemma-3-4b-it": gemma3(2560, 34, 8, 4, head=256, scalar=256),
    "google/gemma-3-12b-it": gemma3(3840, 48, 16, 8, head=256, scalar=256),
    "google/gemma-3-27b-it": gemma3(5376, 62, 32, 16, head=128, scalar=168),
    "Qwen/Qwen3.5-0.8B": qwen35(1024, 3584, 24, 8, 2, 16, (12, 768, 3072, 12)),
    "Qwen/Qwen3.5-2B": qwen35(2048, 6144, 24, 8, 2, 16, (24, 1024, 4096, 16)),
    "Qwen/Qwen3.5-4B": qwen35(2560, 9216, 32, 16, 4, 32, (24, 1024, 4096, 16)),
    "Qwen/Qwen3.5-9B": qwen35(4096, 12288, 32, 16, 4, 32, (27, 1152, 4304, 16)),
    "Qwen/Qwen3.5-27B": qwen35(5120, 17408, 64, 24, 4, 48, (27, 1152, 4304, 16)),
}
"""Hub id -> what its ``config.json`` says."""


def published_config(hub_id: str) -> Any | None:
    """The transformers config of a published checkpoint, or None when it is not in the table."""
    from transformers import AutoConfig

    if hub_id not in PUBLISHED:
        return None
    return AutoConfig.for_model(**PUBLISHED[hub_id])
