"""Lets a model answer: greedily, with transformers' own ``generate``, many prompts side by side, each rank its share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...basics.dist import World
from ...basics.errors import BadSample
from ...basics.progress import Progress
from ...data.pairs import PairText
from ...data.pictures import decode_image
from ...data.shards import ShardSet
from ...model.subject import Subject
from ...tiny_world.truth import false_words

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Question:
    """A question about an image, or about none."""

    key: str
    """What messages call it."""
    query: str
    """What is asked."""
    image: Callable[[], Image] | None
    """Opens the image, RGB; BadSample if it cannot be decoded. None: it is asked without one."""
    system: str | None = None
    """System prompt, or None."""


def ask(
    subject: Subject,
    questions: Sequence[Question],
    world: World,
    *,
    max_new_tokens: int,
    at_once: int,
    show: Progress,
    what: str,
) -> list[str | None]:
    """The answers in the order of ``questions``, on every rank; None where a question cannot be asked. A collective.

    Prompts are those that are scored, padded on the left. Every rank answers every ``world.size``-th batch.
    """
    batches = [range(start, min(start + at_once, len(questions))) for start in range(0, len(questions), at_once)]
    mine: dict[int, str | None] = {}
    for batch in show(batches[world.rank :: world.size], what):
        prepared = {}
        for place in batch:
            try:
                opened = questions[place].image
                image = opened and opened()
                text = PairText(questions[place].key, questions[place].query, ("", ""), system=questions[place].system)
                prepared[place] = (subject.family.prompt(text, image and image.size), image)
            except BadSample:
                mine[place] = None
        if prepared:
            prompts, images = zip(*prepared.values())
            mine |= dict(zip(prepared, generate(subject, prompts, images, max_new_tokens), strict=True))
    answers: dict[int, str | None] = {}
    for part in world.gather(mine):
        answers |= part
    return [answers[place] for place in range(len(questions))]


def generate(
    subject: Subject, prompts: Sequence[np.ndarray], images: Sequence[Image | None], max_new_tokens: int
) -> list[str]:
    """The greedy continuation of each of P prompts (1-D int64, a placeholder a feature) about its image, if it has one."""
    import torch

    family, longest = subject.family, max(map(len, prompts))
    ids = torch.full((len(prompts), longest), subject.family.ends[0])
    attended = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        attended[row, longest - len(prompt) :] = 1
    inputs = {"input_ids": ids, "attention_mask": attended}
    if pictures := [image for image in images if image is not None]:
        inputs |= family.shown(family.pixels(pictures), family.image_token_mask(ids))
        inputs["pixel_values"] = inputs["pixel_values"].to(subject.dtype)
    inputs = {name: value.to(subject.device) for name, value in inputs.items()}
    with subject.answering() as model, torch.no_grad():
        made = model.generate(**inputs, max_new_tokens=max_new_tokens)
    return [family.decode(row) for row in made[:, longest:].tolist()]


def answer_set(
    subject: Subject,
    shards: ShardSet,
    indices: Sequence[int],
    world: World,
    *,
    max_new_tokens: int,
    at_once: int,
    show: Progress,
) -> list[dict[str, Any]]:
    """What the model answers to the query of each pair of ``indices`` under both images, as ``NAME.answers.jsonl`` has it.

    ``false``: the words of an answer that are not so in the image's scene, where the pair's facts tell the scene, else None.
    """
    texts = [shards.read_text(index) for index in indices]
    questions = [
        Question(text.key, text.query, partial(image_of, shards, index, side), text.system)
        for index, text in zip(indices, texts, strict=True)
        for side in (0, 1)
    ]
    answers = ask(
        subject, questions, world, max_new_tokens=max_new_tokens, at_once=at_once, show=show, what="answering"
    )
    lines = []
    for place, answer in enumerate(answers):
        text, side = texts[place // 2], place % 2
        if answer is not None:
            lines.append(
                {
                    "key": text.key,
                    "side": side,
                    "query": text.query,
                    "response": text.responses[side],
                    "answer": answer,
                    "false": _false(text, side, answer),
                }
            )
    return lines


def image_of(shards: ShardSet, index: int, side: int) -> Image:
    """The image of ``side`` of pair ``index``, RGB; BadSample if it cannot be read."""
    pair = shards.read(index)
    return decode_image(pair.images[side], f"sample {pair.text.key!r}: image {side}")


def _false(text: PairText, side: int, answer: str) -> list[str] | None:
    """Facts are free form: only scenes as the embedded world writes them can be judged."""
    try:
        return false_words(answer, text.facts["scenes"][side], text.query)
    except (KeyError, IndexError, TypeError):
        return None
