"""What is played on the fake GPU: a training step, an evaluation, an answer, and what ranks say to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

import tiny_families
import torch
from places import ROOT

from svco.basics.dist import World
from svco.basics.progress import silent
from svco.basics.views import CORRUPT, cells_to_evaluate
from svco.batches.loader import StepBatches
from svco.batches.split import evaluation_loader
from svco.commands.evaluation.generation import Question, ask, image_of
from svco.engine.plain import PlainEngine
from svco.model.load import Tuned, load_tuned
from svco.model.recompute import set_recompute
from svco.model.subject import load_subject
from svco.recipe.read import load_recipe
from svco.run.clock import Clock
from svco.run.job import Job, make_job
from svco.run.step import take_step
from svco.run.tally import Tally
from svco.scores.before_after import summarise
from svco.scores.pair_scores import score_pairs

from .backward import gradients
from .fake_cuda import FakeCuda
from .values import on_gpu

TUNES = ("lora", "full")
ATTENTIONS = ("sdpa", "varlen", "flash")
DTYPES = (torch.bfloat16, torch.float16)
GPU = torch.device("cuda", 0)


@dataclass
class Played:
    """What was seen."""

    operations: int = 0
    """On the GPU."""
    gradients: int = 0
    """Parameters that got one."""
    waits: dict[str, int] = field(default_factory=dict)
    """Where the host waited, and may -> how often."""
    blocking: dict[str, int] = field(default_factory=dict)
    """Where, not in svco, a copy to the GPU waits -> how often."""

    @classmethod
    def of(cls, cuda: FakeCuda, gradients: int = 0) -> Played:
        return cls(cuda.operations, gradients, dict(cuda.waits), dict(cuda.blocking))


class Base:
    """A tiny base of a family in ``folder``, with its jobs."""

    def __init__(self, name: str, folder: Path):
        self.folder = folder
        tiny_families.make_base(name, folder / "base")

    @cache  # noqa: B019 a base lives as long as its family is played
    def _job(self, tune: str) -> Job:
        keys = {
            "model.base": self.folder / "base", "model.tune": tune, "data.workers": 0, "data.cache_dir": self.folder / "kept",
            "optim.global_batch": 2, "optim.steps": 1, "evaluate.max_pairs": 2,
        }  # fmt: skip
        recipe = ROOT / "launchers" / "recipes" / "tiny.yaml"
        return make_job(load_recipe(recipe, [f"{k}={v}" for k, v in keys.items()]), World(), silent)

    def job(self, tune: str, attention: str = "auto") -> Job:
        """The tiny recipe on this base, two pairs a step."""
        job = self._job(tune)
        return replace(job, config=replace(job.config, model=replace(job.config.model, attention=attention)))

    @cache  # noqa: B019
    def reached(self, tune: str) -> set[str]:
        """Names of the parameters that get a gradient in a step on the CPU, by autograd itself."""
        job = self.job(tune)
        tuned = load_tuned(job.config, job.family, torch.float32, job.reference, torch.device("cpu"), progress=False)
        batch = next(iter(job.loader(World(), 0, None))).batches[0]
        job.objective(*tuned.scorer(batch))[0].mean().backward()
        return {name for name, p in tuned.trainable.items() if p.grad is not None}


class Engine(PlainEngine):
    """The plain engine, whose backward pass goes node by node and whose step alone may wait for the GPU."""

    def __init__(self, tuned: Tuned, job: Job, cuda: FakeCuda):
        self.cuda, self.learned = cuda, set()
        with cuda.waiting():
            super().__init__(tuned, job.config.optim, World())

    def backward(self, loss):
        super().backward(_Walked(loss))
        self.learned |= self._grads.keys()

    def step(self, lr):
        with self.cuda.waiting(1):  # "is the norm finite?": yes
            return super().step(lr)


class HalfEngine:
    """In the place of DeepSpeed, the only engine that trains float16: its loss is scaled, its optimiser is not played."""

    scaled = True
    skipped = False
    accumulation = PlainEngine.accumulation  # nothing is kept back

    def __init__(self, tuned: Tuned, job: Job, cuda: FakeCuda):
        with cuda.waiting():
            self.scorer = tuned.scorer.to(World().device)
        self.trainable = tuned.trainable

    def __call__(self, batch):
        return self.scorer(batch)

    def backward(self, loss):
        _Walked(loss * 2.0**16).backward()
        self.learned = {name for name, p in self.trainable.items() if p.grad is not None}

    def step(self, lr):
        return torch.zeros((), device=GPU)


class _Walked:
    """A loss whose backward pass is the walk."""

    def __init__(self, loss):
        self.loss = loss

    def backward(self):
        for leaf, gradient in gradients(self.loss).items():
            leaf.grad = gradient


def pinned(part: StepBatches, cuda: FakeCuda) -> StepBatches:
    """``part`` in page-locked memory; an error where a tensor of it is not."""
    made = part.pin_memory()
    for name, tensor in tensors_in(made.batches, "batches"):
        if not cuda.is_pinned(tensor):
            raise AssertionError(f"{name} of a batch is not pinned")
    moved = made.batches[0].to(GPU)
    for name, tensor in tensors_in(moved, "batch"):
        if not on_gpu(tensor):
            raise AssertionError(f"{name} of a batch stays on the host")
    return made


def tensors_in(thing, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """(path, tensor) of all tensors in dataclasses and tuples."""
    if isinstance(thing, torch.Tensor):
        yield name, thing
    elif is_dataclass(thing):
        for f in fields(thing):
            yield from tensors_in(getattr(thing, f.name), f"{name}.{f.name}")
    elif isinstance(thing, tuple):
        for n, one in enumerate(thing):
            yield from tensors_in(one, f"{name}[{n}]")


def holders(*models: torch.nn.Module) -> list[tuple[str, int]]:
    """(name, which object it is) of every parameter, under each name that it has."""
    return [(name, id(p)) for model in models for name, p in model.named_parameters(remove_duplicate=False)]


def train(base: Base, tune: str, attention: str, dtype: torch.dtype, plant=None) -> Played:
    """A step of the run: loader, pinned batch, both streams, objective, backward pass, AdamW and what is logged of it.

    The first layer is recomputed. ``plant`` is given the scorer before the step: how a control puts its mistake there.
    """
    job, cuda = base.job(tune, attention), FakeCuda()
    wanted = base.reached(tune)
    tuned = load_tuned(job.config, job.family, dtype, job.reference, GPU, progress=False)
    set_recompute(tuned.scorer.layers, 1)
    before = holders(tuned.policy, tuned.scorer)
    with cuda:
        engine = (HalfEngine if dtype == torch.float16 else Engine)(tuned, job, cuda)
        if holders(tuned.policy, tuned.scorer) != before:
            raise AssertionError("a parameter is another object than before the move, as it would not be on a GPU")
        if plant is not None:
            plant(engine.scorer)
        part = pinned(next(iter(job.loader(World(), 0, None))), cuda)
        clock, tally = Clock(World().device), Tally()
        taken = take_step(job, engine, World(), part, 1e-4, clock, tally)
        if not on_gpu(taken.norm):
            raise AssertionError("the gradient norm is not on the GPU")
        with cuda.waiting():
            tally.reduce(World())
            clock.lap(World())
    if engine.learned != wanted:
        raise AssertionError(f"others get a gradient than on the CPU: {sorted(engine.learned ^ wanted)[:4]}")
    return Played.of(cuda, len(wanted))


def evaluate(base: Base, attention: str, dtype: torch.dtype) -> Played:
    """Held-back pairs scored, every cell and the corrupted ones, and the table of them."""
    job, cuda = base.job("lora", attention), FakeCuda()
    tuned = load_tuned(job.config, job.family, dtype, job.reference, GPU, progress=False)
    split, cells = job.splits["heldout"], cells_to_evaluate({(0, CORRUPT)})
    loader = evaluation_loader(split, cells, job.family, job.config, World(), at_once=2, at_most=2)
    with cuda:
        with cuda.waiting():
            scorer = tuned.scorer.to(GPU).eval()

        def score(batch):
            with cuda.waiting(None):
                return scorer(batch)

        with cuda.waiting(-1):  # the log-probabilities that are read
            scores = score_pairs(score, loader, World())
    summarise(scores, {index: split.shards.read_text(index).contrast for index in scores.index.tolist()})
    return Played.of(cuda)


def answer(base: Base, dtype: torch.dtype) -> Played:
    """Two questions, with an image and without, answered side by side."""
    job, cuda = base.job("lora"), FakeCuda()
    shards = job.splits["heldout"].shards
    questions = [
        Question("seen", "What colour is it?", partial(image_of, shards, 0, 0)),
        Question("blind", "What colour is it?", None),
    ]
    kind = str(dtype).removeprefix("torch.")
    loaded = load_subject(
        str(base.folder / "base"), dtype=kind, device=torch.device("cpu"), attention="sdpa", progress=False, check=False
    )
    made_up = count()
    # "Have all ended?", asked after each token: after the third. Then the tokens are read.
    with cuda, cuda.waiting(lambda: int(next(made_up) > 1)):
        loaded.policy.to(GPU)
        subject = replace(loaded, device=GPU)
        (seen, blind) = ask(subject, questions, World(), max_new_tokens=3, at_once=2, show=silent, what="")
    if not (isinstance(seen, str) and isinstance(blind, str)):
        raise AssertionError("no answer")
    if (read := next(made_up)) != 3 + len(questions) * 3:
        raise AssertionError(f"{read} values were made up: more than whether all have ended and the tokens")
    return Played.of(cuda)


def speak(ranks: int = 8, extra: Callable[[], None] = lambda: None) -> FakeCuda:
    """The run's own reductions among ``ranks`` ranks of torch's fake group, whose answer is what this rank gave.

    What is pickled (``gather``, ``broadcast``) torch itself puts where the group's backend wants it: not played.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        world, cuda = World(0, ranks, 0, ranks), FakeCuda()

        def gathered(box, value):
            box[:] = [value] * len(box)

        with cuda, cuda.waiting(), patch.object(torch.distributed, "all_gather_object", gathered):
            world.highest(3)
            world.sum({"loss": torch.ones((), device=GPU), "pairs": 2})
            extra()
        return cuda
    finally:
        torch.distributed.destroy_process_group()
