"""Judging from its options to its files: what it costs said first, then every answer judged, then the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.files import write_whole
from ...basics.parallel import in_parallel
from ...basics.progress import Progress
from ...basics.strict_json import json_text
from ...endpoint.asking import READINGS, Asker
from ...endpoint.cache import Reply, ReplyCache
from ...endpoint.client import RETRIES, TIMEOUT, Endpoint, Unanswered
from ...endpoint.prices import SHIPPED, Estimate, bill, price_of
from ...endpoint.request import Request
from ..evaluation.against import Evaluation
from ..evaluation.anew import figures_anew
from ..evaluation.benchmarks.judged import judge_of, judged_file
from ..evaluation.benchmarks.table import BENCHMARKS
from .rules import Rule, read_rule

JUDGED = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.judging)
"""The benchmarks that are judged."""
MOST_JUDGEMENTS = 1000
"""Of one answer; their numbers and the attempts at each make the turns by which requests differ."""
_CUT = "length"


@dataclass(frozen=True)
class Wanted:
    """What is to be judged, and how."""

    folders: tuple[Path, ...]
    """Folders of evaluations."""
    model: str
    """The judge's name, as the endpoint knows it."""
    benchmarks: tuple[str, ...] = JUDGED
    """Of those that the evaluations have."""
    prompts: Mapping[str, Path] = field(default_factory=dict)
    """Benchmark -> file of its prompt, instead of the shipped one."""
    judgements: int = 1
    """Of each answer."""
    temperature: float | None = None
    """Instead of the prompt's."""
    turns: int = 2
    """How often a judgement is asked for until it can be read."""
    cache: Path | None = None
    """Of replies; None: beside the first evaluation."""
    prices: Path = SHIPPED
    """Table of prices."""
    at_once: int = 8
    """Requests under way."""
    timeout: float = TIMEOUT
    """Seconds for a reply."""
    retries: int = RETRIES
    """Of the package."""
    yes: bool = False
    """Whether what it costs is agreed to."""


@dataclass(frozen=True)
class Case:
    """One judgement to be had."""

    folder: Path
    """Of the evaluation."""
    benchmark: str
    """Its name."""
    line: Mapping[str, Any]
    """The question and its answer."""
    number: int
    """Which of the answer's judgements."""

    def requests(self, rule: Rule, wanted: Wanted) -> Iterator[Request]:
        """One for each attempt at it, each another request."""
        for attempt in range(wanted.turns):
            yield rule.ask(wanted.model, self.line, attempt * MOST_JUDGEMENTS + self.number)


def judge(wanted: Wanted, progress: Progress, say: Callable[[str], None] = print) -> int:
    """Does what is wanted; the exit code: 1 where judgements are lacking. UserError for what cannot be begun."""
    cases = list(_cases(wanted))
    if not cases:
        raise UserError(
            f"There is nothing to judge in {', '.join(map(str, wanted.folders))}: it takes an evaluation of "
            f"{', '.join(wanted.benchmarks)} (svco eval --benchmarks DIR)."
        )
    rules = {name: _rule(name, wanted) for name in {case.benchmark for case in cases}}
    price = price_of(wanted.model, wanted.prices)
    cache = wanted.cache or wanted.folders[0].resolve().parent / "judge.sqlite"
    with ReplyCache(cache) as replies:
        estimate, seen = Estimate(price), set[str]()
        for case in progress(cases, "counting"):
            _estimate(case, rules[case.benchmark], wanted, replies, estimate, seen)
        if estimate.requests:
            for line in estimate.lines(wanted.turns * READINGS * (wanted.retries + 1)):
                say(line)
            if not wanted.yes:
                raise UserError("Nothing was asked. Add --yes to go on.")
        # Without anything to ask no endpoint is needed: what is in the cache can be figured anew anywhere.
        ask = Asker(Endpoint(wanted.timeout, wanted.retries) if estimate.requests else None, replies)

        def one(case: Case) -> tuple[dict[str, Any] | None, str]:
            return judged(case, rules[case.benchmark], wanted, ask)

        outcomes = list(progress(in_parallel(one, cases, wanted.at_once), "judging", len(cases)))
        dollars = (price.input, price.output) if price.known else None
        for (folder, name), lines in _by_file(cases, outcomes).items():
            about = rules[name].about(wanted.model, dollars)
            _write(folder, name, [line | {"judge": about} for line in lines], say)
        for folder in wanted.folders:
            figures_anew(folder)
        say(f"so far, with this cache: {bill(price, replies.spent(wanted.model))}")
    return _told(wanted, outcomes, say)


def _cases(wanted: Wanted) -> Iterator[Case]:
    for folder in wanted.folders:
        found = Evaluation.read(folder)
        for name in wanted.benchmarks:
            for line in found.benchmarks.get(name, ()):
                for number in range(wanted.judgements if line["asked"] else 0):
                    yield Case(folder, name, line, number)


def _rule(name: str, wanted: Wanted) -> Rule:
    judging = BENCHMARKS[name].judging
    assert judging
    return read_rule(name, judging, wanted.prompts.get(name), wanted.temperature)


def _estimate(case: Case, rule: Rule, wanted: Wanted, replies: ReplyCache, estimate: Estimate, seen: set[str]) -> None:
    """Counts the request that comes next for ``case``, as if it were answered well, or those that its judgement took; ``seen``:
    those counted before, as two models may give one answer."""
    for request in case.requests(rule, wanted):
        known = replies.get(request.key)
        if request.key not in seen:
            seen.add(request.key)
            estimate.add(request, cached=bool(known))
        if not known or _values(rule, known)[0]:
            return


def judged(case: Case, rule: Rule, wanted: Wanted, ask: Asker) -> tuple[dict[str, Any] | None, str]:
    """(the judgement as ``NAME.judged.jsonl`` has it, or None; why there is none)."""
    reason = ""
    for request in case.requests(rule, wanted):
        try:
            reply = ask(request)
        except Unanswered as error:
            return None, f"no reply: {error}"
        values, reason = _values(rule, reply)
        if values:
            told = {"values": values, "answered": reply.model, "at": reply.at, "said": reply.text}
            return told | {"prompt_tokens": reply.prompt_tokens, "reply_tokens": reply.reply_tokens}, ""
    return None, reason


def _values(rule: Rule, reply: Reply) -> tuple[dict[str, float] | None, str]:
    if reply.finish == _CUT:
        return None, "the reply was cut at its bound of tokens"
    try:
        return rule.read(reply.text), ""
    except ValueError as error:
        return None, str(error)


def _by_file(
    cases: Sequence[Case], outcomes: Sequence[tuple[dict[str, Any] | None, str]]
) -> dict[tuple[Path, str], list[dict[str, Any]]]:
    """(folder, benchmark) -> the lines of its file, without the judge."""
    files: dict[tuple[Path, str], dict[str, dict[str, Any]]] = {}
    for case, (judgement, why) in zip(cases, outcomes, strict=True):
        lines = files.setdefault((case.folder, case.benchmark), {})
        key, answer = case.line["key"], case.line["answer"]
        line = lines.setdefault(key, {"key": key, "answer": answer, "judgements": [], "failed": []})
        if judgement:
            line["judgements"].append(judgement)
        else:
            line["failed"].append(why)
    return {file: list(lines.values()) for file, lines in files.items()}


def _write(folder: Path, name: str, lines: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> None:
    before = judge_of(Evaluation.read(folder).benchmarks[name])
    if before and any(before[key] != lines[0]["judge"][key] for key in ("asked", "prompt_sha256", "parameters")):
        was = f"{before['asked']}, prompt {before['prompt']} {before['prompt_sha256'][:12]}"
        say(f"{folder}: {name} was judged by {was} before; that takes another command's cache to get back")
    write_whole(judged_file(folder, name), "".join(json_text(line, ascii_only=False) + "\n" for line in lines))


def _told(wanted: Wanted, outcomes: Sequence[tuple[dict[str, Any] | None, str]], say: Callable[[str], None]) -> int:
    """Says the figures and what is lacking; the exit code."""
    for folder in wanted.folders:
        for name, lines in Evaluation.read(folder).benchmarks.items():
            if name in wanted.benchmarks and judge_of(lines):
                told = BENCHMARKS[name].summary(lines, False)
                share = name not in JUDGED or "score" not in BENCHMARKS[name].plain
                score = f"{100 * told['score']:.1f}%" if share else f"{told['score']:.2f}"
                more = f", hallucination {100 * told['hallucination']['value']:.1f}%" if "hallucination" in told else ""
                say(f"{folder}: {BENCHMARKS[name].title}: {score}{more}; {told['rule']}")
    failed = Counter(why for judgement, why in outcomes if not judgement)
    if failed:
        reason, count = failed.most_common(1)[0]
        say(
            f"{failed.total():,} of {len(outcomes):,} judgements are lacking, {count:,} of them: {reason}. The same command asks "
            "again for those without a reply; for those that cannot be read, with more --turns or another prompt."
        )
    return 1 if failed else 0
