"""Names of modules, and of weights, two ways: transformers 5's own, and those of transformers 4 and of the files on the hub.

transformers reads files in either and keeps the table that says how; it is the only table here too, run forwards and
backwards, so a family that transformers can load needs no entry of ours.

    4: language_model.model.layers.0...   vision_tower.vision_model.encoder...   language_model.lm_head.weight
    5: model.language_model.layers.0...   model.vision_tower.encoder...          lm_head.weight
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..basics.errors import UserError

PEFT_PREFIX = "base_model.model."
"""What peft puts before the model's own names in an adapter file."""


def module_name(root: Any, module: Any) -> str:
    """The dotted name of ``module`` in ``root``."""
    return next(name for name, candidate in root.named_modules() if candidate is module)


class WeightNames:
    """The names of one model's weights. ``model`` may be on the meta device, or have adapters inside."""

    def __init__(self, model: Any):
        from transformers.conversion_mapping import get_model_conversion_mapping

        self._state = {name: True for name in model.state_dict()}
        self._prefix = model.base_model_prefix
        self._forward = _sorted(get_model_conversion_mapping(model))
        backward = get_model_conversion_mapping(model, add_legacy=False)[::-1]
        self._backward = _sorted([transform.reverse_transform() for transform in backward])
        self.aliases = dict(model.all_tied_weights_keys)
        """Weight that is no weight of its own -> the one it is tied to."""
        self.weights = [name for name in self._state if name not in self.aliases]
        """Every weight, by its name in transformers 5."""
        self.buffers = {name for name, _ in model.named_buffers()} - self._state.keys()
        """Buffers that older files hold and transformers makes anew."""

    def to5(self, name: str) -> str:
        """``name``, whichever convention it is in, in transformers 5's. A weight of an adapter works too."""
        from transformers.core_model_loading import rename_source_key

        five, converter = rename_source_key(name, *self._forward, self._prefix, self._state)
        if converter is not None:
            raise UserError(
                f"{name} is not only renamed but recomputed on its way into transformers 5 ({converter}); svco cannot "
                "export such a model."
            )
        return five

    def to4(self, name: str) -> str:
        """``name``, in transformers 5's convention, in transformers 4's; UserError if there is no way back."""
        from transformers.core_model_loading import rename_source_key

        four, _ = rename_source_key(name, *self._backward, reverse=True)
        if (back := self.to5(four)) != name:
            raise UserError(f"{name} has no name in transformers 4: {four} would be read as {back}.")
        return four

    def convert(self, names: Iterable[str], convention: str) -> dict[str, str]:
        """{name: its name in ``convention``, ``4`` or ``5``}; UserError if two would become one."""
        names = list(names)
        into = {name: self.to5(name) for name in names}
        if convention == "4":
            into = {name: self.to4(five) for name, five in into.items()}
        if len(set(into.values())) != len(names):
            twice = sorted(new for new in into.values() if list(into.values()).count(new) > 1)
            raise UserError(f"Two weights would both be named {twice[0]}; the file mixes naming conventions.")
        return into


def _sorted(transforms: list[Any]) -> tuple[list[Any], list[Any]]:
    """(renamings, converters), as transformers applies them."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    return renamings, [t for t in transforms if isinstance(t, WeightConverter)]
