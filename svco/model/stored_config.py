"""A base's config as its weights are stored.

Whether head and embedding are one weight is what the files say: a config that leaves it to its class (InternVL3's) may say "one"
of a model that stores two. transformers compares the two when it loads and keeps both; a model without weights takes the config's
word, and so does one in parts, as under ZeRO-3, where the parts that are compared are empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def stored_config(base: str) -> Any:
    """transformers' config of ``base``, a folder or a hub id; ties no head that is stored. OSError or ValueError where there is
    none.

    Weights on the hub are fetched where the config ties the head: nothing else says whether it is stored.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    if getattr(config, "tie_word_embeddings", False) and _stores_head(_folder(base)):
        config.tie_word_embeddings = False
    return config


def _folder(base: str) -> Path:
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(base, allow_patterns=["*.safetensors", "*.json"]))


def _stores_head(folder: Path) -> bool:
    """Whether a file of the weights in ``folder`` names a head; its header is all that is read. Pickled weights name a tied one
    too: they are not asked."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                if any(name.endswith("lm_head.weight") for name in opened.keys()):  # noqa: SIM118 (no dict)
                    return True
        except (OSError, SafetensorError):
            continue  # whoever loads it says what is wrong with it
    return False
