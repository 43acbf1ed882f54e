"""Idefics3, SmolVLM and SmolVLM2: an image is made larger, cut into rows of tiles of one size, and seen whole in one more.

The text of an image tells a tile's row and column, with a line break a row. Rows and columns are transformers' own rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..basics.errors import UserError
from .llava import LlavaArchitecture, as_weights, language_parts
from .protocol import Grids, HfModel, Parts, Pictures, Size
from .text import TextSide

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_LARGEST = 4096
"""Pixels of an image's longer side, at most, whatever ``longest_edge`` says (transformers' ``MAX_IMAGE_SIZE``)."""


class IdeficsTower(nn.Module):
    """The vision transformer over whole tiles: no patch of them is padding, and nothing asks the device whether one is."""

    def __init__(self, vision: HfModel):
        super().__init__()
        self.embeddings, self.encoder, self.post_layernorm = vision.embeddings, vision.encoder, vision.post_layernorm
        self._patch = vision.config.patch_size

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(tiles, patches of a tile, hidden) of ``pixels`` (tiles, 3, side, side)."""
        import torch

        down, across = (length // self._patch for length in pixels.shape[2:])
        shown = torch.ones(len(pixels), down, across, dtype=torch.bool, device=pixels.device)
        return self.post_layernorm(self.encoder(self.embeddings(pixels, shown)).last_hidden_state)


class IdeficsArchitecture(LlavaArchitecture):
    """Where the parts of an ``Idefics3ForConditionalGeneration`` or ``SmolVLMForConditionalGeneration`` are; a grid: (tiles,)."""

    def parts(self, model: HfModel) -> Parts:
        inner = model.model
        return Parts(
            config=model.config,
            tower=None if inner.vision_model is None else IdeficsTower(inner.vision_model),
            projector=inner.connector,
            projection=(inner.connector,),
            **language_parts(model, "text_model"),
        )

    def rows_and_columns(self, config: Any, size: Size) -> tuple[int, int]:
        """Of the tiles of an image of ``size``, as released: its longer side becomes four tiles. (0, 0): it is not cut."""
        from transformers import Idefics3ImageProcessorPil

        side = config.vision_config.image_size
        return _rows_and_columns(
            Idefics3ImageProcessorPil(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side}), size
        )

    def features(self, config: Any, size: Size) -> int:
        """As many of each tile as the connector makes of its patches, and of the whole picture."""
        rows, columns = self.rows_and_columns(config, size)
        vision = config.vision_config
        return (rows * columns + 1) * (vision.image_size // vision.patch_size // config.scale_factor) ** 2

    def drop_tower(self, model: HfModel) -> None:
        model.model.vision_model = None

    def encode_images(self, parts: Parts, pixels: torch.Tensor, grids: Grids) -> torch.Tensor:
        return parts.tower(as_weights(pixels, parts.tower))

    def shown(self, pictures: Pictures, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tiles of all images as those of one: transformers puts the features in row by row."""
        return {"pixel_values": pictures.pixels[None]}


def _rows_and_columns(processor: Any, size: Size) -> tuple[int, int]:
    width, height = size
    _, rows, columns = processor.get_number_of_image_patches(height, width)
    return rows, columns


class IdeficsFamily(IdeficsArchitecture, TextSide):
    """Adapter of both classes."""

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.config.model_type

    def check_processor(self, base: str) -> None:
        """Only where an image's longer side becomes whole tiles does transformers count the tiles that it makes."""
        processor = self.image_processor
        side, longest = processor.max_image_size["longest_edge"], processor.size["longest_edge"]
        if not processor.do_resize or not longest or min(longest, _LARGEST) % side:
            raise UserError(
                f"The image processor of {base!r} makes the longer side of an image {longest} pixels (do_resize = "
                f"{processor.do_resize}), which is no multiple of its tiles' {side}; transformers' own count of tiles is wrong "
                "there. Set size.longest_edge in its preprocessor_config.json to a multiple: one tile is the cheapest."
            )

    @property
    def filler_size(self) -> Size:
        """One row of tiles: whatever its size, an image is made as large as the processor says."""
        return (self.image_processor.size["longest_edge"], self.image_processor.max_image_size["longest_edge"])

    def rows_and_columns(self, config: Any, size: Size) -> tuple[int, int]:
        return _rows_and_columns(self.image_processor, size)

    def image_text(self, size: Size) -> str:
        """Each tile behind its row and column, the whole picture behind a blank line, with one placeholder each."""
        from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

        return get_image_prompt_string(
            *self.rows_and_columns(self.config, size),
            1,
            getattr(self.tokenizer, "fake_image_token", "<fake_token_around_image>"),
            self.chat.word,
            getattr(self.tokenizer, "global_image_token", "<global-img>"),
        )

    def pixels(self, images: list[Image]) -> Pictures:
        """Pixels (tiles of all images, 3, side, side). One image at a time: together they would be padded to the most tiles."""
        import torch

        rows = [self.image_processor(image, return_tensors="pt")["pixel_values"][0] for image in images]
        return Pictures(torch.cat(rows) if rows else torch.empty(0), tuple((len(tiles),) for tiles in rows))
