"""One record through both stages: which requests to make, and what becomes of the replies.

A record's way is a generator: it gives the requests that it needs next and is sent their replies. So one text serves whoever asks
at once, whoever hands in batches, and whoever wants to know beforehand what there is to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

from ....basics.errors import UserError
from ....endpoint.asking import Asker
from ....endpoint.cache import Reply
from ....endpoint.client import Unanswered
from ....endpoint.request import Request, make_request
from ..images import Roots
from ..records import Record
from .checks import faults
from .prompts import NEEDED, Prompts, Stage
from .replies import read_answer, read_answers, read_question

STAGE = "rewrite"
"""The name under which a record keeps what was done to it."""
_CUT = "length"


@dataclass(frozen=True)
class Outcome:
    """What became of a record."""

    source: Record
    """As it came."""
    record: Record | None = None
    """Rewritten; None where it is rejected."""
    reasons: tuple[tuple[str, str], ...] = ()
    """Why it is: (reason, what was found), of the last turn."""
    said: tuple[str, ...] = ()
    """What the model said, turn by turn."""


Steps = Generator[list[Request], list[Reply], Outcome]


class Rewriter:
    """Rewrites records by ``prompts`` through the model of that name, at most ``turns`` times each."""

    def __init__(self, prompts: Prompts, model: str, roots: Roots | None, turns: int = 2):
        self.prompts, self.model, self.roots = prompts, model, roots
        stages = [stage for stage in (prompts.question, prompts.answers) if stage]
        # At temperature 0 another turn would pay for the same reply.
        self.turns = 1 if all(stage.parameters.get("temperature") == 0 for stage in stages) else turns
        if roots is None and any(stage.images for stage in stages):
            raise UserError(f"The prompts {prompts.name} send the pictures along: give their folder with --images.")
        named = set[str]().union(*(stage.names for stage in stages))
        self.needed = [name for name in NEEDED if name in named]

    def steps(self, record: Record) -> Steps:
        """The requests of ``record``, some at a time, each list sent the replies to it; at last what became of the record."""
        if lacking := self._lacking(record):
            return Outcome(record, None, (("lacks", lacking),))
        said: list[str] = []
        reasons: list[tuple[str, str]] = []
        models: dict[str, str] = {}
        for turn in range(self.turns):
            question = record.query
            try:
                if self.prompts.question:
                    replies = yield [self.question_request(record, turn)]
                    said += [reply.text for reply in replies]
                    question = read_question(_whole(replies[0]))
                    models["question"] = replies[0].model
                replies = yield self.answer_requests(record, question, turn)
                said += [reply.text for reply in replies]
                answers = self._answers([_whole(reply) for reply in replies])
                models["answers"] = replies[0].model
            except ValueError as error:
                reasons = [("bad-reply", str(error))]
                continue
            reasons = faults(question, answers, captions_of(record), self.prompts.rules)
            if not reasons:
                made = rewritten(record, question, answers, self._provenance(models, replies[0].at, turn))
                return Outcome(record, made, (), tuple(said))
        return Outcome(record, None, tuple(reasons), tuple(said))

    def question_request(self, record: Record, turn: int) -> Request:
        """The request of the first stage."""
        assert self.prompts.question
        return self._request(self.prompts.question, record, "", turn, None)

    def answer_requests(self, record: Record, question: str, turn: int) -> list[Request]:
        """Those of the second: one, or one for each side."""
        stage = self.prompts.answers
        sides = (None,) if stage.each == "pair" else (0, 1)
        return [self._request(stage, record, question, turn, side) for side in sides]

    def _request(self, stage: Stage, record: Record, question: str, turn: int, side: int | None) -> Request:
        first, second = captions_of(record) or ("", "")
        values = {
            "caption_0": first,
            "caption_1": second,
            "query": record.query,
            "instruction": record.instruction or "",
            "question": question,
            "type": record.type,
            "kind": record.kind or record.type,
        }
        if side is not None:
            values |= {"caption": (first, second)[side], "other": (second, first)[side]}
        system, user = stage.filled(values)
        shown = () if not stage.images else record.images if side is None else (record.images[side],)
        return make_request(self.model, system, user, [self._picture(path) for path in shown], stage.parameters, turn)

    def _picture(self, path: str) -> bytes:
        assert self.roots
        return (self.roots / path).read_bytes()

    def _answers(self, texts: list[str]) -> tuple[str, str]:
        if len(texts) == 1:
            return read_answers(texts[0])
        first, second = (read_answer(text, self.prompts.answers.reply) for text in texts)
        return first, second

    def _lacking(self, record: Record) -> str:
        """What the prompts want of ``record`` and it does not have."""
        captions = captions_of(record) is not None
        has = {"query": bool(record.query), "instruction": bool(record.instruction)}
        lacking = [name for name in self.needed if not has.get(name, captions)]
        if self.prompts.question is None and not record.query:
            lacking.append("query")
        if self.roots and any(stage and stage.images for stage in (self.prompts.question, self.prompts.answers)):
            lacking += [path for path in record.images if not self.roots.find(path)]
        return ", ".join(dict.fromkeys(lacking))

    def _provenance(self, models: dict[str, str], at: str, turn: int) -> dict[str, object]:
        told = {"backend": "endpoint", "asked": self.model, "answered": models, "turn": turn, "at": at}
        return told | {"prompts": Path(self.prompts.name).name, "prompts_sha256": self.prompts.digest}


def captions_of(record: Record) -> tuple[str, str] | None:
    """What is known of each picture: the source's captions, else the answers that the record came with."""
    return record.captions or (record.responses if record.written else None)


def rewritten(record: Record, question: str, answers: tuple[str, str], provenance: dict[str, object]) -> Record:
    """``record`` with this question and these answers, and under its stages how they came about and what was there before."""
    before: dict[str, object] = {}
    if record.written:
        before = {"query": record.query, "responses": list(record.responses)}
    stage = provenance | ({"before": before} if before else {})
    return replace(record, query=question, responses=answers, stages={**record.stages, STAGE: stage})


def _whole(reply: Reply) -> str:
    if reply.finish == _CUT:
        raise ValueError("the reply was cut at its bound of tokens")
    return reply.text


def through(steps: Steps, source: Record, ask: Asker) -> Outcome:
    """The end of ``steps``, every request asked."""
    try:
        requests = next(steps)
        while True:
            requests = steps.send([ask(request) for request in requests])
    except StopIteration as done:
        return done.value
    except Unanswered as error:
        return Outcome(source, None, (("no-reply", str(error)),))


def as_far_as_known(steps: Steps, known: Callable[[Request], Reply | None]) -> tuple[list[Request], list[Request]]:
    """(requests whose replies are known, those needed next and not known; empty at the end of the record's way)."""
    had: list[Request] = []
    try:
        requests = next(steps)
        while True:
            replies = [known(request) for request in requests]
            if None in replies:
                had += [request for request, reply in zip(requests, replies) if reply]
                return had, [request for request, reply in zip(requests, replies) if not reply]
            had += requests
            requests = steps.send([reply for reply in replies if reply])
    except StopIteration:
        return had, []
