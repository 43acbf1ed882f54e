"""What the rest of svco needs to know of a VLM family: its template, its pixels, and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..pairs import PairText

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import nn

ImageSizes = tuple[tuple[int, int], tuple[int, int]]
"""(width, height) of image 0 and image 1, in pixels."""


@dataclass(frozen=True)
class EncodedText:
    """A pair in token ids: three prefixes, one a condition, and the two responses that can follow any of them.

    A sequence is ``prefixes[c]`` followed by ``responses[s]``; the six cells are six of the six combinations. The ids
    of a response are the same behind every prefix, and those of a prefix before both responses.
    """

    prefixes: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Condition image 0, image 1, no image: 1-D int64, one placeholder id per image feature."""
    responses: tuple[np.ndarray, np.ndarray]
    """Side 0, side 1: 1-D int64, with the end-of-response tokens of the family's rule, cut to the budget."""
    cut: int
    """Response tokens dropped by the budget, over both sides."""


class Family(Protocol):
    """One family's adapter. Picklable; loads no weights."""

    name: str
    """transformers ``model_type``."""
    fingerprint: str
    """Hex digest of everything ``encode_text`` depends on: tokenizer, template, budget, end rule."""

    def encode_text(self, text: PairText, image_sizes: ImageSizes) -> EncodedText:
        """Token ids of a pair; BadSample (``long-query``, ``unsplittable``) if it cannot be scored as asked."""
        ...

    def filler_text(self, token: np.ndarray) -> EncodedText:
        """The shortest text that uses every module: ``token`` (1,) as blind prefix and as both responses."""
        ...

    def pixels(self, images: list[Image]) -> torch.Tensor:
        """RGB images as the vision tower's float32 input, one row an image."""
        ...

    def filler_image(self) -> Image:
        """An image that stands in the slot of a sample that has none."""
        ...

    def image_features(self, model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """(images, features of an image, hidden): vision tower and projector. Called inside the root's forward."""
        ...

    def image_token_mask(self, input_ids: torch.Tensor) -> torch.Tensor:
        """True at the placeholder positions, which image features take in order."""
        ...

    def language_model(self, model: nn.Module) -> nn.Module:
        """The decoder stack: takes ``inputs_embeds`` and gives ``last_hidden_state``."""
        ...

    def vision_modules(self, model: nn.Module) -> tuple[nn.Module, ...]:
        """Modules that are never trained."""
        ...

    def projector(self, model: nn.Module) -> nn.Module:
        """The module between vision tower and language model."""
        ...
