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
from tokenizers.processors import ByteLevel
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...families.published import published_config
from .shapes import TINY, Shape, llava_config, random_model

INDEX = "model.safetensors.index.json"
SMOLVLM = {
    "smolvlm2-256m": "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
    "smolvlm2-500m": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
}
"""What a shape is called -> the release that has it."""


def make_random_base(shape: Shape, output: Path, seed: int, shard: str, progress: Progress) -> int:
    """Writes config, processor and bfloat16 weights of a LLaVA of ``shape`` into ``output``; the number of parameters.

    Tokenizer and chat template are the embedded base model's, so most of the vocabulary is never used and the text has other
    lengths than under the real tokenizer; the image processor is CLIP's at the shape's resolution. A weight depends on
    ``seed`` and its name alone. ``shard`` is the size of a file, such as ``2GB``.
    """
    _begin(output)
    processor = _processor(shape)
    processor.save_pretrained(output)
    model = random_model(shape, "sdpa", torch.bfloat16, torch.device("meta"))
    config = llava_config(shape)
    config.image_token_index = config.image_token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    config.image_seq_length = shape.features
    return _write(model, config, output, seed, shard, progress)


def make_random_smolvlm(release: str, layers: int, output: Path, seed: int, shard: str, progress: Progress) -> int:
    """The same of ``release``, a SmolVLM of the published ones, with ``layers`` decoder layers (0: all).

    An image is one tile: the cheapest that there is. Around the embedded base model's vocabulary are SmolVLM's own tokens.
    """
    _begin(output)
    config: Any = published_config(release)
    config.text_config.num_hidden_layers = layers or config.text_config.num_hidden_layers
    tokenizer = _smolvlm_tokenizer()
    tokenizer.save_pretrained(output)
    config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    side = {"longest_edge": config.vision_config.image_size}
    SmolVLMImageProcessorPil(size=side, max_image_size=side).save_pretrained(output)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    return _write(model, config, output, seed, shard, progress)


def _begin(output: Path) -> None:
    if (output / "config.json").exists():
        raise UserError(f"{output} holds a model already; give another folder or remove it.")
    output.mkdir(parents=True, exist_ok=True)


def _smolvlm_tokenizer() -> Any:
    around = {"fake_image_token": "<fake_token_around_image>", "end_of_utterance_token": "<end_of_utterance>"}
    tokenizer: Any = AutoTokenizer.from_pretrained(TINY, extra_special_tokens=around)
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer.add_tokens(["<|im_start|>", "<global-img>", *tiles], special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<end_of_utterance>"
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)  # the template writes what stands first
    tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE
    tokenizer.model_max_length = 8192
    return tokenizer


def _write(model: Any, config: Any, output: Path, seed: int, shard: str, progress: Progress) -> int:
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
