"""One rewriting from its options to its files: what it costs said first, then every record asked about, in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....basics.files import replacing, write_whole
from ....basics.parallel import in_parallel
from ....basics.progress import Progress
from ....basics.strict_json import json_text, parse_json
from ....endpoint.asking import READINGS, Asker
from ....endpoint.batch import collect, submit
from ....endpoint.cache import ReplyCache
from ....endpoint.client import RETRIES, TIMEOUT, Endpoint
from ....endpoint.prices import SHIPPED, Estimate, bill, price_of
from ....endpoint.request import Request
from ..images import Roots
from ..records import Record, as_line, stream_records
from .checks import REASONS
from .prompts import Prompts, read_prompts
from .stages import Outcome, Rewriter, as_far_as_known, through
from .template import TemplateRewriter

_OTHER_REASONS = {
    "lacks": "the record lacks what the prompts name",
    "bad-reply": "the reply is not of the form that was asked for",
    "no-reply": "no reply came; the same command asks again",
}
_TYPICAL_QUESTION = "a question of ordinary length, as it is not known yet, to count"


@dataclass(frozen=True)
class Wanted:
    """What is to be rewritten, and how."""

    records: Path
    """Records (JSONL)."""
    output: Path
    """File of the rewritten ones; its rejects and what was done stand beside it."""
    images: tuple[Path, ...] = ()
    """Folders of the pictures, where prompts send them."""
    backend: str = "endpoint"
    """``endpoint`` or ``template``."""
    model: str = ""
    """The model's name, as the endpoint knows it."""
    prompts: str = "captions"
    """Name or file."""
    cache: Path | None = None
    """Of replies; None: beside the records."""
    prices: Path = SHIPPED
    """Table of prices."""
    at_once: int = 8
    """Requests under way."""
    turns: int = 2
    """How often a pair is asked for until its texts are as they should be."""
    limit: int | None = None
    """Only that many records, the first."""
    timeout: float = TIMEOUT
    """Seconds for a reply."""
    retries: int = RETRIES
    """Of the package."""
    batch: str | None = None
    """``submit`` or ``collect``: through the Batch API."""
    yes: bool = False
    """Whether what it costs is agreed to."""

    def beside(self, ending: str) -> Path:
        """A file beside the output, of its name and this ending."""
        return self.output.with_name(self.output.name.removesuffix(".jsonl") + ending)

    def source(self) -> Iterator[Record]:
        """The records."""
        return islice(stream_records(self.records), self.limit)


@dataclass
class Tally:
    """What became of the records."""

    kept: int = 0
    """Rewritten."""
    rejected: int = 0
    """Not."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Reason -> records; one record may have several."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> the first that was found."""

    def add(self, outcome: Outcome) -> None:
        """Counts one record."""
        if outcome.record:
            self.kept += 1
            return
        self.rejected += 1
        for reason, found in outcome.reasons:
            self.examples.setdefault(reason, found)
        self.reasons.update({reason for reason, _ in outcome.reasons})

    def lines(self) -> Iterator[str]:
        """For a person, the most frequent reason first."""
        meaning = REASONS | _OTHER_REASONS
        for reason, count in self.reasons.most_common():
            yield f"  {count:>7,}  {reason}: {meaning[reason]}. E.g. {self.examples[reason]}"


def rewrite(wanted: Wanted, progress: Progress, say: Callable[[str], None] = print) -> int:
    """Does what is wanted; the exit code: 1 where not one pair came out. UserError for what cannot be begun."""
    if wanted.backend == "template":
        name = "template" if wanted.prompts == "captions" else wanted.prompts
        made = TemplateRewriter(name)
        outcomes = map(made, progress(wanted.source(), "rewriting"))
        return _written(wanted, outcomes, {"prompts": made.name, "prompts_sha256": made.digest}, say)
    prompts = read_prompts(wanted.prompts)
    rewriter = Rewriter(prompts, wanted.model, Roots(wanted.images) if wanted.images else None, wanted.turns)
    cache = wanted.cache or wanted.records.with_name(wanted.records.name.removesuffix(".jsonl") + ".replies.sqlite")
    with ReplyCache(cache) as replies:
        return _asked(wanted, rewriter, prompts, replies, progress, say)


def _asked(
    wanted: Wanted,
    rewriter: Rewriter,
    prompts: Prompts,
    replies: ReplyCache,
    progress: Progress,
    say: Callable[[str], None],
) -> int:
    price = price_of(wanted.model, wanted.prices)
    if wanted.batch == "collect":
        came, lines = collect(Endpoint(wanted.timeout, wanted.retries), replies, wanted.model)
        for line in (f"{came:,} replies came", *lines):
            say(line)
    estimate = Estimate(price, batch=bool(wanted.batch))
    waiting = records = 0
    for record in progress(wanted.source(), "counting"):
        records += 1
        waiting += _estimate(rewriter, record, replies, estimate)
    if wanted.batch != "collect" and estimate.requests:
        for line in estimate.lines(rewriter.turns * (1 if wanted.batch else READINGS * (wanted.retries + 1))):
            say(line)
        if not wanted.yes:
            raise UserError("Nothing was asked. Add --yes to go on, or --limit 20 to try a few pairs first.")
    if wanted.batch == "submit":
        endpoint = Endpoint(wanted.timeout, wanted.retries)
        count = submit(endpoint, replies, _pending(rewriter, wanted.source(), replies))
        say(f"{count:,} requests handed in. Later: the same command with --batch collect")
        return 0
    if waiting:
        if wanted.batch == "collect":
            return 0
        raise UserError(f"{waiting:,} requests are in batches: collect them first, with --batch collect.")
    if wanted.batch == "collect" and estimate.requests:
        say("Some pairs need another request: the same command with --batch submit, or without --batch to ask at once.")
        return 0
    # Without anything to ask no endpoint is needed: what is in the cache can be checked anew anywhere.
    endpoint_if_needed = Endpoint(wanted.timeout, wanted.retries) if estimate.requests else None
    ask = Asker(endpoint_if_needed, replies)

    def one(record: Record) -> Outcome:
        return through(rewriter.steps(record), record, ask)

    outcomes = progress(in_parallel(one, wanted.source(), wanted.at_once), "rewriting", records)
    told = {
        "model": wanted.model,
        "prompts": prompts.name,
        "prompts_sha256": prompts.digest,
        "prompts_used": prompts.tree,
    }
    return _written(wanted, outcomes, told, say, lambda: replies.spent(wanted.model), partial(bill, price))


def _estimate(rewriter: Rewriter, record: Record, replies: ReplyCache, estimate: Estimate) -> int:
    """Counts what is to be asked for ``record`` if all of it succeeds at once; how many of its requests are in batches."""
    had, needed = as_far_as_known(rewriter.steps(record), lambda request: replies.get(request.key))
    for request in had:
        estimate.add(request, cached=True)
    in_batches = 0
    for request in needed:
        if replies.is_waiting(request.key):
            in_batches += 1
        else:
            estimate.add(request, cached=False)
    if needed and rewriter.prompts.question and needed[0].key == rewriter.question_request(record, needed[0].turn).key:
        for request in rewriter.answer_requests(record, _TYPICAL_QUESTION, needed[0].turn):
            estimate.add(request, cached=False)
    return in_batches


def _pending(rewriter: Rewriter, records: Iterable[Record], replies: ReplyCache) -> Iterator[Request]:
    for record in records:
        yield from as_far_as_known(rewriter.steps(record), lambda request: replies.get(request.key))[1]


def _written(
    wanted: Wanted,
    outcomes: Iterable[Outcome],
    told: dict[str, Any],
    say: Callable[[str], None],
    spent: Callable[[], Any] = lambda: None,
    billed: Callable[[Any], str] = str,
) -> int:
    """Writes the output, its rejects and what was done, and says what became of the records."""
    tally = Tally()
    rejects = wanted.beside(".rejected.jsonl")
    with (
        replacing(wanted.output) as kept,
        replacing(rejects) as rejected,
        kept.open("w", encoding="utf-8") as good,
        rejected.open("w", encoding="utf-8") as bad,
    ):
        for outcome in outcomes:
            tally.add(outcome)
            if outcome.record:
                good.write(as_line(outcome.record))
            else:
                bad.write(_reject_line(outcome))
    say(f"{tally.kept:,} of {tally.kept + tally.rejected:,} pairs rewritten, to {wanted.output}")
    if tally.rejected:
        say(f"{tally.rejected:,} rejected, to {rejects}:")
        for line in tally.lines():
            say(line)
    about = {"stage": "rewrite", "records": str(wanted.records), "backend": wanted.backend, **told}
    about |= {"rewritten": tally.kept, "rejected": tally.rejected, "reasons": dict(tally.reasons.most_common())}
    if total := spent():
        say(f"so far, with this cache: {billed(total)}")
        about["spent"] = asdict(total) | {"told": billed(total)}
    write_whole(wanted.beside(".about.json"), json_text(about, indent=1, ascii_only=False) + "\n")
    if tally.kept:
        folders = " ".join(f"--images {folder}" for folder in wanted.images) or "--images IMAGES"
        say(f"next: svco data build {wanted.output} {folders} -o shards")
    return 0 if tally.kept else 1


def _reject_line(outcome: Outcome) -> str:
    """The record as it came, with the reasons and what the model said."""
    record = parse_json(as_line(outcome.source))
    told = {"reasons": [": ".join(reason) for reason in outcome.reasons], "said": list(outcome.said), "record": record}
    return json_text(told, ascii_only=False) + "\n"
