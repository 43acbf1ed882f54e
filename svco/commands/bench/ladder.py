"""The ladder: from six separate forward passes to the product, one idea a row, every row the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...basics.views import BLIND_CONDITION, Cell, Scores, condition, prefix_of, views_of
from ...batches.encode import EncodedPair
from ...batches.pack import PackedBatch, PackedCollate, Tree, pack
from ...families import HfModel, ModelSide, Parts
from ...model.attention import register
from ...model.load import Tuned
from ...model.logprobs import ChunkedHead, TrainedLogProbHead, attach
from ...model.lora import adapter_switch, add_adapters, join_adapters
from ...model.recompute import set_recompute
from ...model.scorer import PackedScorer, Reference
from ...model.weight_names import module_name
from ...objectives.table import Objective
from ...recipe.config import Config, LoraConfig
from . import fused
from .padded import PaddedCollate, PaddedScorer, all_logits
from .shapes import Shape, SyntheticFamily, random_model, random_pairs


@dataclass(frozen=True)
class FlatCollate:
    """Every cell its own sequence with its own copy of prefix and image, one behind another: unpadded, nothing shared."""

    cells: frozenset[Cell]
    """The cells to lay out."""

    def __call__(self, pairs: Sequence[EncodedPair], family: ModelSide) -> PackedBatch:
        trees, images = [], []
        views = len(views_of(self.cells))
        for p, pair in enumerate(pairs):
            for side, view in sorted(self.cells):
                shown = condition(side, view)
                images += [] if shown == BLIND_CONDITION else [pair.images[shown]]
                branch = (pair.text.responses[side], (2 * p + side) * views + view)
                trees.append(Tree(pair.text.prefixes[prefix_of(shown)], (branch,)))
        tokens = [[len(r) for r in pair.text.responses] for pair in pairs]
        return pack(trees, family.pixels(images), tokens, [pair.weight for pair in pairs], family, views)


class SequentialScorer(PackedScorer):
    """The packed row without lockstep: the reference runs through all layers, then the policy does, HF-checkpointed."""

    vision_once = True
    """Encode each image for both models together."""
    chunked_head = True
    """Use the log-prob head; else the logits of every position."""

    @property
    def leaves(self) -> list[type[nn.Module]]:
        return [ChunkedHead] if self.chunked_head else []

    def forward(self, batch: PackedBatch) -> tuple[Scores, Scores]:
        ours, frozen = self._parts, None if self.copy is None else self.copy.parts
        with torch.no_grad():
            encoded = self.family.encode_images(ours, batch.pixels, batch.grids)
            off = nullcontext() if frozen is not None else self._everything_off()
            with off:
                reference = self._stream(batch, encoded, frozen or ours, is_policy=False)
            if not self.vision_once:
                encoded = self.family.encode_images(ours, batch.pixels, batch.grids)
        policy = self._stream(batch, encoded, ours, is_policy=True)
        return self._scores(policy, batch), self._scores(reference, batch)

    def _stream(self, batch: PackedBatch, encoded: torch.Tensor, parts: Parts, is_policy: bool) -> torch.Tensor:
        """(R,) log-probabilities of one model's whole pass."""
        ends = self if is_policy or self.copy is None else self.copy
        text = ends.embedding(batch.input_ids)
        (features,) = self.family.project(parts, encoded, batch.grids)
        hidden = text.index_copy(0, batch.image_slots, features.to(text.dtype)).unsqueeze(0)
        if is_policy and torch.is_grad_enabled() and not hidden.requires_grad:
            hidden.requires_grad_()
        arguments = {
            "position_embeddings": self.rotary(hidden, batch.position_ids[0]),
            "layout": batch.layout,
        }
        for twin in self.layers:
            layer = twin.layer if is_policy or twin.reference is None else twin.reference
            if is_policy and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, use_reentrant=False, preserve_rng_state=False, **arguments)
            else:
                hidden = layer(hidden, **arguments)
        if not self.chunked_head:
            return all_logits(ends.head.head, ends.norm(hidden)[0], batch)
        scored = ends.norm(hidden[0].index_select(0, batch.predicts))
        if isinstance(ends.head, TrainedLogProbHead):
            return ends.head(batch.targets, scored)
        derivative = is_policy and torch.is_grad_enabled()
        direction, (logps,) = ends.head(batch.targets, scored.detach(), derivative=derivative)
        return attach(scored, logps, direction) if derivative else logps


@dataclass(frozen=True)
class Row:
    """One step of the ladder."""

    name: str
    """Its name in tables."""
    idea: str
    """What it adds to the row above."""
    collate: Callable[[frozenset[Cell]], Callable[[Sequence[EncodedPair], ModelSide], Any]]
    """The objective's cells -> how pairs are laid out."""
    scorer: type[PackedScorer] | type[PaddedScorer] = PackedScorer
    """The root module."""
    features: tuple[tuple[str, bool], ...] = ()
    """Attributes of the scorer to set."""
    reference: str = "live"
    """``live``: the reference is computed in the step. ``cached``: the batch brings it."""
    recompute: bool = True
    """All layers recomputed in the backward pass, as baselines do; False: none."""
    joined: bool = False
    """A matrix and its adapter are one product; False: as peft computes them."""


def _six(cells: frozenset[Cell]) -> PaddedCollate:
    return PaddedCollate(tuple((cell,) for cell in sorted(cells)))


def _authors(cells: frozenset[Cell]) -> PaddedCollate:
    shown = tuple(cell for cell in sorted(cells) if condition(*cell) != BLIND_CONDITION)
    blind = tuple(sorted(cells - set(shown)))
    return PaddedCollate(tuple(group for group in (shown, blind) if group))


LADDER = (
    Row("six+six", "one padded forward a cell and model", _six, PaddedScorer),
    Row("authors-shaped", "a model's cells with an image in one padded forward, the others in a second", _authors,
        PaddedScorer),
    Row("+ unpadded", "all cells in one row without padding", FlatCollate, SequentialScorer,
        (("vision_once", False), ("chunked_head", False))),
    Row("+ shared prefixes", "a condition's prefix once, its responses as branches", PackedCollate, SequentialScorer,
        (("vision_once", False), ("chunked_head", False))),
    Row("+ vision once", "an image encoded once for both models", PackedCollate, SequentialScorer, (("chunked_head", False),)),
    Row("+ log-prob head", "no logits", PackedCollate, SequentialScorer),
    Row("+ lockstep", "policy and reference layer by layer, LoRA's on one gather", PackedCollate,
        features=(("narrows", False),)),
    Row("+ one product", "LoRA's matrices and the base's as one product, its last in a layer not recomputed", PackedCollate,
        features=(("narrows", False),), joined=True),
    Row("+ last layer", "of the last layer only rows that predict are asked: the product, all layers recomputed", PackedCollate,
        joined=True),
    Row("+ nothing recomputed", "the product with the dial at 0: where memory allows", PackedCollate, recompute=False,
        joined=True),
    Row("+ cached reference", "the product's policy alone, all layers recomputed", PackedCollate, reference="cached",
        joined=True),
    Row("+ cached and nothing recomputed", "both, as sweeps run", PackedCollate, reference="cached", recompute=False,
        joined=True),
)  # fmt: skip
"""For ``dpo`` the authors-shaped row is TRL's shape: chosen and rejected in one padded forward a model."""
ROWS = {row.name: row for row in LADDER}
BASELINE = "authors-shaped"
PRODUCT = "+ last layer"


def ladder(full: bool) -> tuple[Row, ...]:
    """The rows of one way of tuning: full fine-tuning has no adapters to join."""
    return tuple(row for row in LADDER if not (full and row.name == "+ one product"))


@dataclass(frozen=True)
class Tune:
    """What is trained in a benchmark."""

    full: bool
    """Full fine-tuning with a frozen copy, or LoRA on all linear layers of the language model."""
    rank: int = 64
    """LoRA's rank."""


@dataclass(frozen=True)
class Models:
    """What a row scores with."""

    policy: HfModel
    """The model that is trained, adapters inside."""
    reference: HfModel | None
    """The frozen copy of full fine-tuning, whole."""
    wrapped: Any
    """peft's wrapper, under LoRA."""


def make_models(shape: Shape, family: ModelSide, tune: Tune, dtype: torch.dtype, device: torch.device) -> Models:
    """Random models, the same weights on every call. LoRA's B is small but not 0: there the policy would be the reference."""
    policy = random_model(shape, "sdpa", dtype, device)
    parts = family.parts(policy)
    if tune.full:
        parts.tower.requires_grad_(False)
        return Models(policy, random_model(shape, "sdpa", dtype, device).requires_grad_(False), None)
    policy.requires_grad_(False)
    torch.manual_seed(1)
    config = LoraConfig(rank=min(tune.rank, shape.hidden // 8), alpha=2.0 * tune.rank)
    wrapped = add_adapters(policy, config, module_name(policy, parts.language_model), ())
    _wake(policy)
    return Models(policy, None, wrapped)


def build(row: Row, models: Models, family: ModelSide, attention: str, shared: bool = False) -> Tuned:
    """The root module of a row around ``models``. ``shared``: other rows use them too, so nothing may be taken out."""
    live = row.reference == "live"
    reference = models.reference if live else None
    scorer: Any  # for an engine they are alike
    if not issubclass(row.scorer, PackedScorer):
        scorer = row.scorer(family, models.policy, reference, adapter_switch(models.policy))
    else:
        if reference is not None and not shared:
            family.drop_tower(reference)
        stream = Reference(reference, live and models.wrapped is not None)
        scorer = row.scorer(family, models.policy, stream, adapter_switch)
        for name, value in row.features:
            setattr(scorer, name, value)
        set_recompute(scorer.layers, len(scorer.layers) if row.recompute else 0)
    tuned = Tuned(models.policy, reference, models.wrapped, scorer, attention, "")
    activate(row, tuned)
    return tuned


def activate(row: Row, tuned: Tuned) -> None:
    """Puts shared models in the row's state: whose attention, whose products, and Hugging Face's checkpointing or ours."""
    plain, counted = row.scorer is PaddedScorer, tuned.attention == fused.NAME
    join_adapters(tuned.policy, row.joined)
    for model in filter(None, (tuned.policy, tuned.reference)):
        kernels = {"text_config": "sdpa" if plain else register(tuned.attention), "vision_config": "sdpa"}
        if counted:
            kernels = dict.fromkeys(kernels, fused.register())
        if tuned.scorer.family.parts(model).tower is None:  # the frozen copy's is let go
            del kernels["vision_config"]
        model.set_attn_implementation(kernels)
        if plain:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.activation_checkpointing_disable()


def _wake(policy: nn.Module) -> None:
    """Gives LoRA's B small random values: at 0 the policy is the reference and A has no gradient."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def make_batch(row: Row, objective: Objective, pairs: Sequence[EncodedPair], family: ModelSide, reference: Any) -> Any:
    """The row's batch of ``pairs``; ``reference`` (P, 2, V) is what a cached row is given."""
    batch = row.collate(objective.cells)(pairs, family)
    return replace(batch, reference_logps=reference) if row.reference == "cached" else batch


def unique_tokens(shape: Shape, objective: Objective) -> tuple[int, int]:
    """(tokens of a packed pair, those of them that predict a scored one)."""
    batch = PackedCollate(objective.cells)(random_pairs(shape, 1, 0), SyntheticFamily(shape))
    return batch.llm_tokens, len(batch.predicts.unique())


def bench_config(tune: Tune) -> Config:
    """The default recipe for what is tuned."""
    config = Config()
    return replace(config, model=replace(config.model, tune="full" if tune.full else "lora"))
