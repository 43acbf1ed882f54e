"""A base model of a true shape with random weights, written to disk shard by shard: for trials of memory, disk and time.

No more than one shard is ever in memory, so a 13B or 34B base can be made on a small machine.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers import AutoProcessor

from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from .shapes import TINY, Shape, llava_config, random_model

INDEX = "model.safetensors.index.json"


def make_random_base(shape: Shape, output: Path, seed: int, shard: str, progress: Progress) -> int:
    """Writes config, processor and bfloat16 weights of a LLaVA of ``shape`` into ``output``; the number of parameters.

    Tokenizer and chat template are the embedded base model's, so most of the vocabulary is never used and the text has other
    lengths than under the real tokenizer; the image processor is CLIP's at the shape's resolution. A weight depends on
    ``seed`` and its name alone. ``shard`` is the size of a file, such as ``2GB``.
    """
    if (output / "config.json").exists():
        raise UserError(f"{output} holds a model already; give another folder or remove it.")
    output.mkdir(parents=True, exist_ok=True)
    processor = _processor(shape)
    processor.save_pretrained(output)
    model = random_model(shape, "sdpa", torch.bfloat16, torch.device("meta"))
    config = llava_config(shape)
    config.image_token_index = config.image_token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    config.image_seq_length = shape.features
    config.architectures, config.dtype = [type(model).__name__], "bfloat16"
    config.save_pretrained(output)
    weights = model.state_dict()
    # The split goes by bytes; meta tensors share no storage and count in full.
    split = split_torch_state_dict_into_shards(weights, max_shard_size=shard)
    for file, names in progress(split.filename_to_tensors.items(), "writing shards"):
        save_file({name: _draw(name, weights[name], seed) for name in names}, output / file, {"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_whole(output / INDEX, json_text(index, indent=1))
    return sum(p.numel() for p in model.parameters())


def _processor(shape: Shape) -> Any:
    """The embedded base model's processor for images of ``shape``."""
    processor = AutoProcessor.from_pretrained(TINY)
    images = processor.image_processor
    images.size = type(images.size)(shortest_edge=shape.image)
    images.crop_size = type(images.crop_size)(height=shape.image, width=shape.image)
    processor.patch_size = shape.patch
    processor.num_additional_image_tokens = 1
    processor.vision_feature_select_strategy = "default"
    processor.tokenizer.model_max_length = 4096
    return processor


def _draw(name: str, like: torch.Tensor, seed: int) -> torch.Tensor:
    """Norms are 1, biases 0, everything else normal with deviation 0.02."""
    if name.endswith(".bias"):
        return torch.zeros(like.shape, dtype=like.dtype)
    if like.dim() == 1 and "norm" in name:
        return torch.ones(like.shape, dtype=like.dtype)
    if not like.dtype.is_floating_point:
        return torch.arange(like.numel(), dtype=like.dtype).view(like.shape)  # position ids
    generator = torch.Generator().manual_seed((seed << 32) + zlib.crc32(name.encode()))
    return torch.empty(like.shape, dtype=like.dtype).normal_(0, 0.02, generator=generator)
