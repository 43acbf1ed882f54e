"""What is wrong with a question and its two answers, told by their words alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..words import differing_words, telling, words_of
from .prompts import Rules

REASONS = {
    "length": "the question or an answer is too short or too long",
    "lines": "a question or an answer of several lines",
    "no-question": "what should be a question asks nothing",
    "meta": "it speaks of captions, of two pictures or of itself",
    "refusal": "an answer that answers nothing",
    "asks-back": "an answer that asks",
    "same-answers": "both answers say the same",
    "leak": "the question says what one side's answer is",
    "too-different": "the answers differ in more than the pictures do",
    "exchanged": "each answer says what is true of the other picture",
    "ungrounded": "an answer says nothing of what sets its picture apart",
}
"""Reason -> what it means."""
_ASKS = ("describe", "tell", "explain", "identify", "count", "name", "list", "point", "say", "give", "state")
_FREE_WORDS = 3
"""Words in which answers may differ however short they are: "Red." and "Dark blue."."""


def faults(
    question: str, answers: tuple[str, str], captions: tuple[str, str] | None, rules: Rules
) -> list[tuple[str, str]]:
    """(reason, what was found) of all that is wrong; ``captions``: what is known of each picture."""
    return list(_faults(question.strip(), (answers[0].strip(), answers[1].strip()), captions, rules))


def _faults(
    question: str, answers: tuple[str, str], captions: tuple[str, str] | None, rules: Rules
) -> Iterator[tuple[str, str]]:
    texts = (question, *answers)
    names = ("the question", "answer 0", "answer 1")
    for name, text, (least, most) in zip(names, texts, (rules.question_words, rules.answer_words, rules.answer_words)):
        if not least <= (count := len(words_of(text))) <= most:
            yield "length", f"{name} has {count} words, allowed are {least} to {most}"
        if "\n" in text:
            yield "lines", f"{name} has several lines"
        if found := _first(text, rules.meta):
            yield "meta", f"{name} says {found!r}"
    first_word = next((word for word in words_of(question) if word != "please"), "")
    if not question.endswith(("?", "？")) and first_word not in _ASKS:
        yield "no-question", "the question neither ends with a question mark nor asks for something"
    for name, text in zip(names[1:], answers):
        if found := _first(text, rules.refusals):
            yield "refusal", f"{name} says {found!r}"
        if text.endswith(("?", "？")):
            yield "asks-back", f"{name} is a question"
    if words_of(answers[0]) == words_of(answers[1]):
        yield "same-answers", "both answers have the same words"
        return
    yield from _contrast_faults(question, answers, captions, rules)


def _contrast_faults(
    question: str, answers: tuple[str, str], captions: tuple[str, str] | None, rules: Rules
) -> Iterator[tuple[str, str]]:
    own = differing_words(*answers)
    asked = telling(words_of(question))
    # A question that names both sides' words lets one choose ("red or blue?"); one that names a single side's gives it away.
    named = [telling(words) & asked for words in own]
    if bool(named[0]) is not bool(named[1]):
        side = 0 if named[0] else 1
        yield "leak", f"the question says {sorted(named[side])[0]!r} of answer {side}"
    due = differing_words(*captions) if captions else ([], [])
    for side in (0, 1):
        length = len(words_of(answers[side]))
        allowed = max(_FREE_WORDS, (1 - rules.shared) * length, len(due[side]) + _FREE_WORDS)
        if len(own[side]) > allowed:
            yield (
                "too-different",
                f"answer {side} has {len(own[side])} of {length} words to itself, allowed are {allowed:.0f}",
            )
    if captions:
        only = [telling(due[0]) - telling(due[1]), telling(due[1]) - telling(due[0])]
        said = [telling(words) for words in own]
        wrong = (said[0] & only[1]) | (said[1] & only[0])
        if wrong and not (said[0] & only[0] or said[1] & only[1]):
            yield "exchanged", f"{sorted(wrong)[0]!r} is said of the wrong picture"
        elif rules.grounded:
            for side in (0, 1):
                if only[side] and not said[side] & only[side]:
                    yield "ungrounded", f"answer {side} has none of the words {', '.join(sorted(only[side]))}"


def _first(text: str, phrases: tuple[str, ...]) -> str | None:
    """The first of ``phrases`` that stands in ``text`` as whole words."""
    plain = text.casefold().replace("’", "'")
    return next((phrase for phrase in phrases if re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", plain)), None)
