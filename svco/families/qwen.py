"""Qwen2.5-VL, and what Qwen3-VL shares: images of any size, as patches; three position axes a token (M-RoPE)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from .llava import as_weights, language_parts
from .protocol import Grids, HfModel, Parts, Pictures, Size
from .text import TextSide

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class QwenTower(nn.Module):
    """``Qwen2_5_VisionTransformerPretrainedModel`` up to its merger, which is the projector: never trained with the tower.

    Windows and positions are computed on the host, from grids that are known there.
    """

    def __init__(self, visual: HfModel):
        super().__init__()
        self.patch_embed = visual.patch_embed
        self.rotary_pos_emb = visual.rotary_pos_emb
        self.blocks = visual.blocks
        self._config = visual.config

    def forward(self, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """(patches, hidden), in the order of the windows, of ``patches`` (patches, values). ``grid`` (images, 3) on the host."""
        from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids

        config = self._config
        order, window_bounds = window_order(tuple(map(tuple, grid.tolist())), config)
        order = order.to(patches.device, non_blocking=True)
        unit = config.spatial_merge_size**2

        def ordered(rows: torch.Tensor) -> torch.Tensor:
            return rows.view(len(order), unit, -1)[order].view(len(rows), -1)

        hidden = ordered(self.patch_embed(patches))
        positions = get_vision_position_ids(grid, config.spatial_merge_size).to(patches.device, non_blocking=True)
        angles = tuple(ordered(angle) for angle in self.rotary_pos_emb(hidden, positions))
        image_bounds = get_vision_cu_seqlens(grid)
        flash = config._attn_implementation == "flash_attention_2"
        for number, block in enumerate(self.blocks):
            bounds = image_bounds if number in config.fullatt_block_indexes else window_bounds
            longest = int((bounds[1:] - bounds[:-1]).max())
            hidden = block(
                hidden,
                cu_seqlens=bounds.to(patches.device, non_blocking=True) if flash else bounds,
                max_seqlen=longest,
                position_embeddings=angles,
            )
        return hidden


def window_order(grids: Grids, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(order of the groups of merged patches, (windows + 1,) cumulative patches), on the host."""
    return _window_order(grids, config.spatial_merge_size, config.window_size, config.patch_size)


@lru_cache(maxsize=4)
def _window_order(grids: Grids, merge: int, window: int, patch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Once a micro-batch: the tower asks, and the projectors of policy and reference do."""
    import torch
    from transformers.vision_utils import get_vision_window_index

    return get_vision_window_index(torch.tensor(grids), spatial_merge_size=merge, window_size=window, patch_size=patch)


class QwenArchitecture:
    """Where the parts of a ``Qwen2_5_VLForConditionalGeneration`` are. A grid is (frames, patches down, patches across)."""

    two_way_images = False

    def parts(self, model: HfModel) -> Parts:
        visual = model.model.visual
        return Parts(
            config=model.config,
            tower=None if visual.blocks is None else QwenTower(visual),
            projector=visual.merger,
            projection=(visual.merger,),
            **language_parts(model),
        )

    @property
    def pixel_limits(self) -> tuple[int, int]:
        """Fewest and most pixels of an image, as released; bigger and smaller ones are resized."""
        return 56 * 56, 28 * 28 * 16384

    def features(self, config: Any, size: Size) -> int:
        """A feature a square of merged patches."""
        rows, columns = self.features_down_and_across(config, size)
        return rows * columns

    def features_down_and_across(self, config: Any, size: Size) -> tuple[int, int]:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        width, height = size
        factor = config.vision_config.patch_size * config.vision_config.spatial_merge_size
        fewest, most = self.pixel_limits
        down, across = smart_resize(height, width, factor, min_pixels=fewest, max_pixels=most)
        return down // factor, across // factor

    def drop_tower(self, model: HfModel) -> None:
        model.model.visual.patch_embed = model.model.visual.blocks = None

    def vision_attention(self, backend: str) -> str:
        """Windows of many lengths: where the language model has flash-attn, one call of it instead of one a window."""
        return "flash_attention_2" if backend == "flash" else "sdpa"

    def encode_images(self, parts: Parts, pixels: torch.Tensor, grids: Grids) -> torch.Tensor:
        import torch

        return parts.tower(as_weights(pixels, parts.tower), torch.tensor(grids))

    def project(self, parts: Parts, encoded: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        import torch

        order, _ = window_order(grids, parts.config.vision_config)
        return (parts.projector(encoded)[torch.argsort(order).to(encoded.device, non_blocking=True)],)

    def shown(self, pictures: Pictures, images: torch.Tensor) -> dict[str, torch.Tensor]:
        import torch

        grids = torch.tensor(pictures.grids)
        return {"pixel_values": pictures.pixels, "image_grid_thw": grids, "mm_token_type_ids": images.int()}


class QwenText(TextSide):
    """Pixels and positions of a family whose images are grids of patches; its architecture says what features those become."""

    features_down_and_across: Callable[[Any, Size], tuple[int, int]]
    """(config, size of an image) -> rows and columns of its features: the architecture's."""

    @property
    def pixel_limits(self) -> tuple[int, int]:
        limits = self.image_processor.size
        return limits["shortest_edge"], limits["longest_edge"]

    @property
    def filler_size(self) -> Size:
        """The smallest square that is not made larger."""
        vision = self.config.vision_config
        factor = vision.patch_size * vision.spatial_merge_size
        side = factor * math.ceil(math.sqrt(self.pixel_limits[0]) / factor)
        return (side, side)

    def positions(self, prefix: np.ndarray, size: Size | None) -> np.ndarray:
        """(3, tokens): text counts on all axes alike; an image's features have the position it starts at on the first and
        their row and column from there on the others, and what follows goes on behind the longer side
        (``Qwen2_5_VLModel.get_rope_index``)."""
        if size is None:
            return np.broadcast_to(np.arange(len(prefix), dtype=np.int64), (3, len(prefix)))
        shown = np.flatnonzero(prefix == self.image_token_id)
        rows, columns = self.features_down_and_across(self.config, size)
        first, last = int(shown[0]), int(shown[-1])
        before = np.arange(first)
        down, across = np.divmod(np.arange(rows * columns), columns)
        picture = first + np.stack([np.zeros_like(down), down, across])
        after = first + max(rows, columns) + np.arange(len(prefix) - last - 1)
        return np.concatenate(
            [np.broadcast_to(before, (3, len(before))), picture, np.broadcast_to(after, (3, len(after)))], axis=1
        )

    def pixels(self, images: list[Image]) -> Pictures:
        """Pixels (patches of all images, 3 × frames × side × side)."""
        import torch

        if not images:
            return Pictures(torch.empty(0), ())
        made = self.image_processor(images, return_tensors="pt")
        return Pictures(made["pixel_values"], tuple(map(tuple, made["image_grid_thw"].tolist())))


class QwenFamily(QwenText, QwenArchitecture):
    """Adapter of ``Qwen2_5_VLForConditionalGeneration``."""

    name = "qwen2_5_vl"
