"""Gemma 3: a fixed number of features an image, which attend to each other both ways; layers of two kinds, most of them within a
sliding window and with angles of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .llava import LlavaArchitecture, as_weights
from .protocol import Grids, HfModel, Parts, Pictures, Size
from .text import TextSide

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class GemmaArchitecture(LlavaArchitecture):
    """Where the parts of a ``Gemma3ForConditionalGeneration`` are and how they run. Its embedding scales what it gives by the
    root of its width; features are placed as they are, as the class does."""

    two_way_images = True

    def parts(self, model: HfModel) -> Parts:
        return replace(super().parts(model), layer_types=tuple(model.config.get_text_config().layer_types))

    def features(self, config: Any, size: Size) -> int:
        """Features of an image of ``size``: here of any."""
        return config.mm_tokens_per_image

    def encode_images(self, parts: Parts, pixels: torch.Tensor, grids: Grids) -> torch.Tensor:
        """(images, patches of an image, tower's hidden)."""
        return parts.tower(as_weights(pixels, parts.tower), return_dict=True).last_hidden_state

    def shown(self, pictures: Pictures, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixel_values": pictures.pixels, "token_type_ids": images.int()}


class GemmaFamily(GemmaArchitecture, TextSide):
    """Adapter of ``Gemma3ForConditionalGeneration``."""

    name = "gemma3"

    @property
    def word_id(self) -> int:
        """The template writes the token by which an image begins."""
        return self.config.boi_token_id

    def image_text(self, size: Size) -> str:
        """As ``Gemma3Processor`` writes one, without crops."""
        placeholder, end = self.tokenizer.convert_ids_to_tokens([self.image_token_id, self.config.eoi_token_id])
        return f"\n\n{self.chat.word}{placeholder}{end}\n\n"

    def pixels(self, images: list[Image]) -> Pictures:
        """Pixels (images, 3, side, side), squashed to a square. Without crops ("pan and scan"), as released, whatever a base's
        files say: the text would have to announce them."""
        made = self.image_processor(images, return_tensors="pt", do_pan_and_scan=False)
        return Pictures(made["pixel_values"], ((1,),) * len(images))
