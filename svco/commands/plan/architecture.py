"""A base model as numbers: the sizes of its parts, from its config alone. No weight is read or made."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...basics.errors import UserError
from .layers import Delta, Linear

if TYPE_CHECKING:
    from torch import nn

PICTURE = (640, 480)
"""Width and height of an image where none is here to be measured."""


@dataclass(frozen=True)
class Tower:
    """The vision tower."""

    hidden: int
    """Width."""
    layers: int
    """Blocks."""
    tokens: int
    """Tokens of one crop inside it, a class token included; 0 where an image's size decides."""
    crop_features: int
    """Image tokens that one crop becomes in the language model, before any are dropped."""
    patch_features: float
    """Patches that become one image token (a merger joins several)."""
    block: int
    """Weights of one block."""
    block_linear: int
    """Of these, elements of matrices."""
    outside: tuple[int, ...]
    """Sizes of the parameters outside blocks, in order."""
    patches_linear: int
    """Elements of the patch embedding's kernel."""
    window: int = 0
    """Tokens that one token attends to in windowed blocks; 0: all."""
    whole_blocks: int = 0
    """Blocks that attend to all tokens of an image; the others have windows."""

    @property
    def weights(self) -> int:
        return self.layers * self.block + sum(self.outside)


@dataclass(frozen=True)
class Architecture:
    """What the plan has to know of a base model. Sizes count elements."""

    name: str
    """As the recipe calls it."""
    hidden: int
    """Width of the language model."""
    layers: int
    """Decoder layers."""
    heads: int
    """Attention heads."""
    groups: int
    """Key/value heads."""
    head_size: int
    """Width of a head."""
    intermediate: int
    """Width inside the MLPs."""
    vocabulary: int
    """Rows of the head."""
    linears: tuple[Linear, ...]
    """The linear layers of a decoder layer that attends."""
    vectors: tuple[int, ...]
    """Sizes of its other parameters: norms and biases."""
    tied: bool
    """The head's weights are the embedding's."""
    norm: int
    """Weights of the final norm."""
    projector: tuple[Linear, ...]
    """The linear layers between vision tower and language model."""
    projector_vectors: tuple[int, ...]
    """Sizes of the projector's other parameters."""
    tower: Tower
    """The vision tower."""
    image_tokens: int
    """Tokens of an image of :data:`PICTURE`."""
    delta: Delta | None = None
    """Decoder layers of another kind among the ``layers``; None: all attend."""
    hidden_norms: int = 2
    """Norms of a decoder layer that see the hidden states: one before attention, the others behind it."""
    head_norms: bool = False
    """Whether queries and keys of every head have a norm."""
    two_way_images: bool = False
    """Tokens of an image see each other in both directions."""
    window: int = 0
    """Tokens that a token sees in the layers of :attr:`local`; 0: there are none."""
    local: float = 0.0
    """Share of the decoder layers that have a window."""

    @property
    def attending(self) -> Architecture:
        """The same without the layers that do not attend."""
        return replace(self, layers=self.layers - len(self.delta.numbers), delta=None) if self.delta else self

    @property
    def gates(self) -> int:
        """Width of the gates of attention's output that q_proj gives beside the queries."""
        return next(x.outputs for x in self.linears if x.name == "q_proj") - self.heads * self.head_size

    @property
    def every_linear(self) -> tuple[Linear, ...]:
        """The linear layers of all decoder layers, one behind another."""
        others = self.delta.linears * len(self.delta.numbers) if self.delta else ()
        return self.linears * self.attending.layers + others

    @property
    def layer_linear(self) -> int:
        """Elements of a decoder layer's matrices."""
        return sum(linear.weights for linear in self.linears)

    @property
    def layer(self) -> int:
        """Weights of a decoder layer, without adapters."""
        return self.layer_linear + sum(self.vectors)

    @property
    def embedding(self) -> int:
        """Weights of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def projector_weights(self) -> int:
        """Weights of the projector."""
        return sum(linear.weights for linear in self.projector) + sum(self.projector_vectors)

    @property
    def language(self) -> int:
        """Weights without tower and projector."""
        decoder = self.attending.layers * self.layer
        if self.delta:
            decoder += len(self.delta.numbers) * self.delta.weights
        return decoder + self.embedding * (1 if self.tied else 2) + self.norm

    @property
    def weights(self) -> int:
        """Weights of the whole model."""
        return self.language + self.projector_weights + self.tower.weights


@cache
def architecture(base: str) -> Architecture:
    """The architecture of ``base``, a folder or hub id. UserError where its config is not to be had."""
    return of_config(_config(base), base)


def _config(base: str) -> Any:
    """From the folder, from the table of published checkpoints, or from the hub."""
    from ...families import base_config, check_supported
    from ...families.published import published_config

    found = None if Path(base).is_dir() else published_config(base)
    if found is not None:
        return found
    from transformers import AutoConfig

    from ...model.stored_config import stored_config

    check_supported(base_config(base), base)
    if Path(base).is_dir():
        return stored_config(base)
    return AutoConfig.from_pretrained(base, trust_remote_code=False)  # of a hub's no weight is fetched for a plan


def of_config(config: Any, name: str = "") -> Architecture:
    """The architecture that a transformers ``config`` describes: one decoder layer of each kind is made, on the meta device."""
    import torch
    from transformers import AutoModelForImageTextToText

    from ...families import architecture as adapter

    config = deepcopy(config)
    text = config.get_text_config()
    layers, kinds = text.num_hidden_layers, list(getattr(text, "layer_types", None) or ())
    stateful = tuple(number for number, kind in enumerate(kinds) if kind == "linear_attention")
    text.num_hidden_layers = 1
    if stateful:
        text.num_hidden_layers, text.layer_types = 2, ["full_attention", "linear_attention"]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    family = adapter(config.model_type)
    parts = family.parts(model)
    layer = parts.layers[0]
    linears, vectors = _split(layer)
    by_name = {linear.name: linear for linear in linears}
    if not {"q_proj", "k_proj", "o_proj", "gate_proj"} <= by_name.keys():
        raise UserError(
            f"The plan knows decoder layers with q_proj, k_proj, o_proj and gate_proj; those of {name or config.model_type} "
            f"have {', '.join(by_name)}."
        )
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    projector, projector_vectors = _split(parts.projector)
    return Architecture(
        name=name or config.model_type,
        hidden=text.hidden_size,
        layers=layers,
        heads=by_name["o_proj"].inputs // size,  # Qwen3.5's q_proj has their gates too
        groups=by_name["k_proj"].outputs // size,
        head_size=size,
        intermediate=by_name["gate_proj"].outputs,
        vocabulary=parts.head.weight.shape[0],
        linears=linears,
        vectors=vectors,
        tied=parts.head.weight is parts.embedding.weight,
        norm=sum(p.numel() for p in parts.norm.parameters()),
        projector=projector,
        projector_vectors=projector_vectors,
        tower=_tower(parts.tower, config),
        image_tokens=family.features(config, PICTURE),
        delta=_delta(parts.layers[1], text, stateful) if stateful else None,
        hidden_norms=sum(name.endswith("norm") for name, _ in layer.named_children()),
        head_norms=hasattr(layer.self_attn, "q_norm"),
        two_way_images=family.two_way_images,
        **_windows(text),
    )


def _delta(layer: nn.Module, text: Any, numbers: tuple[int, ...]) -> Delta:
    linears, vectors = _split(layer)
    return Delta(
        numbers=numbers,
        linears=linears,
        vectors=vectors,
        key_heads=text.linear_num_key_heads,
        key_size=text.linear_key_head_dim,
        value_heads=text.linear_num_value_heads,
        value_size=text.linear_value_head_dim,
        width=text.linear_conv_kernel_dim,
    )


def _windows(text: Any) -> dict[str, Any]:
    """Of all layers where a config names no kinds, as Mistral's."""
    window = getattr(text, "sliding_window", None) or 0
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"]
    return {"window": window, "local": kinds.count("sliding_attention") / len(kinds) if window else 0.0}


def _split(module: nn.Module) -> tuple[tuple[Linear, ...], tuple[int, ...]]:
    """(linear layers, bare matrices among them, sizes of all other parameters) of ``module``."""
    from torch import nn

    linears = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}
    matrices = {id(m.weight) for m in linears.values()}
    found = [Linear(n.rpartition(".")[2], m.in_features, m.out_features) for n, m in linears.items()]
    others = [(n, p) for n, p in module.named_parameters() if id(p) not in matrices]
    found += [Linear(n.rpartition(".")[2], *p.shape) for n, p in others if p.dim() == 2]  # Gemma 3 projects with one
    return tuple(found), tuple(p.numel() for _, p in others if p.dim() != 2)


def _tower(tower: nn.Module, config: Any) -> Tower:
    from torch import nn

    blocks = [m for parent in tower.modules() if isinstance(parent, nn.ModuleList) for m in parent]
    inside = {id(p) for block in blocks for p in block.parameters()}
    linears, _ = _split(blocks[0])
    outside = [p for p in tower.parameters() if id(p) not in inside]
    vision = config.vision_config
    # By the names that transformers' configs have for it.
    merged = round((getattr(vision, "spatial_merge_size", 1) * getattr(config, "scale_factor", 1)) ** 2)
    merged = round(merged / getattr(config, "downsample_ratio", 1) ** 2)
    image, patch = (_side(getattr(vision, name, 0)) for name in ("image_size", "patch_size"))
    patches = (image // patch) ** 2
    merged = patches // config.mm_tokens_per_image if hasattr(config, "mm_tokens_per_image") else merged
    has_class = any(name.endswith(("class_embedding", "cls_token")) for name, _ in tower.named_parameters())
    window = getattr(vision, "window_size", 0)
    return Tower(
        hidden=vision.hidden_size,
        layers=len(blocks),
        tokens=patches + has_class if image else 0,
        crop_features=patches // merged,
        patch_features=merged,
        block=sum(p.numel() for p in blocks[0].parameters()),
        block_linear=sum(linear.weights for linear in linears),
        outside=tuple(p.numel() for p in outside),
        patches_linear=max((p.numel() for p in outside if p.dim() > 3), default=0),
        window=(window // patch) ** 2 if window else 0,
        whole_blocks=len(getattr(vision, "fullatt_block_indexes", blocks)),
    )


def _side(length: int | list[int] | tuple[int, ...]) -> int:
    """Of a square that a config gives as one number or as two."""
    return length if isinstance(length, int) else length[0]
