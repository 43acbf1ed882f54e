"""An adapter as a folder of files in PEFT's format: written, read, and checked against a model."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError, first_line
from ..basics.files import write_whole, writing
from ..basics.strict_json import json_text, parse_json
from .weight_names import PEFT_PREFIX, WeightNames

if TYPE_CHECKING:
    import torch
    from torch import nn

ADAPTER = "default"
"""What the one adapter inside a model is called there: peft's own name for it."""
ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
NOT_TENSORS = (
    "holds more than tensors, which could do harm and was not read. Take it as safetensors, from a source you trust."
)
"""What is said of a pickled file that asks for more."""
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
"""Endings of the names of A (r, in) and B (out, r)."""


_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of ``init_lora_weights`` under which peft subtracts what the adapter begins with from the base, or quantises it."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "peft_type": lambda value: isinstance(value, str),
    "lora_alpha": _is_number,
    "lora_dropout": lambda value: value is None or (_is_number(value) and 0 <= value < 1),
    "use_rslora": lambda value: isinstance(value, (bool, type(None))),
    "modules_to_save": lambda value: (
        value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))
    ),
    "base_model_name_or_path": lambda value: isinstance(value, (str, type(None))),
}
"""What the fields of an adapter's config may be."""


@dataclass(frozen=True)
class AdapterForm:
    """What an adapter is beside its tensors."""

    alpha: float
    """Its output is multiplied by alpha / rank."""
    dropout: float
    """Dropout on its input, while training."""
    whole: tuple[str, ...]
    """Modules that were trained whole beside it."""
    rslora: bool = False
    """Multiplied by alpha / sqrt(rank) instead."""

    @classmethod
    def of(cls, names: Iterable[str], alpha: float, dropout: float) -> AdapterForm:
        """The form of an adapter of svco's own, from its parameters' names in the model."""
        mark = f".modules_to_save.{ADAPTER}."
        return cls(alpha, dropout, tuple(sorted({name.partition(mark)[0] for name in names if mark in name})))

    def scale(self, rank: int) -> float:
        return self.alpha / (rank**0.5 if self.rslora else rank)


@cache
def import_peft() -> None:
    """Imports peft; called before anything is taken from it. Where bitsandbytes is installed peft imports it, wanted or not, and
    that compiles functions and tells of a package of kernels for processors, which nobody here needs."""
    from .compiling import without_a_compiler

    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    with without_a_compiler():
        import peft  # noqa: F401


def refuse_changed_base(folder: Path | str, init: object) -> None:
    """UserError for an adapter whose ``init_lora_weights`` says that it took a part of the base into itself: on the base as it
    was released, that part would count twice."""
    if (name := str(init).lower()).startswith(_CHANGE_THE_BASE):
        raise UserError(
            f"The adapter {folder} goes with a base that {name} changed. Merge it where it was trained and give the result as "
            "base, or convert it there: peft's save_pretrained with path_initial_model_for_weight_conversion."
        )


def read_form(folder: Path) -> AdapterForm:
    """The form of the PEFT adapter in ``folder``; UserError unless it is plain LoRA of one rank for the base as it was
    released."""
    found = read_config(folder)
    alpha, dropout, whole = found["lora_alpha"], found.get("lora_dropout") or 0.0, found.get("modules_to_save") or ()
    kind = found.get("peft_type")
    plain = {"use_dora": False, "fan_in_fan_out": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none"}
    odd = [key for key, value in plain.items() if found.get(key, value) not in (value, None)]
    if kind != "LORA" or odd:
        raise UserError(f"The adapter {folder} is not plain LoRA of one rank ({', '.join(odd) or kind}).")
    refuse_changed_base(folder, found.get("init_lora_weights"))
    if not 0 < alpha < 1e30:
        raise UserError(f"{folder / ADAPTER_CONFIG} has lora_alpha {alpha}; it must be a number above 0.")
    return AdapterForm(float(alpha), float(dropout), tuple(whole), bool(found.get("use_rslora")))


def read_config(folder: Path) -> dict[str, Any]:
    """The config of the PEFT adapter in ``folder``, its fields that svco reads of the types that they must have. UserError for
    one that is none, or that is missing."""
    file = folder / ADAPTER_CONFIG
    try:
        found = parse_json(file.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        found["lora_alpha"]
    except FileNotFoundError:
        raise UserError(f"No adapter can be loaded from {folder}: it has no {ADAPTER_CONFIG}.") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file} is not the config of a LoRA adapter ({error}).") from None
    for name, is_right in _FIELDS.items():
        if name in found and not is_right(found[name]):
            raise UserError(f"{file} has {name} {str(found[name])[:80]!r}, which no adapter has there. Copy it again.")
    return found


def write_adapter(folder: Path, values: Mapping[str, torch.Tensor], form: AdapterForm, base: str) -> None:
    """Writes a PEFT adapter folder. ``values``: by the names peft stores, without its prefix; ``base``: its public name.

    Every adapted module is named in full, so the folder says what it changes and no pattern can match another one.
    """
    import_peft()
    from peft import LoraConfig as PeftLoraConfig

    ranks = {name.removesuffix(LORA_A): value.shape[0] for name, value in values.items() if name.endswith(LORA_A)}
    config = PeftLoraConfig(
        r=next(iter(ranks.values())),
        lora_alpha=form.alpha,  # type: ignore[arg-type]  # peft takes any number, and says int
        lora_dropout=form.dropout,
        use_rslora=form.rslora,
        bias="none",
        target_modules=list(ranks),
        modules_to_save=list(form.whole) or None,
        base_model_name_or_path=base,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        config.save_pretrained(str(folder))
    # peft writes sets in an order that changes from process to process.
    saved = json.loads((folder / ADAPTER_CONFIG).read_text()) | {"target_modules": sorted(ranks)}
    write_whole(folder / ADAPTER_CONFIG, json_text(saved, indent=2, sort_keys=True) + "\n")
    tensors = {PEFT_PREFIX + name: value.contiguous() for name, value in values.items()}
    save_readable(tensors, folder / ADAPTER_FILE)


def save_readable(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """A safetensors file that whoever may read its folder can read; the library's own are their owner's alone."""
    from safetensors.torch import save_file

    with writing(file, sum(tensor.nbytes for tensor in tensors.values())):
        save_file(tensors, file, {"format": "pt"})
    file.chmod(file.parent.stat().st_mode & 0o666)


def read_adapter(folder: str | Path, wrapped: Any) -> dict[str, torch.Tensor]:
    """The values of a PEFT adapter folder by parameter name in the base model, checked against ``wrapped``'s shapes.

    peft itself loads with ``strict=False``, where an adapter whose names match nothing is silently no adapter at all.
    """
    found = stored_tensors(folder)
    model = wrapped.get_base_model()
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    stored_names = {stored_name(name): name for name in wanted}
    renamed = WeightNames(model).convert(found, "5")  # an adapter of transformers 4's time starts a run as well
    found = {renamed[name]: value for name, value in found.items()}
    if found.keys() != stored_names.keys():
        odd, missing = sorted(found.keys() - stored_names.keys()), sorted(stored_names.keys() - found.keys())
        raise UserError(
            f"The adapter {folder} does not fit this model and recipe: {len(odd)} of its tensors are unknown here"
            f"{example(odd)} and {len(missing)} are missing{example(missing)}. Check lora.targets and "
            "model.train_projector."
        )
    values = {stored_names[name]: value for name, value in found.items()}
    for name, value in values.items():
        shape = getattr(wanted[name], "ds_shape", wanted[name].shape)
        if tuple(value.shape) != tuple(shape):
            raise UserError(
                f"The adapter {folder} does not fit: {name} is {tuple(value.shape)} there and {tuple(shape)} here "
                "(lora.rank must be the same)."
            )
    return values


def stored_tensors(folder: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter folder, by their names in the file without peft's prefix."""
    import_peft()
    from peft.utils import load_peft_weights

    try:
        stored = load_peft_weights(str(folder), device="cpu")
    except pickle.UnpicklingError:
        raise UserError(f"No adapter can be loaded from {folder}: its file {NOT_TENSORS}") from None
    except Exception as error:  # safetensors and torch have errors of their own for what is damaged
        raise UserError(f"No adapter can be loaded from {folder}: {first_line(error)}") from None
    if odd := [name for name, value in stored.items() if not value.is_floating_point()]:
        raise UserError(
            f"The adapter {folder} is damaged: {odd[0]} holds {stored[odd[0]].dtype}, which is no weight's."
        )
    return {name.removeprefix(PEFT_PREFIX): value for name, value in stored.items()}


def stored_name(name: str) -> str:
    """peft leaves the adapter's name and its wrapper's out of the names it stores."""
    return name.replace(f".modules_to_save.{ADAPTER}.", ".").replace(f".{ADAPTER}.", ".")


def example(names: list[str]) -> str:
    """The first of ``names`` for a message, if there are any."""
    return f" (e.g. {names[0]})" if names else ""


def load_values(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Copies ``values`` into the parameters of the same names; the names must all exist."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
