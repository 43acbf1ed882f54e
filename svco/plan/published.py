"""Configs of published checkpoints, so that a recipe can be planned without a network."""

_CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def _llava15(hidden: int, intermediate: int, layers: int, heads: int) -> dict:
    return {
        "model_type": "llava",
        "vision_config": _CLIP,
        "image_token_index": 32000,
        "text_config": {
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "vocab_size": 32064,
            "tie_word_embeddings": False,
        },
    }


PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": _llava15(4096, 11008, 32, 32),
    "llava-hf/llava-1.5-13b-hf": _llava15(5120, 13824, 40, 40),
}
"""Hub id -> config."""
