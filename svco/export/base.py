"""The base model of an export: its folder, its architecture without weights, and its files beside the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..basics.errors import UserError, first_line
from ..basics.files import write_whole
from ..basics.strict_json import json_text
from ..model.provenance import IDENTITY
from ..model.stored_config import stored_config
from ..model.weight_names import WeightNames

_BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "additional_chat_templates/*")
"""Config, generation config, processor, tokenizer, chat templates."""
_LEFT_OUT = ("*.index.json", "adapter_config.json", IDENTITY, "README*", "trainer_state.json")
"""What those patterns match and an export has its own of, or needs none."""


def find_base(base: str) -> Path:
    """The folder of ``base``: itself, or its copy in the hub's cache, fetched if need be."""
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(base, allow_patterns=["*.safetensors", *_BESIDE]))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"The base model {base!r} is neither a folder here nor a model the hub gives us ({reason}). Give its folder "
            "with --base."
        ) from None


def weight_names(folder: Path) -> WeightNames:
    """The names of the weights of the model in ``folder``, from its config; no weight is read."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it tells the generation config of every model that is made without weights
    try:
        with torch.device("meta"):
            return WeightNames(AutoModelForImageTextToText.from_config(stored_config(str(folder))))
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise UserError(f"The model {folder} has no architecture that transformers knows here: {reason}") from None
    finally:
        logging.set_verbosity(before)


def copy_beside(base: Path, target: Path, dtype: str | None) -> None:
    """Copies what ``base`` has beside its weights, and puts ``dtype`` into the config; the base's path goes from it."""
    skipped = {file for pattern in _LEFT_OUT for file in base.glob(pattern)}
    for file in sorted({file for pattern in _BESIDE for file in base.glob(pattern)} - skipped):
        if file.is_file():
            _refuse_led_out(file, base)
            copy = target / file.relative_to(base)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
    config = json.loads((base / "config.json").read_text())
    write_whole(target / "config.json", json_text(_clean(config, dtype, top=True), indent=2) + "\n")


def _refuse_led_out(file: Path, base: Path) -> None:
    """UserError for a link that would carry a file from elsewhere into an export; the hub's cache links inside its own folder."""
    hub = next((folder for folder in base.resolve().parents if folder.name.startswith("models--")), base.resolve())
    if not file.resolve().is_relative_to(hub):
        raise UserError(
            f"{file} is a link to {file.resolve()}, outside of the base, and an export would carry that file along. Put the file "
            "itself there, if it belongs to the base."
        )


def _clean(config: dict[str, Any], dtype: str | None, top: bool) -> dict[str, Any]:
    """``config`` and its sub-configs without paths, and with ``dtype`` under the key that it already uses."""
    kept = {key: value for key, value in config.items() if key != "_name_or_path"}
    keys = [key for key in ("dtype", "torch_dtype") if kept.get(key)] or (["dtype"] if top else [])
    kept |= {key: dtype for key in keys if dtype}
    return {key: _clean(value, dtype, False) if isinstance(value, dict) else value for key, value in kept.items()}
