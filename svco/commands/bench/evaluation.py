"""Pairs scored as ``svco eval`` scores them, all cells of several in one packed row, against a forward pass a text and image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.markdown import markdown
from ...basics.views import ALL_CELLS, condition, prefix_of
from ...batches.encode import EncodedPair
from ...batches.pack import PackedCollate
from ...families import HfModel
from ...model.attention import choose_backend, register
from ...model.lora import adapter_switch
from ...model.scorer import PackedScorer, Reference
from . import fused
from .padded import PaddedCollate, PaddedScorer
from .run import Plan, wait
from .shapes import Shape, SyntheticFamily, random_model, random_pairs


@dataclass(frozen=True)
class Texts:
    """A benchmark of paired images."""

    pairs: int
    """Its pairs; of NaturalBench a question is one."""
    prompt: int
    """Text tokens before an answer, template and query, of a typical pair under LLaVA-1.5."""
    response: int
    """Tokens of an answer, the end of the turn included."""


SETS = {
    "Winoground": Texts(400, prompt=22, response=13),
    "VisMin-Bench": Texts(2084, prompt=22, response=17),
    "NaturalBench": Texts(3800, prompt=36, response=2),
}
ONE_BY_ONE, PACKED = "one by one", "packed"


@dataclass
class Work:
    """What a way of scoring takes, a pair."""

    seconds: list[float] = field(default_factory=list)
    """Of each repetition: of the processor, on a GPU on the clock."""
    tokens: float = 0.0
    """Through the decoder layers."""
    images: float = 0.0
    """Through the vision tower."""
    logps: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """(P, 2, 3) float64, nats."""


def bench_evaluation(plan: Plan, world: World) -> str:
    """The report of all ``SETS``: ``plan.pairs`` pairs at a time, ``plan.repetitions`` times, the two ways in turn."""
    gpu = world.device.type == "cuda"
    dtype = torch.bfloat16 if gpu else torch.float32
    clock = "seconds" if gpu else "CPU seconds"
    rows = [["a pair", "tokens", "images", f"TFLOPs of {plan.shape}", "times fewer", clock, "times as fast"]]
    gaps = []
    for name, texts in SETS.items():
        true, cut = (
            replace(shape, prompt=texts.prompt, response=texts.response) for shape in (plan.true_shape, plan.cut_shape)
        )
        found, flops = _timed(cut, plan, dtype, world.device), _flops(true)
        slow, fast = found[ONE_BY_ONE], found[PACKED]
        gaps.append(_agree(name, slow.logps, fast.logps, rough=gpu))
        seconds = [median(work.seconds) for work in (slow, fast)]
        rows.append(
            [
                f"{name}, {texts.prompt} + {texts.response} tokens of text",
                f"{slow.tokens:,.0f} → {fast.tokens:,.0f}",
                f"{slow.images:g} → {fast.images:g}",
                f"{flops[ONE_BY_ONE] / 1e12:.3g} → {flops[PACKED] / 1e12:.3g}",
                f"{flops[ONE_BY_ONE] / flops[PACKED]:.2f}",
                f"{seconds[0]:.3g} → {seconds[1]:.3g}",
                f"{seconds[0] / seconds[1]:.2f}",
            ]
        )
    return "\n".join(
        [
            f"### Scoring all six cells of a pair: {plan.shape}, {str(dtype).removeprefix('torch.')}",
            "",
            "From one by one (a forward pass of transformers for each text under each image and under none, logits of every "
            f"position) to packed ({plan.pairs} pairs a row). Timed at the true lengths with "
            f"{plan.cut_shape.cut or 'nothing cut'}, {plan.repetitions} repetitions in turn, medians. Largest difference of a "
            f"log-probability: {max(gaps):.1e} nats.",
            "",
            markdown(rows),
        ]
    )


def _timed(shape: Shape, plan: Plan, dtype: torch.dtype, device: torch.device) -> dict[str, Work]:
    """Both ways at ``shape``: seconds, tokens and images a pair, and what they say."""
    family = SyntheticFamily(shape)
    model: Any = random_model(shape, "sdpa", dtype, device)
    model.requires_grad_(False).eval()
    backend = register(choose_backend("auto", device, dtype)[0])
    scorer = PackedScorer(family, model, Reference(), adapter_switch).to(device).eval()
    pairs = random_pairs(shape, plan.pairs, seed=0)
    batch = PackedCollate(ALL_CELLS)(pairs, family).to(device)
    pixels = [[image.to(device, dtype) for image in pair.images[:2]] for pair in pairs]
    ways: dict[str, tuple[str, Callable[[], torch.Tensor]]] = {
        ONE_BY_ONE: ("sdpa", lambda: one_by_one(model, pairs, pixels)),
        PACKED: (backend, lambda: scorer(batch)[0].logps.double().cpu()),
    }
    found = {name: Work() for name in ways}
    with torch.no_grad():
        for repetition in range(plan.repetitions + 1):
            for name, (attention, way) in ways.items():
                work = found[name]
                model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
                if repetition == 0:  # warms up, and counts
                    with _counting(model, family, work):
                        work.logps = way()
                    work.tokens, work.images = work.tokens / plan.pairs, work.images / plan.pairs
                else:
                    work.seconds.append(_seconds(way, device) / plan.pairs)
    return found


def one_by_one(model: HfModel, pairs: Sequence[EncodedPair], pixels: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """(P, 2, 3) float64 log-probabilities, nats, by a forward pass of transformers' model a cell."""
    found = torch.zeros(len(pairs), 2, 3, dtype=torch.float64)
    for p, pair in enumerate(pairs):
        for side, view in sorted(ALL_CELLS):
            shown, response = condition(side, view), torch.from_numpy(pair.text.responses[side]).to(model.device)
            prefix = torch.from_numpy(pair.text.prefixes[prefix_of(shown)]).to(model.device)
            image = {"pixel_values": pixels[p][shown][None]} if shown < len(pixels[p]) else {}
            logits: Any = model(input_ids=torch.cat([prefix, response])[None], use_cache=False, **image).logits[0]
            logps = logits[len(prefix) - 1 : -1].float().log_softmax(-1).gather(1, response[:, None])
            found[p, side, view] = logps.double().sum().cpu()
    return found


def _counting(model: HfModel, family: SyntheticFamily, work: Work) -> ExitStack:
    """Counts tokens at the first decoder layer and images at the tower while it is open."""
    parts: Any = family.parts(model)
    hooks = ExitStack()

    def at_layer(module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else keywords["hidden_states"]
        work.tokens += hidden.shape[0] * hidden.shape[1]

    def at_tower(module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        work.images += len(inputs[0] if inputs else keywords["pixel_values"])

    hooks.callback(parts.layers[0].register_forward_pre_hook(at_layer, with_kwargs=True).remove)
    hooks.callback(parts.tower.register_forward_pre_hook(at_tower, with_kwargs=True).remove)
    return hooks


def _seconds(way: Callable[[], Any], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    wait(device)
    began = clock()
    way()
    wait(device)
    return clock() - began


def _flops(shape: Shape) -> dict[str, float]:
    """FLOPs a pair at ``shape``, on the meta device: shapes without values."""
    family, meta = SyntheticFamily(shape), torch.device("meta")
    pairs = random_pairs(shape, 1, 0)
    apart = PaddedCollate(tuple((cell,) for cell in sorted(ALL_CELLS)))(pairs, family).to(meta)
    packed = PackedCollate(ALL_CELLS)(pairs, family).to(meta)
    model: Any = random_model(shape, "sdpa", torch.bfloat16, meta)
    model.requires_grad_(False).set_attn_implementation(
        dict.fromkeys(("text_config", "vision_config"), fused.register())
    )
    found = {}
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            PaddedScorer(family, model, None, adapter_switch(model))(apart)
        found[ONE_BY_ONE] = counter.get_total_flops() / 2  # it runs a reference too, which is the model again
        with FlopCounterMode(display=False) as counter:
            PackedScorer(family, model, Reference(), adapter_switch)(packed)
        found[PACKED] = float(counter.get_total_flops())
    return found


def _agree(name: str, theirs: torch.Tensor, ours: torch.Tensor, rough: bool) -> float:
    """The largest difference; UserError where it is more than rounding."""
    gap = float((ours - theirs).abs().max())
    if gap > (2e-2 if rough else 1e-4) * float(theirs.abs().max()):
        raise UserError(f"{name}: the two ways differ by {gap:.3g} nats; nothing can be compared.")
    return gap
