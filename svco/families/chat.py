"""From a pair's text to token ids through a processor's own chat template; shared by the families.

The prompt is the template's rendering of the user turn with the generation prompt: what the model sees when it is asked.
The response follows as the template writes an assistant's turn, and ends with the token by which the template ends one
(``<|im_end|>``, ``</s>``); a line break behind that is left out, nobody has to learn it. A template that ends a turn with no such
token (LLaVA-1.5's writes a space) gets the tokenizer's end-of-sequence token, which the authors force into their labels as well.
The whole string is tokenised at once and split at the prompt's length by the tokenizer's offsets: no boundary token is invented.

Of what the tokenizer adds by itself only what stands before a text is kept: some add their end token behind every text, which
would end answers twice and prompts once.

A template writes one word for an image. Where a family shows an image by a text of its own (rows of tiles, words around them,
line breaks), that text is put in for the word before anything is tokenised: line breaks may become one token with those beside
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from ..basics.errors import BadSample, UserError, first_line
from ..basics.strict_json import json_text
from ..data.pairs import PairText
from ..data.schema import shortened

_PROBE = PairText(key="", query="query", responses=("response", "response"))
_WORD = "response"


class ChatEncoder:
    """Renders and tokenises turns. Stateless; picklable with its tokenizer. UserError for a tokenizer or a template with which no
    pair can be written.

    ``word`` is what the template writes for an image. Wherever a method takes an ``image``, that is the text which shows it: the
    word itself, or what stands in its place; None: no image, its entry is left out of the turn.
    """

    def __init__(self, tokenizer: Any, template: str | None, word: str):
        if not template:
            raise UserError(
                "The base model has no chat template; svco needs one to place the image and the turns. Save the template of "
                "the model's release beside its weights, as chat_template.jinja."
            )
        if not tokenizer.is_fast:
            raise UserError(
                f"The base model's tokenizer ({type(tokenizer).__name__}) cannot tell which characters a token is made of, by "
                "which "
                "svco parts a response from its prompt. Save it as a fast tokenizer (tokenizer.json)."
            )
        self.tokenizer, self.template, self.word = tokenizer, template, word
        self.begin, self._appended = added_around(tokenizer)
        self._trim: Callable[[str], str] = str
        self.lead, self.tail, self.end_of_response = self._turn()

    def _turn(self) -> tuple[str, str, tuple[int, ...]]:
        """What the template writes before a response and behind it, and the token ids to add where that ends no turn."""
        try:
            prompt, whole = self._rendered(_PROBE, None, None), self._rendered(_PROBE, None, _WORD)
        except Exception as error:  # jinja's, or whatever an expression of the template meets
            raise UserError(
                f"The base model's chat template cannot write a question and its answer: {first_line(error)}"
            ) from None
        # A template that writes the beginning-of-sequence token itself must not get a second one.
        if self.tokenizer.bos_token and prompt.startswith(self.tokenizer.bos_token):
            self.begin = []
        before, found, tail = whole.rpartition(_WORD)
        if not found:
            raise UserError("The base model's chat template does not show the assistant's turn.")
        self._trim = self._trimming(before, tail)
        # LLaVA-OneVision's writes "assistant\n" when it asks and "assistant \n" when it shows: then what is asked counts.
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        added = self.tokenizer.added_tokens_decoder
        first = next(iter(self.tokenizer(tail.strip(), add_special_tokens=False)["input_ids"]), None)
        if first in added and added[first].special:
            return lead, tail[: len(tail) - len(tail.lstrip())] + added[first].content, ()
        end = self.tokenizer.eos_token_id
        if end is None or (end == self.tokenizer.unk_token_id and self.tokenizer.eos_token != self.tokenizer.unk_token):
            raise UserError(
                "The base model's chat template ends the assistant's turn with no token of its own, and its tokenizer has no "
                "end-of-sequence token: an answer would have no end. Set eos_token in its tokenizer_config.json."
            )
        # What is neither white space nor a token that ends turns is a slip of the template: LLaVA-NeXT's has "<\\s>".
        return lead, tail if tail.isspace() else "", (end,)

    def _trimming(self, before: str, tail: str) -> Callable[[str], str]:
        """What the template does to white space around an answer."""
        spaced = f"\n {_WORD} \n"
        shown = self._rendered(_PROBE, None, spaced)
        for trim in (str, str.strip, str.lstrip, str.rstrip):
            if shown == f"{before}{trim(spaced)}{tail}":
                return trim
        raise UserError(
            f"The base model's chat template does not show an answer as it is: {spaced!r} became "
            f"{shown[len(before) : len(shown) - len(tail)]!r}."
        )

    def fingerprint(self, *more: Any) -> str:
        """Digest of template, vocabulary, end rule and whatever else the ids depend on."""
        turn: list[Any] = [self.lead, self.tail, self.end_of_response]
        if self._appended or self._trim is not str:
            turn += [self._appended, self._trim.__name__]
        parts = [self.template, self.tokenizer.backend_tokenizer.to_str(), turn, *more]
        return hashlib.sha256(json_text(parts, sort_keys=True).encode()).hexdigest()

    def render(self, text: PairText, image: str | None, response: str | None) -> str:
        """The conversation as one string; ``response`` None: the prompt alone.

        BadSample for a text that the template refuses, and for one that it does not show as it is.
        """
        try:
            shown = self._rendered(text, image, response)
        except Exception as error:  # jinja's, or whatever an expression of the template meets
            raise BadSample(
                "system-turn" if text.system else "unsplittable",
                f"sample {text.key!r}: the base's chat template refuses it: {first_line(error)}",
            ) from None
        if text.system and shown.count(text.system.strip()) <= text.query.count(text.system.strip()):
            raise BadSample(
                "system-turn",
                f"sample {text.key!r}: the base's chat template leaves its system prompt out: {shortened(text.system)}",
            )
        if text.query.strip() not in shown:
            raise BadSample(
                "unsplittable",
                f"sample {text.key!r}: the base's chat template does not show its query as it is: {shortened(text.query)}",
            )
        return shown

    def _rendered(self, text: PairText, image: str | None, response: str | None) -> str:
        turns = []
        if text.system:
            turns.append({"role": "system", "content": [{"type": "text", "text": text.system}]})
        shown_first = [] if image is None else [{"type": "image"}]
        turns.append({"role": "user", "content": [*shown_first, {"type": "text", "text": text.query}]})
        if response is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        shown = self.tokenizer.apply_chat_template(
            turns,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=response is None,
            enable_thinking=False,  # responses have no thoughts, and a prompt that opens some would end in half a token of theirs
        )
        for turn in turns:
            if str(turn["content"]) in shown:
                raise ValueError(
                    f"it takes the {turn['role']}'s turn as plain text and writes a list of parts as Python would"
                )
        # The word is in the texts as well in samples that are refused, by their tokens before this is asked.
        return shown if image in (None, self.word) else shown.replace(self.word, image)

    def encode(self, text: PairText, image: str | None, response: str) -> tuple[list[int], list[int]]:
        """(prefix ids, response ids); the response ends as the family's rule says."""
        prompt = self.render(text, image, None)
        ids, offsets = self._tokens(f"{prompt}{self.lead}{self._trim(response)}{self.tail}")
        cut = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
        if cut < len(ids) and offsets[cut][0] < len(prompt):
            raise BadSample(
                "unsplittable",
                f"sample {text.key!r}: the tokenizer joins the end of the prompt and the start "
                f"of the response {response[:40]!r} in one token",
            )
        return ids[:cut], [*ids[cut:], *self.end_of_response]

    def _tokens(self, whole: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, the characters of each), with what the tokenizer puts before a text."""
        made = self.tokenizer(
            whole, return_offsets_mapping=True, return_attention_mask=False, add_special_tokens=False, verbose=False
        )
        return [*self.begin, *made["input_ids"]], [(0, 0)] * len(self.begin) + made["offset_mapping"]

    def ask(self, text: PairText, image: str | None) -> list[int]:
        """The ids of the prompt alone: the prefix of ``encode``, for generation."""
        return self._tokens(self.render(text, image, None))[0]

    @property
    def ends(self) -> list[int]:
        """The ids that end an answer: the template's own end of a turn, and the tokenizer's end of a sequence."""
        turn = self.tokenizer.convert_tokens_to_ids(self.tail.strip()) if self.tail.strip() else None
        return sorted({end for end in (turn, self.tokenizer.eos_token_id) if end is not None})

    def encode_all(self, text: PairText, image: str | None) -> tuple[list[int], list[list[int]]]:
        """The prefix and both responses behind it; BadSample when the prefix depends on what follows."""
        first, second = (self.encode(text, image, response) for response in text.responses)
        prefixes, responses = zip(first, second, strict=True)
        if prefixes[0] != prefixes[1]:
            raise BadSample("unsplittable", f"sample {text.key!r}: the prompt's tokens depend on the response after it")
        return prefixes[0], list(responses)


def added_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """(ids that ``tokenizer`` by itself puts before a text, ids that it puts behind); UserError where it does otherwise."""
    whole, bare = (tokenizer(_WORD, add_special_tokens=special)["input_ids"] for special in (True, False))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise UserError(f"The base model's tokenizer changes a text when it adds special tokens: {bare} becomes {whole}.")
