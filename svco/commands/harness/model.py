"""lmms-eval's model ``svco``: a base with an adapter, asked as ``svco eval`` asks it. The harness imports it, nothing else does.

``--model svco --model_args base=BASE,adapter=ADAPTER``, and ``dtype``, ``attention``, ``max_text_tokens`` and ``paper_compat`` as
of ``svco eval``. Prompts are those of svco's own family, so that their ids are those of training; decoding is greedy.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerate import Accelerator
from lmms_eval.api.model import lmms

from ...basics.dist import World
from ...basics.progress import shown
from ...data.pictures import as_png, decode_image
from ...model.subject import load_subject
from ..evaluation.generation import Question, ask

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_TOKENS = 1024
"""Tokens of an answer where a task names no bound."""


class Unaskable(Exception):
    """A request that is no question about one image."""


class Request(NamedTuple):
    """What one question is, as far as it can be asked."""

    question: Question | None
    """None: it cannot be asked; its answer is empty."""
    tokens: int
    """Tokens of the answer at most."""
    until: tuple[str, ...]
    """What ends the answer, and is cut off."""


class Svco(lmms):  # type: ignore[misc]
    """Base and adapter, which stay two; batched; each rank of ``accelerate launch`` holds the model and answers its share."""

    is_simple = False

    def __init__(
        self,
        base: str,
        adapter: str = "",
        dtype: str = "auto",
        attention: str = "auto",
        max_text_tokens: int = 128,
        paper_compat: bool = False,
        quantise: str = "auto",
        other_base: bool = False,
        batch_size: int | str = 1,
        **ignored: Any,
    ):
        super().__init__()
        if unknown := sorted(name for name, value in ignored.items() if name not in ("device", "max_batch_size")):
            raise ValueError(f"The model svco takes no model_args called {', '.join(unknown)}.")
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self.batch_size = 16 if batch_size == "auto" else int(batch_size)
        self.empty: Counter[str] = Counter()
        self.subject = load_subject(
            base,
            adapter or None,
            dtype=dtype,  # type: ignore[arg-type]
            attention=attention,
            max_text_tokens=int(max_text_tokens),
            paper_compat=bool(paper_compat),
            quantise=quantise,  # type: ignore[arg-type]
            device=self.device,
            progress=self._rank == 0,
            other_base=bool(other_base),
        )

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The greedy answers, in order; empty where a request cannot be asked, which is warned of and counted by its reason."""
        read = [self._read(request.args) for request in requests]
        answers = [""] * len(read)
        for tokens in sorted({request.tokens for request in read if request.question}):
            places = [place for place, request in enumerate(read) if request.question and request.tokens == tokens]
            said = ask(
                self.subject,
                [question for place in places if (question := read[place].question)],
                World(),  # the harness gave this rank its share already
                max_new_tokens=tokens,
                at_once=self.batch_size,
                show=shown(self._rank == 0),
                what="answering",
            )
            for place, answer in zip(places, said, strict=True):
                if answer is None:
                    self.empty["its image or its text cannot be read"] += 1
                answers[place] = _cut(answer or "", read[place].until)
        for reason, count in sorted(self.empty.items()):
            warnings.warn(
                f"{count} of {len(read)} requests were not asked, and their answers are empty: {reason}", stacklevel=2
            )
        self.empty.clear()
        return answers

    def _read(self, arguments: tuple[Any, ...]) -> Request:
        _, to_messages, settings, doc, task, split = arguments
        settings = dict(settings)
        tokens = int(settings.get("max_new_tokens") or DEFAULT_TOKENS)
        until = settings.get("until") or ()
        ends = (until,) if isinstance(until, str) else tuple(until)
        if settings.get("temperature") or (settings.get("num_beams") or 1) > 1:
            warnings.warn(f"{task} asks for sampling or beams: svco answers greedily", stacklevel=2)
        name = f"{task}/{doc}"
        try:
            query, image, system = _one_turn(to_messages(self.task_dict[task][split][doc]))
        except Unaskable as error:
            self.empty[str(error)] += 1
            return Request(None, tokens, ends)
        return Request(Question(name, query, partial(_rgb, image, f"the image of {name}"), system), tokens, ends)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: the image tasks of the harness generate."""
        raise NotImplementedError("The model svco answers by generation; for log-probabilities use svco eval.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: a pair has one turn."""
        raise NotImplementedError("The model svco was trained on one turn and is asked one; this task has several.")


def _one_turn(messages: Sequence[dict[str, Any]]) -> tuple[str, Image, str | None]:
    """(question, image, system prompt or None) of a chat; Unaskable for another one."""
    system: str | None = None
    texts: list[str] = []
    images: list[Image] = []
    for message in messages:
        parts = message["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        if message["role"] == "system":
            system = "\n".join(part["text"] for part in parts)
            continue
        if message["role"] != "user":
            raise Unaskable("it has several turns")
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image":
                images.append(part["url"])
            else:
                raise Unaskable(f"it has {part['type']}")
    if len(images) != 1:
        raise Unaskable("it has no image" if not images else "it has several images")
    return "\n".join(texts).strip(), images[0], system


def _rgb(image: Image, where: str) -> Image:
    """As svco reads pictures: upright, over white; BadSample."""
    return decode_image(as_png(image, where), where)


def _cut(answer: str, until: Sequence[str]) -> str:
    for end in until:
        answer = answer.split(end, 1)[0] if end else answer
    return answer.strip()
