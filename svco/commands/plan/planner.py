"""The plan itself: one DeepSpeed config on one machine, the largest budget that fits, and which config to use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...basics.errors import UserError
from ...model.recompute import resolve_recompute
from ...recipe.ds_config import check_swapped
from .flops import Flops, flops
from .machine import Machine
from .memory import SPARED, Host, Memory, fewest_recomputed, gpu_memory, host_memory
from .question import Question
from .sharding import Sharding
from .step_time import StepTime, Travel, step_time, travel
from .workload import Micros, divide

_STARTUP = 120.0
"""Seconds from the launcher to the first step beside reading the model: imports, kernels' first calls. An assumption."""
_DIGEST = 1.3e9
"""Bytes/s of which a rank makes the digest (SHA-256) of what it has written: launchers/results/2026-11-28_saves.md."""
_SAVES_AT_MOST = 0.05
"""Share of a run's steps that checkpoints may take before it is said how to save less often."""
_AS_QUICK = 1.1
"""Plans whose times differ by less than this factor are as quick as each other, as far as a prediction can tell."""
_QUANTIZED = 1.2
"""What a quantised plan's time is multiplied by before it is compared with others."""


@dataclass(frozen=True)
class Plan:
    """What a run needs and takes under one DeepSpeed config."""

    ds: str
    """The config."""
    machine: Machine
    """Where."""
    sharding: Sharding
    """How the config spreads the model."""
    micros: Micros
    """How a step is divided."""
    memory: Memory
    """Of one GPU."""
    host: Host
    """Of one node."""
    work: Flops
    """Of one micro-batch on one GPU."""
    travel: Travel
    """Bytes of a step."""
    time: StepTime
    """Of a step."""
    steps: int
    """Of the run."""
    load: float
    """Seconds before the first step."""
    saves: int
    """Checkpoints of the run."""
    one_save: float
    """Seconds that training stands still for one of them."""
    export: float
    """Seconds of writing the result."""
    largest_budget: int
    """The most ``optim.tokens_per_micro_batch`` that fits, with every layer recomputed; 0: not even one pair."""

    @property
    def usable(self) -> float:
        """Bytes of a GPU that the plan may fill."""
        return usable(self.machine)

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.usable

    @property
    def save(self) -> float:
        """Seconds of all checkpoints."""
        return self.saves * self.one_save

    @property
    def hours(self) -> float:
        """Of the whole run."""
        return (self.steps * self.time.total + self.load + self.save + self.export) / 3600


def usable(machine: Machine) -> float:
    """Bytes of a GPU that may be filled."""
    return machine.gpu.memory * (1 - SPARED)


def make_plan(question: Question, machine: Machine, name: str, ds: Mapping[str, Any]) -> Plan:
    """The plan of ``question`` on ``machine`` under the DeepSpeed JSON ``ds``."""
    a, tuning, config, ranks = question.architecture, question.tuning, question.config, machine.ranks
    layer = max(
        sum((*kind.vectors, *(x.weights + (0 if tuning.full else tuning.adapter(x)) for x in kind.linears)))
        for kind in (a, a.delta)
        if kind
    )
    sharding = Sharding.of(name, dict(ds), config, ranks, layer)
    check_swapped(sharding.parameters, tuning.reference)
    if sharding.group > 1 and sharding.group > machine.per_node:
        sharding = replace(sharding, group=machine.per_node)
    optim = config.optim
    micros = divide(question.pair, question.longest, optim.global_batch, ranks, optim.tokens_per_micro_batch)
    recompute = resolve_recompute(optim.recompute, a.layers)
    if recompute is None:
        recompute = fewest_recomputed(a, tuning, sharding, ranks, micros, usable(machine))
    memory, found = gpu_memory(a, tuning, sharding, ranks, micros, recompute)
    work = flops(a, tuning, micros.row, recompute, zero3=sharding.stage == 3)
    host = host_memory(a, tuning, sharding, machine.per_node, ranks, config.data.workers)
    every = config.checkpoint.every
    saves = max(1, question.steps // every) if every else 1
    writers = machine.nodes if tuning.full else 1
    return Plan(
        ds=name,
        machine=machine,
        sharding=sharding,
        micros=micros,
        memory=memory,
        host=host,
        work=work,
        travel=travel(a, tuning, sharding, machine, micros.count, found),
        time=step_time(a, tuning, sharding, machine, micros, work, found),
        steps=question.steps,
        load=_STARTUP + host.base * (2 if tuning.copied else 1) / machine.disk,
        saves=saves,
        one_save=host.checkpoint / (machine.disk * writers)
        + host.checkpoint / (_DIGEST * (ranks if tuning.full else 1)),
        export=host.export / machine.disk,
        largest_budget=_largest_budget(question, machine, sharding),
    )


def _largest_budget(question: Question, machine: Machine, sharding: Sharding) -> int:
    """Binary search in units of 256 tokens, every layer recomputed, over rows as full as the budget."""
    a, room = question.architecture, usable(machine)

    def fits(budget: float) -> bool:
        row = question.longest.times(budget / question.longest.tokens)
        memory, _ = gpu_memory(a, question.tuning, sharding, machine.ranks, Micros(1, row, row), a.layers)
        return memory.total <= room

    if not fits(question.longest.tokens):
        return 0
    low, high = 1, 2
    while fits(high * 256) and high < 2**14:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * 256) else (low, middle)
    return max(low * 256, int(question.longest.tokens))


@dataclass(frozen=True)
class Advice:
    """Which of several plans to take."""

    plan: Plan | None
    """The one; None when none fits."""
    why: str
    """In a sentence or two."""


def advise(question: Question, plans: Sequence[Plan]) -> Advice:
    """The quickest plan that fits; of those about as quick, the simplest, and then what moves the least between nodes.

    Quantisation changes what is computed, so it must be worth it: it counts as slower than it is.
    """
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        return Advice(None, _remedy(question, plans))
    quickest = min(map(_judged, fitting))
    near = [plan for plan in fitting if _judged(plan) <= _AS_QUICK * quickest]
    best = min(near, key=lambda p: (_complexity(p.sharding), p.travel.across, p.time.total))
    others = [plan for plan in plans if plan is not best]
    said = [f"{best.ds}: {best.time.total:.3g} s a step, {best.memory.total / 1e9:.0f} GB a GPU."]
    if best.machine.ranks > 1 and best.sharding.stage < 3:
        said.append("All weights fit every GPU, so none have to travel: sharding them would be pure cost.")
    elif best.sharding.group > 1:
        said.append("A node holds all weights, so they need not be gathered over the network.")
    if best.sharding.quantized_weights or best.sharding.quantized_gradients:
        said.append("It rounds what travels: compare a short run with one under zero3.")
    for plan in others:
        if not plan.fits:
            said.append(f"{plan.ds} does not fit ({plan.memory.total / 1e9:.0f} of {plan.usable / 1e9:.0f} GB).")
        else:
            said.append(f"{plan.ds} takes {plan.time.total / best.time.total:.2f} times as long.")
    said += _less_often(best)
    return Advice(best, " ".join(said))


def _less_often(plan: Plan) -> list[str]:
    """What to say of checkpoints that take much of a run; where even one does, there is nothing to be done."""
    steps = plan.steps * plan.time.total
    if plan.saves < 2 or plan.save <= _SAVES_AT_MOST * steps:
        return []
    every = math.ceil(plan.one_save / (_SAVES_AT_MOST * plan.time.total))
    rarer = f"checkpoint.every={every}" if every < plan.steps else "checkpoint.every=0, one at the end,"
    return [
        f"Its {plan.saves} checkpoints take {plan.save / 60:.1f} min beside {steps / 60:.1f} min of steps, {plan.one_save:.3g} s "
        f"each: {rarer} is enough where that much work may be lost."
    ]


def _judged(plan: Plan) -> float:
    quantized = plan.sharding.quantized_weights or plan.sharding.quantized_gradients
    return plan.time.total * (_QUANTIZED if quantized else 1.0)


def _complexity(sharding: Sharding) -> tuple[int, ...]:
    """Fewer moving parts first; quantisation, which changes results, last."""
    return (
        sharding.quantized_weights or sharding.quantized_gradients,
        sharding.parameters != "gpu" or sharding.optimizer != "gpu",
        sharding.group > 1,
        sharding.stage,
    )


def _remedy(question: Question, plans: Sequence[Plan]) -> str:
    """Why nothing fits, and what would."""
    least = min(plans, key=lambda plan: plan.memory.total)
    memory = least.memory
    said = (
        f"Nothing fits {plans[0].machine}: {least.ds} needs least, {memory.total / 1e9:.0f} of {least.usable / 1e9:.0f} GB, of "
        f"which {memory.largest} are {getattr(memory, memory.largest) / 1e9:.0f}."
    )
    roomiest = max(plans, key=lambda plan: plan.largest_budget)
    if roomiest.largest_budget:
        budget = f"optim.tokens_per_micro_batch={roomiest.largest_budget} and optim.recompute=all"
        return f"{said} {roomiest.ds} fits with {budget}."
    return f"{said} {_more_gpus(question, plans)}"


def _more_gpus(question: Question, plans: Sequence[Plan]) -> str:
    """How many more GPUs of the same kind would do under one of the configs of ``plans``: the number doubled until it fits."""
    a = question.architecture
    one_pair = Micros(1, question.longest, question.longest)
    ranks = plans[0].machine.ranks
    while ranks < 1024:
        ranks *= 2
        for plan in plans:
            memory, _ = gpu_memory(a, question.tuning, plan.sharding, ranks, one_pair, a.layers)
            if memory.total <= plan.usable:
                return f"{plan.ds} fits on {ranks} of these GPUs."
    return "No number of these GPUs up to 1,024 is enough; try --gpu with more memory."


def plan_all(
    question: Question, machine: Machine, configs: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Plan], dict[str, str]]:
    """(plans, config -> why it has none) under each of ``configs``."""
    plans, refused = [], {}
    for name, ds in configs.items():
        try:
            plans.append(make_plan(question, machine, name, ds))
        except UserError as error:
            refused[name] = str(error)
    if not plans:
        raise UserError(" ".join(dict.fromkeys(refused.values())))
    return plans, refused
