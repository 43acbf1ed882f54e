"""LLaVA-1.5 and every other checkpoint of transformers' ``llava`` type: one fixed number of features an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadSample, UserError
from ..pairs import PairText
from .chat import ChatEncoder
from .protocol import EncodedText, ImageSizes, Parts

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn


class LlavaFamily:
    """Adapter of ``LlavaForConditionalGeneration``.

    Ends of responses: LLaVA-1.5 is scored with an end-of-sequence token after the template's rendering, as the authors
    do (METHOD: the tokenizer's EOS forced into the labels).
    """

    name = "llava"

    def __init__(self, base: str, max_text_tokens: int):
        from PIL import Image
        from transformers import AutoProcessor

        try:
            self.processor = AutoProcessor.from_pretrained(base)
        except (OSError, ValueError) as error:
            raise UserError(
                f"The processor of {base!r} cannot be loaded: {str(error).strip().splitlines()[0]}"
            ) from None
        tokenizer = self.processor.tokenizer
        self.chat = ChatEncoder(self.processor, end_of_response=(tokenizer.eos_token_id,))
        self.max_text_tokens = max_text_tokens
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.processor.image_token)
        crop = self.processor.image_processor.crop_size
        self._filler_size = (crop["width"], crop["height"])
        # The processor itself says how many placeholders an image becomes.
        probe = self.processor(text=self.processor.image_token, images=Image.new("RGB", self._filler_size))
        self.features_an_image = sum(i == self.image_token_id for i in probe["input_ids"][0])
        self.fingerprint = self.chat.fingerprint(max_text_tokens, self.features_an_image)
        self.pixel_fingerprint = self.processor.image_processor.to_json_string()

    def encode_text(self, text: PairText, image_sizes: ImageSizes) -> EncodedText:
        """Three prefixes and two responses. Text is cut at ``max_text_tokens``, image placeholders not counted.

        The budget of the responses is what the longest prompt leaves, one for all views and both sides, so that
        truncation never differs between match and blind. A cut response keeps no end-of-sequence token.
        """
        image_prefix, responses = self.chat.encode_all(text, with_image=True)
        blind_prefix, blind_responses = self.chat.encode_all(text, with_image=False)
        if responses != blind_responses:
            raise BadSample(
                "unsplittable", f"sample {text.key!r}: the response's tokens differ with and without an image"
            )
        placeholders = image_prefix.count(self.image_token_id)
        if placeholders != 1:
            raise BadSample(
                "bad-schema",
                f"sample {text.key!r}: the prompt has {placeholders} image placeholders instead of "
                f"one; the text must not contain {self.processor.image_token!r}",
            )
        budget = self.max_text_tokens - max(len(image_prefix) - 1, len(blind_prefix))
        if budget < 1:
            raise BadSample(
                "long-query",
                f"sample {text.key!r}: its prompt has {self.max_text_tokens - budget} text tokens and "
                f"data.max_text_tokens is {self.max_text_tokens}, which leaves no room for a response",
            )
        prefix = np.asarray(image_prefix, dtype=np.int64)
        expanded = np.repeat(prefix, np.where(prefix == self.image_token_id, self.features_an_image, 1))
        return EncodedText(
            prefixes=(expanded, expanded, np.asarray(blind_prefix, dtype=np.int64)),
            responses=tuple(np.asarray(r[:budget], dtype=np.int64) for r in responses),
            cut=sum(max(0, len(r) - budget) for r in responses),
        )

    def filler_text(self, token: np.ndarray) -> EncodedText:
        placeholders = np.full(self.features_an_image, self.image_token_id, dtype=np.int64)
        return EncodedText(prefixes=(placeholders, placeholders, token), responses=(token, token), cut=0)

    def pixels(self, images: list[Image]) -> torch.Tensor:
        """(images, 3, height, width) float32, resized, cropped and normalised by the model's own image processor."""
        return self.processor.image_processor(images, return_tensors="pt")["pixel_values"]

    def filler_image(self) -> Image:
        from PIL import Image

        return Image.new("RGB", self._filler_size)

    def image_token_mask(self, ids: Any) -> Any:
        return ids == self.image_token_id

    def parts(self, model: nn.Module) -> Parts:
        inner = model.model
        language = inner.language_model
        return Parts(
            tower=inner.vision_tower,
            projector=inner.multi_modal_projector,
            embedding=language.embed_tokens,
            rotary=language.rotary_emb,
            layers=language.layers,
            norm=language.norm,
            head=model.lm_head,
            language_model=language,
        )

    def encode_images(self, model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """(images, features of an image, tower's hidden × chosen layers), as ``LlavaModel.get_image_features`` chooses them."""
        import torch

        config = model.config
        states = model.model.vision_tower(
            pixels.to(model.dtype), output_hidden_states=True, return_dict=True
        ).hidden_states
        layers = config.vision_feature_layer
        chosen = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        # "default" leaves the class token out.
        first = 1 if config.vision_feature_select_strategy == "default" else 0
        return torch.cat([state[:, first:] for state in chosen], dim=-1)

    def project(self, model: nn.Module, encoded: torch.Tensor) -> torch.Tensor:
        return model.model.multi_modal_projector(encoded).flatten(0, 1)
