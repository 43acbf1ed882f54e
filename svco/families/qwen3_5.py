"""Qwen3.5, dense: Qwen3-VL's tower without added features, and a language model whose layers carry a state, three in four."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .llava import language_parts
from .protocol import Grids, HfModel, Parts
from .qwen import QwenText
from .qwen3 import Qwen3Tower, Qwen3VLArchitecture

if TYPE_CHECKING:
    import torch


class Qwen35Architecture(Qwen3VLArchitecture):
    """Where the parts of a ``Qwen3_5ForConditionalGeneration`` are. A grid is (frames, patches down, patches across)."""

    def parts(self, model: HfModel) -> Parts:
        """Makes the layers with a state fork, too: whoever runs parts over a packed row needs them so."""
        from .delta_net import fork

        visual = model.model.visual
        language = language_parts(model)
        fork(language["layers"])
        return Parts(
            config=model.config,
            tower=None if visual.blocks is None else Qwen3Tower(visual, []),
            projector=visual.merger,
            projection=(visual.merger,),
            **language,
        )

    def project(self, parts: Parts, encoded: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        return (parts.projector(encoded[0]),)


class Qwen35Family(QwenText, Qwen35Architecture):
    """Adapter of ``Qwen3_5ForConditionalGeneration``."""

    name = "qwen3_5"
