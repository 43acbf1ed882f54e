"""The tokens that mean something to a base, which no text may hold, and the ids it has no embedding for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..basics.errors import BadSample, UserError
from ..data.pairs import PairText
from ..data.schema import shortened
from .chat import ChatEncoder

_PICTURED = re.compile(r"(image|video|vision|audio)_(\w+_)?token_(id|index)")
"""Keys of a config that name tokens which stand for what is no text."""


class SpecialTokens:
    """Checks every id of a pair's text. Picklable with its tokenizer.

    A text that holds one (``<image>``, ``</s>``, ``<|im_end|>``) would end a turn, or stand for a picture that is not there. What
    is allowed are those that the template itself writes, in their order: whatever else is there came with the text.
    """

    def __init__(self, chat: ChatEncoder, config: Any, image: int):
        """``image`` is the token by which the template shows an image."""
        self.chat, self.tokenizer = chat, chat.tokenizer
        self.rows = config.get_text_config().vocab_size
        self.image = image
        added = self.tokenizer.added_tokens_decoder
        pictured = {i for name, i in config.to_dict().items() if _PICTURED.fullmatch(name) and isinstance(i, int)}
        ids = {i for i, token in added.items() if token.special} | pictured
        unknown = self.tokenizer.unk_token_id
        # A character that the tokenizer does not know is no special token of the text's, though its id is one.
        wanted = set(self.tokenizer.all_special_ids) | ids
        meant = {self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.image}
        self.ids = frozenset(wanted if unknown in meant else wanted - {unknown})
        self._own: dict[tuple[bool, bool], list[int]] = {}
        self._own_end: list[int] = []
        self._learn()

    def _learn(self) -> None:
        """What the template writes around texts that hold nothing; UserError for a template or a config that does not fit."""
        for system in (None, "system"):
            probe = PairText(key="", query="query", responses=("one", "two"), system=system)
            for with_image in (True, False):
                try:
                    prefix, responses = self.chat.encode_all(probe, self.chat.word if with_image else None)
                except BadSample as error:
                    if system is None:
                        raise UserError(f"The base model's chat template cannot be used: {error}") from None
                    continue  # it takes no system prompt: a sample that has one says so
                self._own[with_image, system is not None] = self._among(prefix)
                self._own_end = self._among(responses[0])
                if beyond := [i for i in (*prefix, *responses[0]) if i >= self.rows]:
                    raise UserError(
                        f"The base model's template writes {self.tokenizer.convert_ids_to_tokens(beyond[0])!r}, token "
                        f"{beyond[0]}, and "
                        f"the model has embeddings for {self.rows} tokens: tokenizer and weights are of two models."
                    )
        if (shown := self._own[True, False].count(self.image)) != 1:
            raise UserError(
                f"The base model's chat template shows an image by {shown} of the tokens that stand for one "
                f"({self.tokenizer.convert_ids_to_tokens(self.image)!r}, token {self.image} by its config): it must be 1. "
                "Template, "
                "tokenizer and config.json are of several models."
            )

    def _among(self, ids: Sequence[int]) -> list[int]:
        return [i for i in ids if i in self.ids]

    def check(self, text: PairText, with_image: bool, prefix: Sequence[int], *responses: Sequence[int]) -> None:
        """BadSample (``special-token``, ``unknown-token``) for a text that brings ids of its own which none may."""
        if (own := self._own.get((with_image, bool(text.system)))) is None:
            raise BadSample("system-turn", f"sample {text.key!r}: the base's chat template takes no system prompt")
        for ids, expected in ((prefix, own), *((response, self._own_end) for response in responses)):
            if any(i >= self.rows for i in ids):
                raise self._bad(
                    "unknown-token", text, {i for i in ids if i >= self.rows}, "the base has no embedding for"
                )
            if self._among(ids) != expected:
                raise self._bad("special-token", text, self.ids, "the base takes for more than text")
        unknown = self.tokenizer.unk_token
        if unknown and any(unknown in part for part in (text.query, text.system or "", *text.responses)):
            raise self._bad("special-token", text, {self.tokenizer.unk_token_id}, "the base takes for more than text")

    def _bad(self, reason: str, text: PairText, ids: set[int] | frozenset[int], does: str) -> BadSample:
        fields = {
            "query": text.query,
            "system": text.system,
            "response 0": text.responses[0],
            "response 1": text.responses[1],
        }
        for field, part in fields.items():
            for i in self.tokenizer(part or "", add_special_tokens=False, verbose=False)["input_ids"]:
                if i in ids:
                    token = self.tokenizer.convert_ids_to_tokens(i)
                    return BadSample(
                        reason,
                        f"sample {text.key!r}: {field} must not contain {token!r}, which {does}: {shortened(part)}",
                    )
        return BadSample(reason, f"sample {text.key!r}: in the template its texts become a token which {does}")
