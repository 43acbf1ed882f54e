"""What the rest of svco needs to know of a VLM family: its template, its pixels, and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..data.pairs import PairText

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import nn

HfModel = Any
"""A Hugging Face model or a part of one. As an ``nn.Module`` its every attribute would be ``Tensor | Module``, whatever it is."""
Size = tuple[int, int]
"""(width, height), pixels."""
Grids = tuple[tuple[int, ...], ...]
"""What a family must know of each image's rows of pixels, on the host: tiles and size, or a grid of patches."""


@dataclass(frozen=True)
class Parts:
    """A model taken apart into what the scorer runs, in this order."""

    config: Any
    """The model's own ``config``."""
    tower: HfModel
    """Vision tower: never trained, shared by policy and reference; None where it was let go."""
    projector: nn.Module
    """Between vision tower and language model, with whatever it adds of its own: what ``project`` runs."""
    projection: tuple[nn.Module, ...]
    """Modules of the model inside ``projector`` that ``model.train_projector`` trains; none is a list, which peft cannot wrap."""
    embedding: nn.Module
    """(…,) token ids -> (…, hidden)."""
    rotary: nn.Module
    """(hidden states, position ids) -> (cos, sin), the ``position_embeddings`` of a layer."""
    layers: nn.ModuleList
    """Decoder layers: (1, T, hidden) -> (1, T, hidden), keyword arguments handed on to the attention function."""
    norm: nn.Module
    """Final norm."""
    head: nn.Linear
    """From hidden to vocabulary, without bias."""
    language_model: nn.Module
    """The module that holds embedding, layers and norm: where adapters go."""
    layer_types: tuple[str, ...] = ()
    """Of each layer, where angles are of several kinds: what ``rotary`` is told as a third argument. Empty: they are of one."""


@dataclass(frozen=True)
class Pictures:
    """Images as a vision tower takes them."""

    pixels: torch.Tensor
    """float32, whatever rows the tower takes: images, tiles of images, patches."""
    grids: Grids
    """Which rows are which image's."""


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
    positions: tuple[np.ndarray, ...] = ()
    """(axes, tokens) int64 of each prefix; a response goes on at the largest + 1 on every axis. Empty: counted from 0."""
    budgets: tuple[int, int, int] | None = None
    """Tokens of a response that are scored under each condition; None: all of them."""

    def response(self, side: int, shown: int) -> np.ndarray:
        """The tokens of ``side``'s response that are scored under condition ``shown``."""
        return self.responses[side] if self.budgets is None else self.responses[side][: self.budgets[shown]]


class ModelSide(Protocol):
    """What packing and scoring need of a family: pairs are token ids and images already."""

    two_way_images: bool
    """The features of one image attend to each other in both directions."""

    def pixels(self, images: list[Image]) -> Pictures:
        """RGB images as the vision tower's input."""
        ...

    def image_token_mask(self, ids: Any) -> Any:
        """True at the placeholders among ``ids`` (array or tensor), which image features take in order."""
        ...

    def parts(self, model: HfModel) -> Parts:
        """The modules of ``model``, an instance of the family's Hugging Face class."""
        ...

    def drop_tower(self, model: HfModel) -> None:
        """Lets the vision tower of ``model``, a frozen copy, go."""
        ...

    def encode_images(self, parts: Parts, pixels: torch.Tensor, grids: Grids) -> torch.Tensor:
        """What the vision tower, never trained, says of ``pixels``: the input of ``project``."""
        ...

    def project(self, parts: Parts, encoded: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        """Each (features of all images in order, hidden): first what takes the placeholders' places, then, where the family has
        them, what is added there to the output of decoder layer 0, of layer 1, and so on."""
        ...


class Family(ModelSide, Protocol):
    """One family's adapter. Picklable; loads no weights."""

    name: str
    """transformers ``model_type``."""
    fingerprint: str
    """Hex digest of everything ``encode_text`` depends on: tokenizer, template, budget, end rule."""

    tokenizer: Any
    """The Hugging Face tokenizer of its texts."""
    max_text_tokens: int
    """Text tokens of a prompt and a response together, at most."""
    paper_compat: bool
    """Cut, and ask, as the authors do."""
    pixel_fingerprint: str
    """Everything ``pixels`` depends on: size, crop, normalisation."""

    def encode_text(self, text: PairText, image_sizes: tuple[Size, Size]) -> EncodedText:
        """Token ids of a pair with images of ``image_sizes``; BadSample (``long-query``, ``unsplittable``) if it cannot be
        scored as asked."""
        ...

    def prompt(self, text: PairText, size: Size | None) -> np.ndarray:
        """Token ids (1-D int64) with which the model is asked ``text``'s query about an image of ``size``, or about none: the
        prefix of ``encode_text``; with ``paper_compat`` as the authors ask."""
        ...

    @property
    def ends(self) -> list[int]:
        """Token ids that end an answer."""
        ...

    def decode(self, ids: Any) -> str:
        """The words of generated token ids."""
        ...

    def shown(self, pictures: Pictures, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What transformers' own forward takes beside token ids; ``images``: (P, L) bool, the placeholders among them."""
        ...

    def filler_text(self, token: np.ndarray) -> EncodedText:
        """The shortest text that uses every module: ``token`` (1,) as blind prefix and as both responses."""
        ...

    def features_of(self, size: Size) -> int:
        """Features that an image of ``size`` becomes."""
        ...

    def filler_image(self) -> Image:
        """An image that stands in the slot of a sample that has none."""
        ...

    def vision_attention(self, backend: str) -> str:
        """transformers' attention implementation for the vision tower, where the language model's is ``backend``."""
        ...
