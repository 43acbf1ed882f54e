"""A base's config as its weights are stored.

Whether head and embedding are one weight is what the files say: a config that leaves it to its class (InternVL3's) may say "one"
of a model that stores two. transformers compares the two when it loads and keeps both; a model without weights takes the config's
word, and so does one in parts, as under ZeRO-3, where the parts that are compared are empty.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def stored_config(base: str) -> Any:
    """transformers' config of ``base``, a folder or a hub id; ties no head that is stored. OSError or ValueError where there is
    none.

    Where the config ties the head, a hub's index of weights is fetched, or the one file that holds them all: nothing else says
    whether a head is stored. Of pickled weights nothing is asked, they name a tied one too.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    if getattr(config, "tie_word_embeddings", False) and any(n.endswith("lm_head.weight") for n in _names(base)):
        config.tie_word_embeddings = False
    return config


def _names(base: str) -> list[str]:
    """Of the weights in ``base``'s safetensors; none where there are none, or they cannot be read: who loads them says why."""
    from safetensors import SafetensorError, safe_open

    try:
        if (index := _file(base, "model.safetensors.index.json")) is not None:
            return list(json.loads(index.read_text())["weight_map"])
        if (single := _file(base, "model.safetensors")) is not None:
            with safe_open(single, "pt") as opened:
                return list(opened.keys())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        pass
    return []


def _file(base: str, name: str) -> Path | None:
    """The file ``name`` of ``base``, fetched from the hub if need be; None where it has none."""
    from transformers.utils import cached_file

    if Path(base).is_dir():
        return file if (file := Path(base) / name).is_file() else None
    try:
        found: Any = cached_file(base, name)
    except OSError:
        return None
    return Path(found)
