"""Prompts, as files that people read and change, and the digest by which a pair says which it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....basics.errors import UserError, nearest
from ....endpoint.prompt import Prompt, check_prompt, digest_of, read_yaml

FOLDER = Path(__file__).with_name("prompts")
"""The files that come with svco."""
CHECKS = "checks"
TEMPLATE = "template"
NEEDED = ("caption", "other", "caption_0", "caption_1", "query", "instruction")
"""What a prompt may name and a record may lack."""
KNOWN = (*NEEDED, "question", "type", "kind")


@dataclass(frozen=True)
class Rules:
    """What a question and its answers must keep to."""

    question_words: tuple[int, int]
    """At least and at most."""
    answer_words: tuple[int, int]
    """Likewise, of each answer."""
    shared: float
    """Share of an answer's words that the other one has, too."""
    grounded: bool
    """Whether an answer must have a word that what is known of its picture alone has."""
    meta: tuple[str, ...]
    """Words that speak of the making rather than of the picture."""
    refusals: tuple[str, ...]
    """Words of an answer that is none."""


@dataclass(frozen=True)
class Stage(Prompt):
    """One kind of request."""

    images: bool = False
    """Whether the pictures go along."""
    each: str = "pair"
    """``pair``: one request a pair; ``side``: one for each side."""
    reply: str = "json"
    """``json``, or ``text``: the whole reply is what was asked for."""


@dataclass(frozen=True)
class Prompts:
    """One file of prompts."""

    name: str
    """As it was asked for."""
    question: Stage | None
    """None: the record's own question stays."""
    answers: Stage
    """How both answers are asked for."""
    rules: Rules
    """What they must keep to."""
    tree: Mapping[str, Any]
    """All of it, as read."""

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a request and what becomes of its reply."""
        return digest_of(self.tree)


def read_prompts(name: str) -> Prompts:
    """The prompts of that name, or in that file; UserError for a file that has none, naming what is wrong in it."""
    tree, where = read_tree(name)
    if unknown := sorted(tree.keys() - {"question", "answers", "checks"}):
        raise UserError(f"{where} has {unknown[0]!r}; a file of prompts has question, answers and checks.")
    if not {"question", "answers"} <= tree.keys():
        raise UserError(
            f"{where} must have question (or question: keep) and answers; {FOLDER}/captions.yaml shows both."
        )
    keep = tree["question"] == "keep"
    question = None if keep else _stage(tree["question"], f"{where}: question", {"question"})
    answers = _stage(tree["answers"], f"{where}: answers", set())
    if question and (question.each, question.reply) != ("pair", "json"):
        raise UserError(f"{where}: question: it is asked once a pair and replied to in JSON; leave out each and reply.")
    if answers.each == "pair":
        if answers.reply == "text":
            raise UserError(
                f"{where}: answers: reply: text is for each: side; of two answers in one text none is certain."
            )
        if found := answers.names & {"caption", "other"}:
            raise UserError(
                f"{where}: answers: ${found.pop()} is for each: side; here it is $caption_0 and $caption_1."
            )
    return Prompts(name, question, answers, make_rules(tree["checks"], where), tree)


def read_tree(name: str) -> tuple[dict[str, Any], str]:
    """(what the file of that name or path holds, with all of its ``checks``; the file's path)."""
    shipped = {file.stem: file for file in FOLDER.glob("*.yaml") if file.stem != CHECKS}
    file = Path(name)
    if not file.is_file():
        if name not in shipped:
            known = sorted(shipped.keys() - {TEMPLATE})
            raise UserError(
                f"There is no file of prompts {name}.{nearest(name, known)} To write your own, copy one: "
                f"cp {FOLDER}/captions.yaml mine.yaml"
            )
        file = shipped[name]
    checks, tree = read_yaml(FOLDER / f"{CHECKS}.yaml"), read_yaml(file)
    own = tree.get("checks") or {} if isinstance(tree, dict) else None
    if not isinstance(own, dict):
        raise UserError(f"{file} holds no prompts; copy {FOLDER}/captions.yaml and change it.")
    return tree | {"checks": checks | own}, str(file)


def _stage(raw: Any, where: str, not_yet: set[str]) -> Stage:
    """``not_yet``: names that have no value at this stage."""
    known = [name for name in KNOWN if name not in not_yet]
    check_prompt(raw, where, known, {"images": bool, "each": str, "reply": str})
    stage = Stage(**raw)
    if stage.each not in ("pair", "side") or stage.reply not in ("json", "text"):
        raise UserError(f"{where}: each is pair or side, reply is json or text; here {stage.each} and {stage.reply}.")
    return stage


def make_rules(raw: Mapping[str, Any], where: str) -> Rules:
    """The rules of ``checks``; UserError for what is none."""
    bounds: list[Any] = [raw.get(name) for name in ("question_words", "answer_words")]
    lists: list[Any] = [raw.get(name) for name in ("meta", "refusals")]
    ints = all(
        isinstance(b, list) and len(b) == 2 and all(type(n) is int for n in b) and 1 <= b[0] <= b[1] for b in bounds
    )
    texts = all(isinstance(words, list) and all(isinstance(word, str) and word for word in words) for words in lists)
    shared: Any = raw.get("shared")
    others = type(shared) in (int, float) and 0 <= shared <= 1 and type(raw.get("grounded")) is bool
    if len(raw) != 6 or not (ints and texts and others):
        raise UserError(
            f"{where}: checks are question_words and answer_words (two whole numbers, least and most), shared (0 to 1), "
            f"grounded (true or false), meta and refusals (lists of words), as in {FOLDER}/{CHECKS}.yaml."
        )
    (q_least, q_most), (a_least, a_most) = bounds
    meta, refusals = (tuple(word.casefold() for word in words) for words in lists)
    return Rules((q_least, q_most), (a_least, a_most), float(shared), raw["grounded"], meta, refusals)
