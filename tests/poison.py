"""A base model that is not a number for some pairs only."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import torch
from places import BASE


def poisoned_base(folder: Path, shards: str | Path, least: int, most: int) -> tuple[Path, set[str]]:
    """(base whose embedding of one word is NaN, head apart; keys of those pairs of ``shards`` that have the word, ``least`` to
    ``most`` of them)."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    from svco.data.shards import ShardSet

    shutil.copytree(BASE, folder)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    pairs = ShardSet.open(str(shards))
    texts = [pairs.read_text(i) for i in range(len(pairs))]
    words = {t.key: set(tokenizer(" ".join([t.query, *t.responses]))["input_ids"]) for t in texts}
    counts = Counter(word for found in words.values() for word in found)
    word = min((w for w, count in counts.items() if least <= count <= most), key=lambda w: (counts[w], w))
    model = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float32)
    weight = model.get_input_embeddings().weight.detach().clone()
    for config in (model.config, model.config.text_config):
        config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(weight.clone())
    weight[word] = float("nan")
    model.get_input_embeddings().weight = torch.nn.Parameter(weight)
    model._tied_weights_keys = None
    model.save_pretrained(folder)
    return folder, {key for key, found in words.items() if word in found}
