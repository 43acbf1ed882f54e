"""From a pair's text to token ids through a processor's own chat template; shared by the families.

The prompt is the template's rendering of the user turn with the generation prompt; the response is whatever the
template adds when the assistant's turn is there too. The whole string is tokenised at once and split at the prompt's
length by the tokenizer's offsets, so no string is ever searched and no boundary token is invented.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..errors import BadSample, UserError
from ..pairs import PairText


class ChatEncoder:
    """Renders and tokenises turns with one processor. Stateless; picklable with its processor."""

    def __init__(self, processor: Any, end_of_response: tuple[int, ...]):
        if not getattr(processor, "chat_template", None):
            raise UserError(
                "The base model's processor has no chat template; svco needs one to place the image and the "
                "turns. Save the template of the model's release with the processor."
            )
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.end_of_response = end_of_response

    def fingerprint(self, *more: Any) -> str:
        """Digest of template, vocabulary, end rule and whatever else the ids depend on."""
        parts = [self.processor.chat_template, self.tokenizer.backend_tokenizer.to_str(), self.end_of_response, *more]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def render(self, text: PairText, with_image: bool, response: str | None) -> str:
        """The conversation as one string; ``response`` None: the prompt alone. No image: its entry is left out."""
        turns = []
        if text.system:
            turns.append({"role": "system", "content": [{"type": "text", "text": text.system}]})
        image = [{"type": "image"}] if with_image else []
        turns.append({"role": "user", "content": [*image, {"type": "text", "text": text.query}]})
        if response is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        return self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=response is None)

    def encode(self, text: PairText, with_image: bool, response: str) -> tuple[list[int], list[int]]:
        """(prefix ids, response ids) with one placeholder an image; the response ends as the family's rule says."""
        prompt = self.render(text, with_image, None)
        whole = self.render(text, with_image, response)
        if not whole.startswith(prompt):
            raise UserError(
                "The base model's chat template renders the assistant's turn differently from its generation "
                f"prompt, so a response cannot be told from its prompt: {prompt!r} against {whole!r}."
            )
        # A template that writes the beginning-of-sequence token itself must not get a second one.
        bos = self.tokenizer.bos_token
        encoding = self.tokenizer(
            whole,
            return_offsets_mapping=True,
            return_attention_mask=False,
            add_special_tokens=not (bos and whole.startswith(bos)),
        )
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        cut = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
        if cut < len(ids) and offsets[cut][0] < len(prompt):
            raise BadSample(
                "unsplittable",
                f"sample {text.key!r}: the tokenizer joins the end of the prompt and the start "
                f"of the response {response[:40]!r} in one token",
            )
        return ids[:cut], [*ids[cut:], *self.end_of_response]

    def encode_all(self, text: PairText, with_image: bool) -> tuple[list[int], list[list[int]]]:
        """The prefix and both responses behind it; BadSample when the prefix depends on what follows."""
        (first, zero), (second, one) = (self.encode(text, with_image, response) for response in text.responses)
        if first != second:
            raise BadSample("unsplittable", f"sample {text.key!r}: the prompt's tokens depend on the response after it")
        return first, [zero, one]
