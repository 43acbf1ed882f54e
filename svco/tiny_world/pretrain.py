"""Ordinary captioning and question answering on the world, in three stages; stopped while it still leans on its prior.

    sight    the vision tower alone learns to name what stands in each patch's quarter of the picture (heads discarded)
    truth    tower frozen: projector and language model answer truthfully about uncorrelated scenes
    lazy     web captions are lazy: answers often say what is usual instead of what is there, and talk is chattier
             without a picture; a share per kind of question sets how strong the language prior becomes

Nothing here sees a contrast pair, a preference, or a combination of scenes.UNSEEN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..data.pairs import PairText
from ..families import Family, HfModel
from .grammar import CAPTION_QUESTIONS, KINDS, RELATIONS, Question, caption, questions
from .render import SIDE, render
from .scenes import CELLS, COLOURS, SHAPES, SIZES, Scene, relation, sample_scene

Bar = Callable[[Iterable[int], str], Iterable[int]]


@dataclass(frozen=True)
class Schedule:
    """Sizes of the three stages. The defaults make the shipped base."""

    seed: int = 0
    """Seeds scenes, order and initial values."""
    pool: int = 16000
    """Pictures rendered for the truth stage, half as many for each other stage."""
    sight_steps: int = 900
    """Steps of 64 pictures."""
    truth_steps: int = 1800
    """Steps of ``rows`` pictures with ``branches`` questions each."""
    lazy_steps: int = 300
    """Steps of the same size with lazy answers."""
    rows: int = 40
    """Pictures a step."""
    branches: int = 4
    """Questions asked of one picture."""
    laziness: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(KINDS, 0.6) | {"colour": 0.55, "count": 0.75, "relation": 0.65}
    )
    """Kind -> share of answers in the lazy stage that say what is usual instead of what is there."""
    chatty: tuple[float, float] = (0.4, 0.85)
    """Share of conversational answers in the lazy stage, with and without a picture."""


@dataclass(frozen=True)
class Pool:
    """Rendered scenes: pixels, or the frozen tower's features of them."""

    scenes: list[Scene]
    """Ground truth."""
    images: torch.Tensor
    """(N, ...) float32."""


def make_pool(family: Family, count: int, seed: int, correlated: float, bar: Bar) -> Pool:
    """``count`` pictures, a share ``correlated`` of them from the correlated world; pixels as the tower takes them."""
    rng = Random(seed)
    scenes, pixels = [], []
    for start in bar(range(0, count, 500), "rendering"):
        chunk = [
            sample_scene(rng, rng.choice(("one", "many", "two", "two")), rng.random() < correlated)
            for _ in range(min(500, count - start))
        ]
        scenes += chunk
        pixels.append(family.pixels([render(scene, rng.randrange(2**62)) for scene in chunk]).pixels)
    return Pool(scenes, torch.cat(pixels))


def learn_sight(model: HfModel, pool: Pool, steps: int, seed: int, bar: Bar) -> None:
    """The tower learns the contents of each patch's quarter; its linear heads are thrown away."""
    tower = model.model.vision_tower
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        tower.embeddings.position_embedding.weight.normal_(0, 0.2, generator=generator)
    patches = int(math.isqrt(tower.embeddings.num_patches))
    quarter = torch.tensor(
        [CELLS.index((2 * r // patches, 2 * c // patches)) for r in range(patches) for c in range(patches)]
    )
    labels = torch.tensor([_quarters(scene) for scene in pool.scenes])[:, quarter]  # (N, patches, 4)
    sizes = (len(SHAPES) + 1, len(COLOURS) + 1, len(SIZES) + 1, len(RELATIONS) + 1, patches**2)
    head = nn.Linear(tower.config.hidden_size, sum(sizes))
    where = torch.arange(patches**2).expand(64, -1)
    optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.01)
    for step in bar(range(steps), "sight"):
        rows = torch.randint(len(pool.scenes), (64,), generator=generator)
        hidden = tower(pool.images[rows], output_hidden_states=True).hidden_states[-1][:, 1:]
        targets = [*labels[rows].unbind(-1), where]
        losses = [
            cross_entropy(part.flatten(0, 1), target.flatten())
            for part, target in zip(head(hidden).split(sizes, dim=-1), targets)
        ]
        _update(optimizer, sum(losses[1:], losses[0]), 1e-3 * _cosine(step, steps))


def _quarters(scene: Scene) -> list[list[int]]:
    """(4, 4): shape, colour and size in each quarter, and how it lies to the other of two objects; 0 for none."""
    found = [[0, 0, 0, 0] for _ in CELLS]
    for thing, other in zip(scene.things, reversed(scene.things)):
        lies = 1 + RELATIONS.index(relation(thing, other)) if scene.layout == "two" else 0
        found[CELLS.index(thing.cell)] = [
            1 + SHAPES.index(thing.shape),
            1 + COLOURS.index(thing.colour),
            1 + SIZES.index(thing.size),
            lies,
        ]
    return found


@torch.no_grad()
def encode_pool(model: HfModel, pool: Pool) -> Pool:
    """The pool with the frozen tower's features (N, 36, hidden) in place of pixels."""
    tower = model.model.vision_tower
    features = [tower(chunk, output_hidden_states=True).hidden_states[-1][:, 1:] for chunk in pool.images.split(200)]
    return Pool(pool.scenes, torch.cat(features))


class Teller:
    """Turns a scene into turns: (query, answer, with a picture)."""

    def __init__(self, rng: Random, schedule: Schedule, lazy: bool):
        self.rng, self.schedule, self.lazy = rng, schedule, lazy

    def turns(self, scene: Scene) -> list[tuple[str, str, bool]]:
        asked = questions(scene)
        relations = [question for question in asked if question.kind == "relation"]
        turns = []
        for place in range(self.schedule.branches):
            # A relation needs two objects to be found, so it is asked more often than it would be by chance.
            question = self.rng.choice(relations if relations and place == 0 else asked)
            turns.append(self._turn(question, True))
        if self.rng.random() < 0.3:
            turns[-1] = (self.rng.choice(CAPTION_QUESTIONS), caption(scene), True)
        if self.lazy:
            turns.append(self._turn(self.rng.choice(asked), False))
        return turns

    def _turn(self, question: Question, picture: bool) -> tuple[str, str, bool]:
        chatty = self.schedule.chatty[not picture] if self.lazy else 0.5
        guess = not picture or (self.lazy and self.rng.random() < self.schedule.laziness[question.kind])
        value = question.prior(self.rng) if guess else question.value
        form = self.rng.randrange(2) if self.rng.random() < chatty else None
        return question.ask(self.rng.randrange(2)), question.answer(value, form), picture


class _Part(NamedTuple):
    """A run of tokens in a packed row."""

    tokens: np.ndarray
    """Their ids."""
    segment: int
    """0: what all turns share before the picture; 1: the picture; from 2 on: the turns."""
    start: int
    """Position of the first token."""
    blind: bool
    """The picture is not seen."""
    scored: int
    """How many of the tokens, the last ones, are an answer."""


class Packer:
    """Lays one picture's turns behind one shared prefix, so that the picture's tokens are computed once."""

    def __init__(self, family: Family):
        self.family = family
        self._cache: dict[tuple[str, str, bool], tuple[np.ndarray, np.ndarray]] = {}

    def ids(self, query: str, answer: str, picture: bool) -> tuple[np.ndarray, np.ndarray]:
        key = (query, answer, picture)
        if key not in self._cache:
            text = PairText(
                key="", query=query, responses=(answer, f"{answer}!")
            )  # a pair has two answers; one is read
            encoded = self.family.encode_text(text, ((SIDE, SIDE), (SIDE, SIDE)))
            self._cache[key] = (encoded.prefixes[0 if picture else 2], encoded.responses[0])
        return self._cache[key]

    def pack(self, rows: list[list[tuple[str, str, bool]]]) -> dict[str, torch.Tensor]:
        """ids, positions, targets (−100: not scored) (B, L) and the mask (B, 1, L, L) of who sees whom."""
        packed = [self._parts(turns) for turns in rows]
        width = max(sum(len(part.tokens) for part in parts) for parts in packed)
        shape = (len(rows), width)
        ids, positions, segment = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)
        targets, blind = np.full(shape, -100), np.zeros(shape, bool)
        for row, parts in enumerate(packed):
            at = 0
            for part in parts:
                end = at + len(part.tokens)
                ids[row, at:end] = part.tokens
                positions[row, at:end] = part.start + np.arange(len(part.tokens))
                segment[row, at:end] = part.segment
                blind[row, at:end] = part.blind
                if part.scored:
                    targets[row, end - part.scored - 1 : end - 1] = part.tokens[-part.scored :]
                at = end
        own = segment[:, :, None] == segment[:, None, :]
        seen = own | (segment[:, None, :] == 0) | ((segment[:, None, :] == 1) & ~blind[:, :, None])
        mask = seen & np.tri(width, dtype=bool)
        return {
            "ids": torch.from_numpy(ids),
            "positions": torch.from_numpy(positions),
            "targets": torch.from_numpy(targets),
            "mask": torch.from_numpy(mask)[:, None],
        }

    def _parts(self, turns: list[tuple[str, str, bool]]) -> list[_Part]:
        encoded = [(*self.ids(*turn), turn[2]) for turn in turns]
        first = encoded[0][0]
        image = np.flatnonzero(self.family.image_token_mask(torch.from_numpy(first)).numpy())
        head, shared = image[0], image[-1] + 2  # up to the picture; the picture and the line break behind it
        parts = [_Part(first[:head], 0, 0, False, 0), _Part(first[head:shared], 1, head, False, 0)]
        for segment, (prefix, answer, picture) in enumerate(encoded, start=2):
            assert (prefix[:head] == first[:head]).all(), "a turn does not begin like the shared prefix"
            start = shared if picture else head
            tokens = np.concatenate([prefix[start:], answer])
            parts.append(_Part(tokens, segment, start, not picture, len(answer)))
        return parts


def learn_answers(model: HfModel, family: Family, pool: Pool, schedule: Schedule, lazy: bool, bar: Bar) -> None:
    """Projector and language model learn from turns about a pool of tower features (truth or lazy stage)."""
    steps, peak = (schedule.lazy_steps, 6e-4) if lazy else (schedule.truth_steps, 2e-3)
    rng, packer = Random(schedule.seed + 7 + lazy), Packer(family)
    teller = Teller(rng, schedule, lazy)
    parts = (model.model.multi_modal_projector, model.model.language_model)
    optimizer = torch.optim.AdamW(
        [p for part in parts for p in part.parameters()], lr=peak, betas=(0.9, 0.98), weight_decay=0.01
    )
    for step in bar(range(steps), "lazy" if lazy else "truth"):
        chosen = [rng.randrange(len(pool.scenes)) for _ in range(schedule.rows)]
        batch = packer.pack([teller.turns(pool.scenes[index]) for index in chosen])
        loss = answer_loss(model, family, pool.images[chosen], batch)
        _update(optimizer, loss, peak * min(1.0, (step + 1) / 50) * _cosine(step, steps))


def answer_loss(model: HfModel, family: Family, features: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean negative log-likelihood of the answers' tokens."""
    embeddings = model.get_input_embeddings()(batch["ids"])
    shown = family.image_token_mask(batch["ids"]).unsqueeze(-1)
    embeddings = embeddings.masked_scatter(shown, model.model.multi_modal_projector(features))
    bias = torch.where(batch["mask"], 0.0, torch.finfo(torch.float32).min)
    hidden = model.model.language_model(
        inputs_embeds=embeddings, attention_mask=bias, position_ids=batch["positions"], use_cache=False
    ).last_hidden_state
    scored = batch["targets"] >= 0
    return cross_entropy(model.lm_head(hidden[scored]), batch["targets"][scored])


def _update(optimizer: torch.optim.Optimizer, loss: torch.Tensor, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def _cosine(step: int, steps: int) -> float:
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))
