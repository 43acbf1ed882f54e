"""A judge's prompt, as a file that people read and change, and what its replies say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...endpoint.prompt import Prompt, check_prompt, digest_of, read_yaml
from ...endpoint.request import Request
from ..evaluation.benchmarks.protocol import Judging

FOLDER = Path(__file__).with_name("prompts")
"""The files that come with svco, one a judged benchmark."""


@dataclass(frozen=True)
class Rule(Prompt):
    """How one benchmark's answers are judged."""

    reply: str = ""
    """A regular expression whose named groups are what a judgement says."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What words of it count as, in small letters: of a judge that says ``wrong``, ``half``, ``right``."""
    judging: Judging = Judging((), {})  # noqa: RUF009 frozen
    """What the benchmark wants of it."""
    name: str = ""
    """What figures call the prompt: the shipped one's name, or the file's."""
    digest: str = ""
    """SHA-256 of all that decides a request and what becomes of its reply."""

    def about(self, model: str, dollars: tuple[float, float] | None) -> dict[str, Any]:
        """What stands beside every judgement of ``model``."""
        told = {"asked": model, "prompt": self.name, "prompt_sha256": self.digest}
        return told | {"parameters": dict(self.parameters), "dollars": dollars and list(dollars)}

    def ask(self, model: str, line: Mapping[str, Any], turn: int) -> Request:
        """The request to judge the answer of ``line`` (of ``NAME.answers.jsonl``)."""
        told = {"question": line["query"], **{name: line[name] for name in self.judging.told if name != "question"}}
        return self.request(model, told, turn)

    def read(self, said: str) -> dict[str, float]:
        """The numbers of a judgement; ValueError, which says what came, where there are none or several that differ."""
        found = {tuple(match.groupdict().items()) for match in re.finditer(self.reply, said)}
        short = repr(" ".join(said.split())[:80])
        if len(found) != 1:
            raise ValueError(f"{'no judgement' if not found else 'judgements that differ'} in {short}")
        values = {name: self._number(text or "") for name, text in found.pop()}
        for name, (least, greatest) in self.judging.says.items():
            if not least <= values[name] <= greatest or (self.judging.whole and values[name] % 1):
                raise ValueError(f"{name} is {values[name]:g} in {short}; it must be {least:g} to {greatest:g}")
        return values

    def _number(self, text: str) -> float:
        try:
            return float(self.numbers.get(text.strip().lower(), text))
        except ValueError:
            raise ValueError(f"{text!r} is no number, and none of the prompt's numbers") from None


def read_rule(benchmark: str, judging: Judging, file: Path | None = None, temperature: float | None = None) -> Rule:
    """The rule in ``file`` (None: the shipped one) for ``benchmark``; UserError for a file that is none, naming what is wrong."""
    path = file or FOLDER / f"{benchmark}.yaml"
    raw = read_yaml(path)
    check_prompt(raw, str(path), judging.told, {"reply": str, "numbers": dict})
    if absent := [name for name in judging.told if name not in Prompt(raw["user"], raw.get("system")).names]:
        raise UserError(
            f"{path} says nothing of ${absent[0]}: a judge of {benchmark} is told {', '.join(judging.told)}."
        )
    for word, number in raw.get("numbers", {}).items():
        if not isinstance(word, str) or isinstance(number, bool) or not isinstance(number, (int, float)):
            raise UserError(f"{path}: numbers must give a number to each word; it has {word!r}: {number!r}.")
    try:
        groups = re.compile(raw.get("reply", "")).groupindex.keys()
    except re.error as error:
        raise UserError(f"{path}: reply is no regular expression: {error}.") from None
    if groups != judging.says.keys():
        wanted = ", ".join(f"(?P<{name}>…)" for name in judging.says)
        raise UserError(f"{path}: reply must be a regular expression with the named groups {wanted} and no others.")
    rule = Rule(**raw, judging=judging, name=path.name if file else benchmark, digest=digest_of(raw))
    if temperature is not None:
        rule = replace(rule, parameters={**rule.parameters, "temperature": temperature})
    return rule
