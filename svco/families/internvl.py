"""InternVL3 and 3.5 in transformers' own form: an image is cut into tiles of one size, and seen whole in one more.

Which grid of tiles suits an image is transformers' own rule. A tile's features are as many as its patches, four in one
(``pixel_shuffle``), between ``<img>`` and ``</img>``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..basics.errors import UserError
from .llava import LlavaArchitecture, as_weights
from .protocol import Grids, HfModel, Parts, Pictures, Size
from .text import TextSide

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class ShuffleProjector(nn.Module):
    """Projector behind the model's own pixel shuffle."""

    def __init__(self, inner: HfModel):
        super().__init__()
        self.projection = inner.multi_modal_projector
        self._shuffle = inner.pixel_shuffle
        self._ratio = inner.config.downsample_ratio

    def forward(self, encoded: torch.Tensor) -> torch.Tensor:
        """(tiles, features of a tile, hidden) of ``encoded`` (tiles, patches of a tile, tower's hidden)."""
        side = round(encoded.shape[1] ** 0.5)
        square = encoded.reshape(len(encoded), side, side, -1)
        return self.projection(self._shuffle(square, scale_factor=self._ratio).flatten(1, 2))


class InternVLArchitecture(LlavaArchitecture):
    """Where the parts of an ``InternVLForConditionalGeneration`` are. A grid is (tiles,)."""

    def parts(self, model: HfModel) -> Parts:
        parts = super().parts(model)
        rotary: Any = parts.rotary
        if rotary.rope_type == "dynamic":
            # As "default" up to the length the model was trained for. To see whether a row is longer "dynamic" asks the GPU for
            # its farthest position, and waits, at every pass. No image is (``check_processor``), and a text of that length, tens
            # of thousands of tokens, is turned as by "default".
            rotary.rope_type = "default"
        return parts

    @property
    def tile_limits(self) -> tuple[int, int]:
        """Fewest and most tiles that an image is cut into, as released; the whole picture is one more."""
        return 1, 12

    def tiles(self, config: Any, size: Size) -> int:
        """Tiles of an image of ``size``, the whole picture's included."""
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

        width, height = size
        columns, rows = get_optimal_tiled_canvas(
            (height, width), tuple(config.vision_config.image_size), *self.tile_limits
        )
        cut = columns * rows
        return cut + 1 if cut > 1 else 1

    def features(self, config: Any, size: Size) -> int:
        vision = config.vision_config
        down, across = (length // patch for length, patch in zip(vision.image_size, vision.patch_size, strict=True))
        return self.tiles(config, size) * int(down * config.downsample_ratio) * int(across * config.downsample_ratio)

    def projector(self, inner: HfModel) -> HfModel:
        return ShuffleProjector(inner)

    def encode_images(self, parts: Parts, pixels: torch.Tensor, grids: Grids) -> torch.Tensor:
        """(tiles, patches of a tile, tower's hidden), chosen as ``get_image_features`` does."""
        config, layer = parts.config, parts.config.vision_feature_layer
        seen = parts.tower(as_weights(pixels, parts.tower), output_hidden_states=layer != -1)
        state = seen.last_hidden_state if layer == -1 else seen.hidden_states[layer]
        # "default" leaves the class token out.
        return state[:, 1:] if config.vision_feature_select_strategy == "default" else state


class InternVLFamily(InternVLArchitecture, TextSide):
    """Adapter of ``InternVLForConditionalGeneration``."""

    name = "internvl"

    @property
    def tile_limits(self) -> tuple[int, int]:
        return self.image_processor.min_patches, self.image_processor.max_patches

    def check_processor(self, base: str) -> None:
        """No image is longer than what the language model was trained for."""
        side, known = self.config.vision_config.image_size, self.config.get_text_config().max_position_embeddings
        tile = self.features(self.config, (side[1], side[0])) // self.tiles(self.config, (side[1], side[0]))
        longest = (self.tile_limits[1] + 1) * tile
        if longest > known:
            raise UserError(
                f"The image processor of {base!r} cuts an image into up to {self.tile_limits[1]} tiles: that may be "
                f"{longest} tokens, and the language model was trained for {known}. Set max_patches in its "
                "preprocessor_config.json to fewer."
            )

    @property
    def filler_size(self) -> Size:
        height, width = self.config.vision_config.image_size
        return (width, height)

    def image_text(self, size: Size) -> str:
        """``<img>``, a placeholder a tile, ``</img>``."""
        begin = getattr(self.tokenizer, "start_image_token", "<img>")
        end = getattr(self.tokenizer, "end_image_token", "</img>")
        return f"{begin}{self.chat.word * self.tiles(self.config, size)}{end}"

    def pixels(self, images: list[Image]) -> Pictures:
        """Pixels (tiles of all images, 3, height, width). An image processor by itself cuts no tiles: the whole processor, which
        needs torchvision, asks it to."""
        import torch

        if not images:
            return Pictures(torch.empty(0), ())
        made = self.image_processor(images, crop_to_patches=True, return_tensors="pt")
        return Pictures(made["pixel_values"], tuple((count,) for count in made["num_patches"].tolist()))
