"""Qwen3.5, dense: Qwen3-VL's tower without added features, and a language model whose layers carry a state, three in four."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from .llava import language_parts
from .protocol import Grids, HfModel, Parts
from .qwen import QwenArchitecture, QwenFamily

if TYPE_CHECKING:
    import torch


class Qwen35Tower(nn.Module):
    """``Qwen3_5VisionModel`` up to its merger, which is the projector: never trained with the tower.

    Positions are computed on the host, from grids that are known there.
    """

    def __init__(self, visual: HfModel):
        super().__init__()
        self.patch_embed = visual.patch_embed
        self.pos_embed = visual.pos_embed
        self.rotary_pos_emb = visual.rotary_pos_emb
        self.blocks = visual.blocks
        self._config = visual.config
        self._interpolation = {
            "num_grid_per_side": visual.num_grid_per_side,
            "mode": visual.interpolation_mode,
            "align_corners": visual.interpolation_align_corners,
        }

    def forward(self, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """(patches, hidden) of ``patches`` (patches, values). ``grid`` (images, 3) on the host."""
        from transformers.vision_utils import (
            get_vision_cu_seqlens,
            get_vision_interpolation_indices_and_weights,
            get_vision_position_ids,
        )

        config, device = self._config, patches.device
        merge = config.spatial_merge_size
        nearest, weights = get_vision_interpolation_indices_and_weights(
            grid, spatial_merge_size=merge, **self._interpolation
        )
        hidden = self.patch_embed(patches)
        places = (self.pos_embed(nearest.to(device)) * weights.to(device).unsqueeze(-1)).sum(1)
        hidden = hidden + places.to(hidden.dtype)
        angles = self.rotary_pos_emb(hidden, get_vision_position_ids(grid, merge).to(device))
        bounds = get_vision_cu_seqlens(grid)
        longest = int((bounds[1:] - bounds[:-1]).max())
        flash = config._attn_implementation == "flash_attention_2"
        for block in self.blocks:
            hidden = block(
                hidden,
                cu_seqlens=bounds.to(device) if flash else bounds,
                max_seqlen=longest,
                position_embeddings=angles,
            )
        return hidden


class Qwen35Architecture(QwenArchitecture):
    """Where the parts of a ``Qwen3_5ForConditionalGeneration`` are. A grid is (frames, patches down, patches across)."""

    def parts(self, model: HfModel) -> Parts:
        from .delta_net import fork

        visual = model.model.visual
        language = language_parts(model)
        fork(language["layers"])
        return Parts(
            config=model.config,
            tower=None if visual.blocks is None else Qwen35Tower(visual),
            projector=visual.merger,
            projection=(visual.merger,),
            **language,
        )

    @property
    def pixel_limits(self) -> tuple[int, int]:
        """Fewest and most pixels of an image, as released."""
        return 256 * 256, 4096 * 4096

    def drop_tower(self, model: HfModel) -> None:
        visual = model.model.visual
        visual.patch_embed = visual.pos_embed = visual.blocks = None

    def project(self, parts: Parts, encoded: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        return (parts.projector(encoded),)


class Qwen35Family(QwenFamily, Qwen35Architecture):
    """Adapter of ``Qwen3_5ForConditionalGeneration``."""

    name = "qwen3_5"
