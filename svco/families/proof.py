"""Whether a base's own class makes of an image what the adapter counts: asked once, when a family is loaded.

The base's transformers class is built from its config, as deep as it is but a few numbers wide, and runs one real image through
tower and projector. How many features come out does not depend on widths or weights, so that no weight is read: it is the same
proof on every rank, in a dry run, and where ZeRO-3 keeps weights in parts, whose modules must not run outside the engine's own
forward.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ..basics.errors import UserError, first_line
from .protocol import HfModel

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_SETTINGS = (
    "vision_feature_select_strategy",
    "vision_feature_layer",
    "vision_aspect_ratio",
    "image_grid_pinpoints",
    "downsample_ratio",
    "scale_factor",
    "mm_tokens_per_image",
)
_WIDTH = 16
"""Of every layer: two heads of eight."""
_HEADS = 2
_TOLERANCE = 1e-5
_PROVEN: set[tuple[type, str, str]] = set()
"""What has been proven in this process, which may load one base many times: adapter, config and pixels."""


def prove(family: Any, base: str) -> None:
    """UserError, naming the settings, when the class of ``base`` refuses an image, or makes other features of it than
    ``family``."""
    case = (type(family), family.config.to_json_string(use_diff=False), family.pixel_fingerprint)
    if case not in _PROVEN:
        _prove(family, base)
        _PROVEN.add(case)


def _prove(family: Any, base: str) -> None:
    def refused(does: str) -> UserError:
        return _refused(family.config, base, does)

    try:
        image = _wide(family)
        counted = family.features_of(image.size)
        ours, theirs = _features(family, image)
        written = family.tokenizer(family.image_text(image.size), add_special_tokens=False)["input_ids"]
        placeholders = written.count(family.image_token_id)
    except Exception as error:  # the class itself refuses, with whatever its tensors' shapes lead to
        raise refused(f"refuse an image ({first_line(error)})") from None
    if len(theirs[0]) != counted:
        raise refused(
            f"make {len(theirs[0])} features of an image of {image.width} × {image.height} pixels, and svco counts {counted}",
        )
    if not placeholders or counted % placeholders:
        raise refused(f"share {counted} features of an image among {placeholders} placeholders in its text")
    if len(ours) != len(theirs) or not all(map(_same, ours, theirs)):
        raise refused("make other features of an image than svco does")
    tiles = getattr(family.config, "image_grid_pinpoints", None)
    if tiles is not None and sorted(map(list, tiles)) != sorted(map(list, family.image_processor.image_grid_pinpoints)):
        raise refused("cut images by another image_grid_pinpoints than its image processor's")


def _refused(config: Any, base: str, does: str) -> UserError:
    said = {name: getattr(config, name) for name in _SETTINGS if getattr(config, name, None) is not None}
    shown = ", ".join(f"{name} = {value!r}" for name, value in said.items() if name != "image_grid_pinpoints")
    vision = config.vision_config
    size = ", ".join(f"{name} = {getattr(vision, name, None)}" for name in ("image_size", "patch_size"))
    return UserError(
        f"The base model {base!r} cannot be used: its config and transformers' {config.model_type} class {does}. Its "
        "config.json "
        f"says {shown + ', ' if shown else ''}{size} for a tower of type {vision.model_type!r}; set what its release has there."
    )


def _wide(family: Any) -> Image:
    """A picture that is not square, in which tiles and padding differ by axis."""
    import numpy as np
    from PIL import Image

    side = min(family.filler_size)
    pixels = np.random.default_rng(0).integers(0, 256, (side - side // 3, 2 * side - side // 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() < _TOLERANCE)


def _features(family: Any, image: Image) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """What ``image`` becomes by the adapter and by the base's own class, both of the narrow model: each (features, width), placed
    and then added (DeepStack)."""
    import torch

    pictures = family.pixels([image])
    # Whatever has been seeded stays as it was.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = narrow(family.config).eval()
        parts = family.parts(model)
        shown = family.shown(pictures, torch.zeros(1, 1, dtype=torch.bool))
        shown = {name: value for name, value in shown.items() if not name.endswith("token_type_ids")}
        if pictures.pixels.dim() == 4 and "image_sizes" in shown:
            shown["pixel_values"] = pictures.pixels[None]
        found = model.get_image_features(**shown)
        made = [found.pooler_output, *(getattr(found, "deepstack_features", None) or ())]
        theirs = tuple(torch.cat(list(images)) for images in made)
        ours = family.project(parts, family.encode_images(parts, pictures.pixels, pictures.grids), pictures.grids)
    return ours, theirs


def narrow(config: Any) -> HfModel:
    """The class of ``config`` with random weights: its tower whole but ``_WIDTH`` wide, one layer of its language model."""
    import torch
    from transformers import AutoModelForImageTextToText

    config = copy.deepcopy(config)
    vision, text = config.vision_config, config.get_text_config()
    widths = {"hidden_size": _WIDTH, "intermediate_size": _WIDTH, "num_attention_heads": _HEADS, "num_heads": _HEADS}
    for part, more in (
        (vision, {"out_hidden_size": _WIDTH, "projection_dim": _WIDTH}),
        (
            text,
            {"num_key_value_heads": _HEADS, "head_dim": _WIDTH // _HEADS, "num_hidden_layers": 1, "vocab_size": _WIDTH},
        ),
    ):
        for name, value in (widths | more).items():
            if hasattr(part, name):
                setattr(part, name, value)
    text.pad_token_id = None
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if (
                parameter.dim() > 1 and not parameter.any()
            ):  # Gemma 3's projection begins at zero: every feature would be the same
                parameter.normal_(std=0.1)
    return model
