"""From a pair's text to token ids through a processor's own chat template; shared by the families.

The prompt is the template's rendering of the user turn with the generation prompt: what the model sees when it is asked.
The response follows as the template writes an assistant's turn, and ends with the token by which the template ends one
(``<|im_end|>``, ``</s>``); a line break behind that is left out, nobody has to learn it. A template that ends a turn with no such
token (LLaVA-1.5's writes a space) gets the tokenizer's end-of-sequence token, which the authors force into their labels as well.
The whole string is tokenised at once and split at the prompt's length by the tokenizer's offsets: no boundary token is invented.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..basics.errors import BadSample, UserError
from ..basics.strict_json import json_text
from ..data.pairs import PairText


class ChatEncoder:
    """Renders and tokenises turns. Stateless; picklable with its tokenizer."""

    def __init__(self, tokenizer: Any, template: str | None):
        if not template:
            raise UserError(
                "The base model has no chat template; svco needs one to place the image and the turns. Save the template of "
                "the model's release beside its weights, as chat_template.jinja."
            )
        self.tokenizer, self.template = tokenizer, template
        self.lead, self.tail, self.end_of_response = self._turn()

    def _turn(self) -> tuple[str, str, tuple[int, ...]]:
        """What the template writes before a response and behind it, and the token ids to add where that ends no turn."""
        word = "response"
        probe = PairText(key="", query="query", responses=(word, word))
        prompt, whole = self.render(probe, False, None), self.render(probe, False, word)
        before, found, tail = whole.rpartition(word)
        if not found:
            raise UserError("The base model's chat template does not show the assistant's turn.")
        # LLaVA-OneVision's writes "assistant\n" when it asks and "assistant \n" when it shows: then what is asked counts.
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        added = self.tokenizer.added_tokens_decoder
        first = next(iter(self.tokenizer(tail.strip(), add_special_tokens=False)["input_ids"]), None)
        if first in added and added[first].special:
            return lead, added[first].content, ()
        # What is neither white space nor a token that ends turns is a slip of the template: LLaVA-NeXT's has "<\\s>".
        return lead, tail if tail.isspace() else "", (self.tokenizer.eos_token_id,)

    def fingerprint(self, *more: Any) -> str:
        """Digest of template, vocabulary, end rule and whatever else the ids depend on."""
        turn = [self.lead, self.tail, self.end_of_response]
        parts = [self.template, self.tokenizer.backend_tokenizer.to_str(), turn, *more]
        return hashlib.sha256(json_text(parts, sort_keys=True).encode()).hexdigest()

    def render(self, text: PairText, with_image: bool, response: str | None) -> str:
        """The conversation as one string; ``response`` None: the prompt alone. No image: its entry is left out."""
        turns = []
        if text.system:
            turns.append({"role": "system", "content": [{"type": "text", "text": text.system}]})
        image = [{"type": "image"}] if with_image else []
        turns.append({"role": "user", "content": [*image, {"type": "text", "text": text.query}]})
        if response is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        return self.tokenizer.apply_chat_template(
            turns, chat_template=self.template, tokenize=False, add_generation_prompt=response is None
        )

    def encode(self, text: PairText, with_image: bool, response: str) -> tuple[list[int], list[int]]:
        """(prefix ids, response ids) with one placeholder an image; the response ends as the family's rule says."""
        prompt = self.render(text, with_image, None)
        encoding = self._tokens(f"{prompt}{self.lead}{response}{self.tail}")
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        cut = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
        if cut < len(ids) and offsets[cut][0] < len(prompt):
            raise BadSample(
                "unsplittable",
                f"sample {text.key!r}: the tokenizer joins the end of the prompt and the start "
                f"of the response {response[:40]!r} in one token",
            )
        return ids[:cut], [*ids[cut:], *self.end_of_response]

    def _tokens(self, whole: str) -> Any:
        # A template that writes the beginning-of-sequence token itself must not get a second one.
        bos = self.tokenizer.bos_token
        return self.tokenizer(
            whole,
            return_offsets_mapping=True,
            return_attention_mask=False,
            add_special_tokens=not (bos and whole.startswith(bos)),
        )

    def ask(self, text: PairText) -> list[int]:
        """The ids of the prompt with its image alone, one placeholder: the prefix of ``encode``, for generation."""
        return self._tokens(self.render(text, True, None))["input_ids"]

    @property
    def ends(self) -> list[int]:
        """The ids that end an answer: the template's own end of a turn, and the tokenizer's end of a sequence."""
        turn = self.tokenizer.convert_tokens_to_ids(self.tail) if self.tail and not self.tail.isspace() else None
        return sorted({end for end in (turn, self.tokenizer.eos_token_id) if end is not None})

    def encode_all(self, text: PairText, with_image: bool) -> tuple[list[int], list[list[int]]]:
        """The prefix and both responses behind it; BadSample when the prefix depends on what follows."""
        first, second = (self.encode(text, with_image, response) for response in text.responses)
        prefixes, responses = zip(first, second, strict=True)
        if prefixes[0] != prefixes[1]:
            raise BadSample("unsplittable", f"sample {text.key!r}: the prompt's tokens depend on the response after it")
        return prefixes[0], list(responses)
