"""LLaVA-NeXT (1.6) and LLaVA-OneVision: an image is seen whole and in tiles of the resolution that suits it best.

The features of the tiles are laid out as one picture, what was padding is cut away, and a learned "newline" ends each row.
All that is transformers' own ``pack_image_features``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from .llava import LlavaArchitecture
from .protocol import Grids, HfModel, Parts, Pictures, Size
from .text import TextSide

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class TileProjector(nn.Module):
    """Projector and newline in one module: the newline hangs on the whole model otherwise, where ZeRO-3 would never gather it."""

    def __init__(self, inner: HfModel, options: dict[str, Any]):
        super().__init__()
        self.projection = inner.multi_modal_projector
        self.image_newline = inner.image_newline
        self._pack = inner.pack_image_features
        self._options = options

    def forward(self, encoded: torch.Tensor, grids: Grids) -> torch.Tensor:
        """(features of all images, hidden) of tiles ``encoded`` (tiles, features of a tile, tower's hidden)."""
        import torch

        tiles = self.projection(encoded).split([count for count, _, _ in grids])
        sizes = [(height, width) for _, height, width in grids]
        return torch.cat(self._pack(tiles, sizes, image_newline=self.image_newline, **self._options)[0])


class LlavaNextArchitecture(LlavaArchitecture):
    """A grid is (tiles, height, width): the number of tiles, and the image's size before it was cut."""

    def features(self, config: Any, size: Size) -> int:
        """Of the whole image, and of what is no padding in its tiles, with a newline a row."""
        side = config.vision_config.image_size // config.vision_config.patch_size
        rows, columns = self._laid_out(config, size, side)
        return side * side + rows * (columns + 1)

    def _laid_out(self, config: Any, size: Size, side: int) -> tuple[int, int]:
        """(rows, columns) of the features of all tiles; ``side`` is a tile's."""
        from transformers.image_processing_utils import select_best_resolution

        width, height = size
        down, across = select_best_resolution((height, width), config.image_grid_pinpoints)
        rows, columns = (side * (length // config.vision_config.image_size) for length in (down, across))
        # As transformers' unpad_image rounds.
        if width / height > columns / rows:
            rows -= 2 * ((rows - int(round(height * (columns / width), 7))) // 2)
        else:
            columns -= 2 * ((columns - int(round(width * (rows / height), 7))) // 2)
        return rows, columns

    def projector(self, inner: HfModel) -> HfModel:
        strategy = inner.config.vision_feature_select_strategy
        return TileProjector(inner, {"vision_feature_select_strategy": strategy})

    def project(self, parts: Parts, encoded: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        return (parts.projector(encoded, grids),)

    def shown(self, pictures: Pictures, images: torch.Tensor) -> dict[str, torch.Tensor]:
        import torch

        return {"pixel_values": pictures.pixels, "image_sizes": torch.tensor([grid[1:] for grid in pictures.grids])}


class OnevisionArchitecture(LlavaNextArchitecture):
    """The same, with pictures of many tiles made smaller (``anyres_max_9``)."""

    def projector(self, inner: HfModel) -> HfModel:
        return TileProjector(inner, {"vision_aspect_ratio": inner.config.vision_aspect_ratio})

    def _laid_out(self, config: Any, size: Size, side: int) -> tuple[int, int]:
        rows, columns = super()._laid_out(config, size, side)
        most = int(config.vision_aspect_ratio.strip("_aemnrsxy"))  # as transformers reads "anyres_max_9"
        ratio = math.sqrt(rows * columns / (most * side * side))
        return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


class _TileText(TextSide):
    def pixels(self, images: list[Image]) -> Pictures:
        """Pixels (tiles of all images, 3, side, side). One image at a time: together they would be padded to the most tiles."""
        import torch

        rows, grids = [], []
        for image in images:
            made = self.image_processor(image, return_tensors="pt")
            rows.append(made["pixel_values"][0])
            grids.append((len(rows[-1]), *made["image_sizes"][0].tolist()))
        return Pictures(torch.cat(rows) if rows else torch.empty(0), tuple(grids))


class LlavaNextFamily(LlavaNextArchitecture, _TileText):
    """Adapter of ``LlavaNextForConditionalGeneration``."""

    name = "llava_next"


class OnevisionFamily(OnevisionArchitecture, _TileText):
    """Adapter of ``LlavaOnevisionForConditionalGeneration``."""

    name = "llava_onevision"
