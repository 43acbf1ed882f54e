"""Image encoders of Hugging Face as vectors of unit length: CLIP, SigLIP, DINOv2, or the vision tower of a LLaVA."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ....basics.errors import UserError, first_line

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image


class Encoder:
    """A checkpoint that gives an image one vector."""

    def __init__(self, name: str, device: torch.device, dtype: str):
        """``name``: a folder or a hub id. UserError for one that is not there, or gives no vector of an image."""
        import torch
        from transformers import AutoImageProcessor, AutoModel

        self.name, self.device = name, device
        try:
            self.processor = AutoImageProcessor.from_pretrained(name, backend="pil")
            model = AutoModel.from_pretrained(name, dtype=getattr(torch, dtype))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"The image encoder {name} cannot be loaded: {first_line(error)} Give the folder of a CLIP, SigLIP or DINOv2 "
                "checkpoint with its preprocessor_config.json, or a hub id."
            ) from None
        self.read = _read_tower if hasattr(model, "vision_tower") else _read_features
        if self.read is _read_features and not hasattr(model, "get_image_features") and _is_language(model):
            raise UserError(f"{name} is a {type(model).__name__}, which gives no vector of an image.")
        self.model = model.eval().requires_grad_(False).to(device)
        self.digest = self._digest(dtype)

    def _digest(self, dtype: str) -> str:
        """Of everything that a vector depends on besides the picture: weights, how pixels are made, precision."""
        import torch

        found = hashlib.sha256(
            json.dumps([self.processor.to_dict(), dtype, _VERSION], sort_keys=True, default=str).encode()
        )
        for key, value in sorted(self.model.state_dict().items()):
            found.update(f"{key} {tuple(value.shape)}".encode())
            found.update(value.contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes())
        return found.hexdigest()

    def __call__(self, images: Sequence[Image]) -> np.ndarray:
        """(N, D) float32 vectors of ``images`` (RGB), of unit length; rows that have none are NaN."""
        import torch

        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            found = self.read(self.model, pixels.to(self.device, self.model.dtype)).float()
            return (found / found.norm(dim=-1, keepdim=True)).cpu().numpy()


_VERSION = 1
"""Another number when the same checkpoint would give other vectors."""


def _read_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What the model itself calls an image's features (CLIP, SigLIP), else its pooled output (DINOv2, a lone tower)."""
    if hasattr(model, "get_image_features"):
        found = model.get_image_features(pixel_values=pixels)
        return found if hasattr(found, "norm") else found.pooler_output
    found = model(pixel_values=pixels)
    pooled = getattr(found, "pooler_output", None)
    return pooled.flatten(1) if pooled is not None else found.last_hidden_state[:, 0]


def _read_tower(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The mean over patches of what the projector reads: nothing else of such a tower has been trained."""
    layer = model.config.vision_feature_layer
    states = model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states[layer]
    return (states[:, 1:] if model.config.vision_feature_select_strategy == "default" else states).mean(1)


def _is_language(model: Any) -> bool:
    return getattr(model, "main_input_name", "") != "pixel_values"
