"""The plan's figures against what is counted: FLOPs and tensors of a step, and under ZeRO-3 what ranks hold and exchange."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...model.recompute import set_recompute
from ...objectives.table import make_objective
from ...recipe.config import LoraConfig, ObjectiveConfig
from ..plan.activations import Gradients, Kernels, activations
from ..plan.architecture import Architecture, of_config
from ..plan.flops import flops
from ..plan.workload import Row, Tuning, pair_row
from . import fused
from .count import LiveBytes
from .ladder import PRODUCT, ROWS, Tune, build, make_batch, make_models
from .shapes import SHAPES, Shape, SyntheticFamily, llava_config, random_pairs

SVCO = make_objective(ObjectiveConfig())
BOUNDS = {"memory": 0.10, "traffic": 0.02, "flops": 0.01}
"""How far a prediction of each kind may be off, as a share."""
BILLION = Shape(2048, 5632, 16, 16, 4, 32064, image=112, prompt=20, response=30, cut="about 1B")
"""A model of about a billion weights with grouped keys and small images, which two CPU cores can train."""


@dataclass(frozen=True)
class Case:
    """A step to count."""

    name: str
    """For the table."""
    shape: Shape
    """Of the model."""
    full: bool
    """Full fine-tuning or LoRA."""
    recompute: int
    """Layers recomputed."""
    dtype: str = "bfloat16"
    """Of the weights."""
    pairs: int = 1
    """Pairs of the micro-batch."""
    real: bool = False
    """Real tensors on the CPU, with its attention kernel; else shapes only, with a fused one's."""


def _cut(name: str, layers: int) -> Shape:
    return replace(SHAPES[name], layers=layers)


CASES = (
    Case("tiny, LoRA", SHAPES["tiny"], False, 4, "float32", 4),
    Case("tiny, full", SHAPES["tiny"], True, 2, "float32", 4),
    Case("7B, LoRA", SHAPES["llava15-7b"], False, 32),
    Case("7B, LoRA, half recomputed", SHAPES["llava15-7b"], False, 16, pairs=4),
    Case("7B, full", SHAPES["llava15-7b"], True, 32, pairs=2),
    Case("13B, LoRA, none recomputed", SHAPES["llava15-13b"], False, 0),
    Case("34B at 8 layers, LoRA", _cut("llava16-34b", 8), False, 4, pairs=2),
    Case("34B at 8 layers, full", _cut("llava16-34b", 8), True, 8),
    Case("1B, LoRA, on a CPU", BILLION, False, 8, real=True),
    Case("0.5B, full, on a CPU", replace(BILLION, layers=6), True, 3, real=True),
)
"""Counted in one process."""


@dataclass(frozen=True)
class Compared:
    """One quantity of one case."""

    case: str
    """Its name."""
    quantity: str
    """What was counted."""
    kind: str
    """``memory``, ``traffic`` or ``flops``."""
    planned: float
    """What the plan says."""
    counted: float
    """What was counted."""

    @property
    def off(self) -> float:
        """The plan's deviation, as a share of what was counted."""
        return self.planned / self.counted - 1

    @property
    def passed(self) -> bool:
        return abs(self.off) <= BOUNDS[self.kind]

    def cells(self) -> list[str]:
        """Its line in the table: case, quantity, planned, counted, off by."""
        unit, by = ("TFLOP", 1e12) if self.kind == "flops" else ("MB", 1e6)
        verdict = "" if self.passed else " **too far off**"
        planned, counted = f"{self.planned / by:,.5g}", f"{self.counted / by:,.5g}"
        return [self.case, f"{self.quantity}, {unit}", planned, counted, f"{self.off:+.2%}{verdict}"]

    def __str__(self) -> str:
        return " | ".join(self.cells())


def described(case: Case) -> tuple[Architecture, Tuning, Row]:
    """The case in the plan's words."""
    shape, weights = case.shape, {"float32": 4, "bfloat16": 2}[case.dtype]
    a = of_config(llava_config(shape))
    rank = 0 if case.full else min(Tune(False).rank, shape.hidden // 8)
    reference = "frozen-copy" if case.full else "lockstep"
    tuning = Tuning(case.full, rank, LoraConfig().targets, case.full, reference, weights)
    shown = shape.prompt + shape.features
    pair = pair_row(SVCO.cells, (shown, shown, shape.prompt), (shape.response,) * 2, shape.features)
    return a, tuning, pair.times(case.pairs)


def staying(a: Architecture, tuning: Tuning) -> Gradients:
    """Gradients without ZeRO: all stay until the step's end."""
    b = tuning.weight_bytes
    if not tuning.full:
        return Gradients(layer=b * tuning.adapters(a))
    start = a.projector_weights + (0 if a.tied else a.embedding)
    return Gradients(b * a.layer, b * a.linears[-1].weights, b * (a.embedding + a.norm), b * start)


def check(case: Case) -> list[Compared]:
    """A step of ``case`` without an engine, against its plan."""
    a, tuning, row = described(case)
    kernels = Kernels(dense=case.real, widened_head=True)
    made = activations(a, tuning, row, case.recompute, kernels)
    found = count_case(case)
    gradients = staying(a, tuning)
    figures = [
        ("weights", "memory", tuning.weight_bytes * tuning.held(a), found["weights"]),
        ("kept for the backward pass", "memory", made.kept, found["kept"]),
        ("peak of the backward pass", "memory", made.backward_peak(gradients), found["backward"]),
        ("peak of the step", "memory", made.peak(gradients), found["peak"]),
    ]
    if case.real:
        figures.append(("kept by one layer", "memory", made.layer, found["layer"]))
    else:  # torch's counter knows no FLOPs of the CPU's attention
        work = flops(a, tuning, row, case.recompute, zero3=False)
        figures.append(("a step", "flops", work.total, found["flops"]))
    return [Compared(case.name, *figure) for figure in figures]


def count_case(case: Case) -> dict[str, float]:
    """Bytes and FLOPs of one step, by torch's own hooks and counters."""
    device, dtype = torch.device("cpu" if case.real else "meta"), getattr(torch, case.dtype)
    family = SyntheticFamily(case.shape)
    models = make_models(case.shape, family, Tune(case.full), dtype, device)
    tuned = build(ROWS[PRODUCT], models, family, "sdpa" if case.real else fused.NAME)
    scorer = tuned.scorer
    scorer.train()
    set_recompute(scorer.layers, case.recompute)
    batch = make_batch(ROWS[PRODUCT], SVCO, random_pairs(case.shape, case.pairs, 0), family, None).to(device)
    parameters = list(scorer.parameters())
    held = [*parameters, *tuned.policy.buffers(), *(v for v in vars(batch).values() if isinstance(v, torch.Tensor))]
    batch.layout.blocks  # noqa: B018 (made once for all layers)
    live = LiveBytes(iter(held), case.shape)
    with live:
        loss = SVCO(*scorer(batch))[0].mean()
        forward, kept = live.peak, sum(live.held().values())
        live.peak = 0
        loss.backward()
    found: dict[str, float] = {
        "weights": sum(p.numel() * p.element_size() for p in parameters),
        "kept": kept,
        "backward": live.peak,
        "peak": max(forward, live.peak),
    }
    if case.real:  # tensors without values cannot be told apart by their places in memory
        scorer.saved.wanted = True
        scorer(batch)
        found["layer"] = scorer.saved.per_token * batch.llm_tokens
    for parameter in tuned.trainable.values():
        parameter.grad = None
    if not case.real:
        set_recompute(scorer.layers, case.recompute)
        with FlopCounterMode(display=False) as counter:
            SVCO(*scorer(batch))[0].mean().backward()
        found["flops"] = counter.get_total_flops()
    return found
