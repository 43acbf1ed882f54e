"""Models of true shapes with random weights, cut to what a machine can hold, and pairs of stated lengths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...basics.shipped import FOLDER, SHARDS
from ...batches.encode import EncodedPair
from ...families import EncodedText, Pictures
from ...families.llava import LlavaArchitecture

TINY = (FOLDER / SHARDS / "tiny_llava").resolve()
"""The embedded base model, whose processor is lent where one is needed."""


@dataclass(frozen=True)
class Shape:
    """A LLaVA's sizes and the lengths of a pair, in tokens."""

    hidden: int
    """Width of the language model."""
    intermediate: int
    """Width inside its MLPs."""
    layers: int
    """Decoder layers."""
    heads: int
    """Attention heads."""
    groups: int
    """Key/value heads."""
    vocabulary: int
    """Token ids."""
    vision_hidden: int = 1024
    """Width of the vision tower."""
    vision_layers: int = 24
    """Layers of the vision tower."""
    vision_heads: int = 16
    """Heads of the vision tower."""
    image: int = 336
    """Side of an image, pixels."""
    patch: int = 14
    """Side of a patch, pixels."""
    prompt: int = 40
    """Text tokens before a response."""
    response: int = 60
    """Tokens of a response, the end token included."""
    cut: str = ""
    """What was cut, for reports."""

    @property
    def features(self) -> int:
        """Image tokens."""
        return (self.image // self.patch) ** 2

    def reduced(self, layers: int, scale: float, vocabulary: int) -> Shape:
        """This shape with ``layers`` decoder layers (0: all), widths and heads times ``scale``, and ``vocabulary`` ids (0: all).

        The tower is scaled alike, in width and in depth. Head sizes and all lengths stay true.
        """
        said = []
        shape = self
        if layers and layers != self.layers:
            said.append(f"{layers} of {self.layers} layers")
            deep = max(2, round(self.vision_layers * layers / self.layers))
            shape = replace(shape, layers=layers, vision_layers=deep)
        if scale != 1:
            said.append(f"widths and heads × {scale:g}")
            heads = max(1, round(self.heads * scale))
            groups = max(1, heads * self.groups // self.heads)
            vision_heads = max(1, round(self.vision_heads * scale))
            shape = replace(
                shape,
                hidden=heads * (self.hidden // self.heads),
                intermediate=round(self.intermediate * scale / 8) * 8,
                heads=heads // groups * groups,
                groups=groups,
                vision_hidden=vision_heads * (self.vision_hidden // self.vision_heads),
                vision_heads=vision_heads,
            )
        if vocabulary and vocabulary != self.vocabulary:
            said.append(f"{vocabulary:,} of {self.vocabulary:,} token ids")
            shape = replace(shape, vocabulary=vocabulary)
        return replace(shape, cut=", ".join(said))


SHAPES = {
    "tiny": Shape(128, 256, 4, 4, 2, 600, 128, 3, 4, 48, 8, prompt=17, response=9),
    "llava15-7b": Shape(4096, 11008, 32, 32, 32, 32064),
    "llava15-13b": Shape(5120, 13824, 40, 40, 40, 32064),
    # The 34B language model behind one 336-pixel tile; with any-resolution tiles an image has up to five times the tokens.
    "llava16-34b": Shape(7168, 20480, 60, 56, 8, 64064),
}


def llava_config(shape: Shape) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    text = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        use_cache=False,
    )
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_hidden,
        intermediate_size=4 * shape.vision_hidden,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=shape.image,
        patch_size=shape.patch,
    )
    return LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=shape.vocabulary - 1,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )


def random_model(shape: Shape, attention: str, dtype: torch.dtype, device: torch.device, seed: int = 0) -> nn.Module:
    """A ``LlavaForConditionalGeneration`` of ``shape``, the same weights for the same seed."""
    from transformers import LlavaForConditionalGeneration

    config = llava_config(shape)
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return LlavaForConditionalGeneration._from_config(
                config, attn_implementation={"text_config": attention, "vision_config": "sdpa"}
            )
    finally:
        torch.set_default_dtype(before)


class SyntheticFamily(LlavaArchitecture):
    """LLaVA's adapter without a processor: its pairs are token ids and pixels already."""

    def __init__(self, shape: Shape):
        self.image_token_id = shape.vocabulary - 1

    def pixels(self, images: list[Any]) -> Pictures:
        return Pictures(torch.stack(images) if images else torch.empty(0), ((1,),) * len(images))

    def image_token_mask(self, ids: Any) -> Any:
        return ids == self.image_token_id


def random_pairs(shape: Shape, count: int, seed: int) -> list[EncodedPair]:
    """Pairs of exactly the shape's lengths, ids and pixels drawn at random."""
    rng = np.random.default_rng(seed)

    def ids(length: int) -> np.ndarray:
        return rng.integers(3, shape.vocabulary - 1, length)

    pairs = []
    for _ in range(count):
        query = ids(shape.prompt)
        shown = np.concatenate([np.full(shape.features, shape.vocabulary - 1), query])
        images = tuple(
            torch.from_numpy(rng.standard_normal((3, shape.image, shape.image)).astype(np.float32)) for _ in (0, 1)
        )
        text = EncodedText((shown, shown, query), (ids(shape.response), ids(shape.response)), 0)
        # A corrupted image costs what any image costs.
        pairs.append(EncodedPair(text, (*images, None, *images), 1.0))
    return pairs
