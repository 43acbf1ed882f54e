"""LLaVA-1.5, LLaVA-Interleave and every other checkpoint of transformers' ``llava`` type: a fixed number of features an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .protocol import Grids, HfModel, Parts, Pictures, Size
from .text import TextSide

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class LlavaArchitecture:
    """Where the parts of a ``LlavaForConditionalGeneration`` are and how they run; needs no processor."""

    two_way_images = False

    def parts(self, model: HfModel) -> Parts:
        inner = model.model
        return Parts(
            config=model.config,
            tower=inner.vision_tower,
            projector=self.projector(inner),
            projection=(inner.multi_modal_projector,),
            **language_parts(model),
        )

    def features(self, config: Any, size: Size) -> int:
        """Features of an image of ``size``: here of any."""
        vision = config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        # CLIP's tower says one more, of the class token; SigLIP's has none. "default" leaves the first out, whatever it is.
        first = vision.model_type == "clip_vision_model"
        return patches + first - (config.vision_feature_select_strategy == "default")

    def projector(self, inner: HfModel) -> HfModel:
        """What turns the tower's output into features of the language model."""
        return inner.multi_modal_projector

    def drop_tower(self, model: HfModel) -> None:
        model.model.vision_tower = None

    def vision_attention(self, backend: str) -> str:
        """CLIP and SigLIP attend over whole images of one size: torch's own kernels do that as fast as any."""
        return "sdpa"

    def encode_images(self, parts: Parts, pixels: torch.Tensor, grids: Grids) -> torch.Tensor:
        """(images, features of an image, tower's hidden × chosen layers), chosen as ``get_image_features`` does."""
        import torch

        config = parts.config
        seen = parts.tower(as_weights(pixels, parts.tower), output_hidden_states=True, return_dict=True)
        states = seen.hidden_states
        layers = config.vision_feature_layer
        chosen = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        # "default" leaves the class token out.
        first = 1 if config.vision_feature_select_strategy == "default" else 0
        return torch.cat([state[:, first:] for state in chosen], dim=-1)

    def project(self, parts: Parts, encoded: torch.Tensor, grids: Grids) -> tuple[torch.Tensor, ...]:
        return (parts.projector(encoded).flatten(0, 1),)

    def shown(self, pictures: Pictures, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """See the protocol."""
        return {"pixel_values": pictures.pixels}


def as_weights(pixels: torch.Tensor, tower: HfModel) -> torch.Tensor:
    """``pixels`` in the dtype of the weights of ``tower``."""
    # From the tower's own list: a weight looked up from outside its module is one that ZeRO-3 keeps gathered for the step.
    return pixels.to(next(tower.parameters()).dtype)


def language_parts(model: HfModel, name: str = "language_model") -> dict[str, Any]:
    """The parts of the language model, which lie alike in all families, under ``name``."""
    language = getattr(model.model, name)
    return {
        "embedding": language.embed_tokens,
        "rotary": language.rotary_emb,
        "layers": language.layers,
        "norm": language.norm,
        "head": model.lm_head,
        "language_model": language,
    }


class LlavaFamily(LlavaArchitecture, TextSide):
    """Adapter of ``LlavaForConditionalGeneration``."""

    name = "llava"

    def pixels(self, images: list[Image]) -> Pictures:
        """Pixels (images, 3, height, width), resized, cropped and normalised by the model's own image processor."""
        pixels = self.image_processor(images, return_tensors="pt")["pixel_values"]
        return Pictures(pixels, ((1,),) * len(images))
