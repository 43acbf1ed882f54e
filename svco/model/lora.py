"""LoRA adapters inside a model: added, attached, switched off. With adapted and adapter_files the only door to peft."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError, first_line
from ..families import HfModel
from ..recipe.config import ALL_LINEAR, LoraConfig
from .adapter_files import (
    ADAPTER,
    example,
    import_peft,
    load_values,
    read_adapter,
    read_form,
    refuse_changed_base,
    stored_tensors,
)
from .weight_names import WeightNames

if TYPE_CHECKING:
    from torch import nn


def add_adapters(model: nn.Module, config: LoraConfig, language_model: str, trained_whole: tuple[str, ...]) -> Any:
    """Puts LoRA on the linear layers of submodule ``language_model`` in place and freezes everything else.

    ``trained_whole`` names modules that are trained in full beside the adapters (a copy is; the original is what the
    reference reads). Returns the ``PeftModel`` around ``model``. Adapters take the base's dtype: mixed ones fail under
    ZeRO-3, and the optimizer keeps float32 masters anyway.
    """
    import_peft()
    from peft import LoraConfig as PeftLoraConfig

    if config.init_from:
        _check_strength(config)
    names = target_names(model.get_submodule(language_model), config.targets)
    # A pattern, not bare names: vision towers have a q_proj too, and must not be touched.
    targets = rf".*\b{re.escape(language_model.rpartition('.')[2])}\..*\b({'|'.join(map(re.escape, names))})"
    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft takes any number, and says int
        lora_dropout=config.dropout,
        bias="none",
        target_modules=targets,
        modules_to_save=list(trained_whole) or None,
    )
    wrapped = _wrap(model, peft_config)
    if config.init_from:
        load_values(model, read_adapter(config.init_from, wrapped))
    return wrapped


def target_names(language_model: HfModel, targets: tuple[str, ...]) -> list[str]:
    """The last names of the linear layers that ``lora.targets`` means; UserError for one that ``language_model`` has not."""
    from torch import nn

    known = {name.rpartition(".")[2]: module for name, module in language_model.named_modules()}
    linear = sorted(name for name, module in known.items() if isinstance(module, nn.Linear))
    if targets == (ALL_LINEAR,):
        return linear
    if missing := sorted(set(targets) - known.keys()):
        raise UserError(
            f"lora.targets names {', '.join(missing)}, which the language model does not have; its linear layers are: "
            f"{', '.join(linear)} (all of them: {ALL_LINEAR})."
        )
    return list(targets)


def _check_strength(config: LoraConfig) -> None:
    """UserError where the values of ``lora.init_from`` would not have the strength that they were trained with."""
    form = read_form(Path(config.init_from))
    theirs, ours = form.scale(config.rank), config.alpha / config.rank
    if abs(theirs - ours) > 1e-6 * ours:
        raise UserError(
            f"lora.init_from is {config.init_from}, whose output is multiplied by {theirs:g} (lora_alpha {form.alpha:g}"
            f"{', rslora' if form.rslora else ''}); with lora.alpha {config.alpha:g} and lora.rank {config.rank} it would be "
            f"{ours:g}, another model. Set lora.alpha={theirs * config.rank:g}."
        )


def attach_adapter(model: nn.Module, folder: str | Path) -> Any:
    """Puts the PEFT LoRA adapter in ``folder`` on ``model`` in place, frozen; peft's wrapper around it.

    What is adapted is read from the tensors and not from the config's patterns, so an adapter of transformers 4's time finds its
    modules. UserError unless every tensor of it, and nothing else, has its place. Its values take the base's dtype.
    """
    import_peft()
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"No adapter can be loaded from {folder}: {first_line(error)}") from None
    if getattr(config.peft_type, "value", config.peft_type) != "LORA":
        raise UserError(
            f"The adapter {folder} is of type {config.peft_type}; svco reads LoRA. Merge it into its base first."
        )
    refuse_changed_base(folder, config.init_lora_weights)
    names = WeightNames(model).convert(stored_tensors(folder), "5").values()
    modules = {name for name, _ in model.named_modules()}
    adapted = {name.partition(".lora_")[0] for name in names if ".lora_" in name}
    if not (targets := sorted(adapted & modules)):
        raise UserError(
            f"The adapter {folder} fits nothing in this model{example(sorted(adapted))}. It was made for the base "
            f"{config.base_model_name_or_path!r}: is that the one?"
        )
    config.base_model_name_or_path = None  # peft would warn that the base has another name here
    config.target_modules, config.exclude_modules, config.layers_to_transform = set(targets), None, None
    config.inference_mode = False  # peft would freeze what read_adapter looks for
    wrapped = _wrap(model, config)
    load_values(model, read_adapter(folder, wrapped))
    wrapped.requires_grad_(False)
    return wrapped


def _wrap(model: HfModel, config: Any) -> Any:
    """peft's wrapper around ``model``, with adapters by the ``PeftConfig`` in ``model``'s dtype."""
    from peft import get_peft_model
    from torch import nn

    config._register_custom_module({nn.Linear: _adapt})
    with warnings.catch_warnings():
        # peft asks transformers by a name that has since been changed, which nobody who runs svco can do anything about.
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning, r"transformers\.modeling_utils"
        )
        wrapped = get_peft_model(model, config, adapter_name=ADAPTER, autocast_adapter_dtype=False)
    # Beside weights of 4 bits, which have no dtype to take, peft leaves adapters in float32.
    for parameter in wrapped.parameters():
        if parameter.requires_grad and parameter.dtype != model.dtype:
            parameter.data = parameter.data.to(model.dtype)
    return wrapped


def _adapt(target: HfModel, adapter_name: str, **how: Any) -> Any:
    """What peft puts around the linear layer ``target``; None: what it puts of its own accord, as around one of 4 bits."""
    from torch import nn

    from .adapted import AdaptedLinear

    return AdaptedLinear(target, adapter_name, **how) if type(target).forward is nn.Linear.forward else None


def join_adapters(model: HfModel, joined: bool) -> None:
    """Has the adapted layers of ``model`` compute as one product, as they do by themselves, or as peft does."""
    import_peft()
    from .adapted import AdaptedLinear

    for module in model.modules():
        if isinstance(module, AdaptedLinear):
            module.joined = joined


def adapter_switch(module: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """``with adapter_switch(module)():`` makes ``module`` what it was before ``add_adapters``; ``requires_grad`` is left alone.

    peft's public ``disable_adapter()`` walks the model and freezes and unfreezes every adapter on the way, and ZeRO's
    gradient hooks hang on that; the flag its layers look at in ``forward`` is all that has to change (tested against
    ``disable_adapter()``). The layers are found once, here.
    """
    switches = adapter_modules(module)

    @contextmanager
    def off() -> Iterator[None]:
        for switch in switches:
            switch._disable_adapters = True
        try:
            yield
        finally:
            for switch in switches:
                switch._disable_adapters = False

    return off


def adapter_modules(model: nn.Module) -> list[HfModel]:
    """The modules in which peft chooses between base and adapted computation."""
    import_peft()
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    return [m for m in model.modules() if isinstance(m, (BaseTunerLayer, ModulesToSaveWrapper))]
