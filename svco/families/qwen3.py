"""Qwen3-VL: patches at any size as in Qwen2.5-VL, and DeepStack: features of three depths of the tower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from .llava import language_parts
from .protocol import Grids, HfModel, Parts
from .qwen import QwenArchitecture, QwenText

if TYPE_CHECKING:
    import torch


def taken_blocks(config: Any) -> list[int]:
    """The tower's blocks, in order, whose states become features that are added in the language model."""
    return sorted(set(config.deepstack_visual_indexes))


class Qwen3Tower(nn.Module):
    """``Qwen3VLVisionModel`` up to its mergers, which are the projector. Positions are computed on the host, from grids that are
    known there."""

    def __init__(self, visual: HfModel, taken: list[int]):
        super().__init__()
        self.patch_embed = visual.patch_embed
        self.pos_embed = visual.pos_embed
        self.rotary_pos_emb = visual.rotary_pos_emb
        self.blocks = visual.blocks
        self._config, self._taken = visual.config, taken

    def forward(self, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """(1 + taken blocks, patches, hidden) of ``patches`` (patches, values): the last state, then those of the taken blocks.
        ``grid`` (images, 3) on the host."""
        import torch
        from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids

        config = self._config
        hidden = self.patch_embed(patches)
        hidden = hidden + self._places(grid, hidden.device).to(hidden.dtype)
        positions = get_vision_position_ids(grid, config.spatial_merge_size).to(hidden.device, non_blocking=True)
        angles = self.rotary_pos_emb(hidden, positions)
        bounds = get_vision_cu_seqlens(grid)
        longest = int((bounds[1:] - bounds[:-1]).max())
        flash = config._attn_implementation == "flash_attention_2"
        bounds = bounds.to(hidden.device, non_blocking=True) if flash else bounds
        states = []
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, cu_seqlens=bounds, max_seqlen=longest, position_embeddings=angles)
            states += [hidden] if number in self._taken else []
        return torch.stack([hidden, *states])

    def _places(self, grid: torch.Tensor, device: torch.device) -> torch.Tensor:
        """(patches, hidden): the learned square of positions, interpolated to each image's grid."""
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        indices, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=int(self._config.num_position_embeddings**0.5),
            mode="bilinear",
            align_corners=True,
            spatial_merge_size=self._config.spatial_merge_size,
        )
        return (
            self.pos_embed(indices.to(device, non_blocking=True)) * weights.to(device, non_blocking=True).unsqueeze(-1)
        ).sum(1)


class DeepProjector(nn.Module):
    """All of a model's mergers in one module."""

    def __init__(self, visual: HfModel):
        super().__init__()
        self.merger = visual.merger
        self.deepstack_merger_list = visual.deepstack_merger_list
        # transformers' mergers go by the order of the config's list, the features by that of the blocks.
        indexes = list(visual.config.deepstack_visual_indexes)
        self._order = [indexes.index(block) for block in taken_blocks(visual.config)]

    def forward(self, encoded: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Each (features of all images, hidden): what is placed, and what is added, of the tower's ``encoded``."""
        last, *taken = encoded
        added = (self.deepstack_merger_list[n](state) for n, state in zip(self._order, taken, strict=True))
        return (self.merger(last), *added)


class Qwen3VLArchitecture(QwenArchitecture):
    """Where the parts of a ``Qwen3VLForConditionalGeneration`` are. A grid is (frames, patches down, patches across)."""

    def parts(self, model: HfModel) -> Parts:
        visual = model.model.visual
        return Parts(
            config=model.config,
            tower=None if visual.blocks is None else Qwen3Tower(visual, taken_blocks(visual.config)),
            projector=DeepProjector(visual),
            projection=(visual.merger, *visual.deepstack_merger_list),
            **language_parts(model),
        )

    @property
    def pixel_limits(self) -> tuple[int, int]:
        return 256 * 256, 4096 * 4096

    def drop_tower(self, model: HfModel) -> None:
        super().drop_tower(model)
        model.model.visual.pos_embed = None

    def project(self, parts: Parts, encoded: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        return parts.projector(encoded)


class Qwen3VLFamily(QwenText, Qwen3VLArchitecture):
    """Adapter of ``Qwen3VLForConditionalGeneration``."""

    name = "qwen3_vl"
