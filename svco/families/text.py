"""From a pair's text to three prefixes and two responses, alike for every family that has a processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basics.errors import BadSample, UserError
from ..data.pairs import PairText
from ..data.schema import shortened, visible
from .chat import ChatEncoder
from .proof import prove
from .protocol import EncodedText, Size
from .special import SpecialTokens

if TYPE_CHECKING:
    from PIL.Image import Image


class TextSide:
    """The half of a family that turns pairs into token ids and images into pixels, and needs no weights.

    It is mixed into the family's architecture, which says how many features an image becomes. Tokenizer, image processor and
    template are loaded one by one: transformers' whole processors of newer families want a video processor, and that torchvision.
    Pixels are made by the Pillow backend everywhere, so that they do not depend on what else is installed.
    """

    name = ""
    features: Callable[[Any, Size], int]
    """(config, size of an image) -> its placeholders: the architecture's."""

    def __init__(self, base: str, max_text_tokens: int, paper_compat: bool = False):
        from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

        try:
            self.config = AutoConfig.from_pretrained(base, trust_remote_code=False)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
            self.image_processor = AutoImageProcessor.from_pretrained(base, backend="pil", trust_remote_code=False)
        except (
            Exception
        ) as error:  # OSError, ValueError, ImportError, KeyError, the hub's own for a config of wrong values, ...
            said = " ".join(str(error).split()[:60]) or type(error).__name__
            raise UserError(f"The config, tokenizer or image processor of {base!r} cannot be loaded: {said}") from None
        self.check_processor(base)
        self.image_token_id = self.config.image_token_id
        # As a text even where there is no such token: SpecialTokens says so.
        word = str(self.tokenizer.convert_ids_to_tokens(self.word_id))
        self.chat = ChatEncoder(self.tokenizer, chat_template(base, self.tokenizer), word)
        self.max_text_tokens = max_text_tokens
        self.paper_compat = paper_compat
        self.special = SpecialTokens(self.chat, self.config, self.word_id)
        self.pixel_fingerprint = self.image_processor.to_json_string()
        self._features: dict[Size, int] = {}
        prove(self, base)
        filler = self.filler_size
        written = self.image_text(filler)
        self.fingerprint = self.chat.fingerprint(
            max_text_tokens,
            paper_compat,
            self.features_of(filler),
            self.pixel_fingerprint,
            *([] if written == word else [written]),
        )

    def check_processor(self, base: str) -> None:
        """UserError for settings of the image processor with which the family cannot work."""

    @property
    def word_id(self) -> int:
        """The token that the template writes for an image: the placeholder itself, unless a family says otherwise."""
        return self.image_token_id

    def image_text(self, size: Size) -> str:
        """What stands for an image of ``size`` in place of the template's word. Each placeholder in it becomes an equal part of
        the image's features, so that one a tile is enough. Here the word itself. ValueError for a size that the processor
        refuses."""
        return self.chat.word

    @property
    def filler_size(self) -> Size:
        """Of an image that stands in the slot of a sample that has none: the smallest that the tower takes as it is."""
        side = self.config.vision_config.image_size
        return (side, side)

    def features_of(self, size: Size) -> int:
        """Placeholders of an image of ``size``."""
        if size not in self._features:
            self._features[size] = self.features(self.config, size)
        return self._features[size]

    def positions(self, prefix: np.ndarray, size: Size | None) -> np.ndarray:
        """(axes, tokens of the prefix) int64 positions; ``size`` is its image's, None without one."""
        return np.arange(len(prefix), dtype=np.int64)[None]

    def encode_text(self, text: PairText, image_sizes: tuple[Size, Size]) -> EncodedText:
        """Three prefixes and two responses. Text is cut at ``max_text_tokens``, what stands for an image not counted.

        The budget of the responses is what the longest prompt leaves, one for all views and both sides, so that
        truncation never differs between match and blind. A cut response keeps no end token. ``paper_compat`` cuts as the
        authors do: the placeholder counts as one token, and every view has a budget of its own.
        """
        image_prefix, responses = self.chat.encode_all(text, self.chat.word)

        @cache  # both images often have one size
        def prefix_of(image: str | None) -> list[int]:
            prefix, same = self.chat.encode_all(text, image)
            if same != responses:
                raise BadSample(
                    "unsplittable", f"sample {text.key!r}: the response's tokens differ with and without an image"
                )
            return prefix

        blind_prefix = prefix_of(None)
        self.special.check(text, True, image_prefix, *responses)
        self.special.check(text, False, blind_prefix)
        self._check_seen(text, responses)
        shown_budget = self.max_text_tokens - len(image_prefix) + (0 if self.paper_compat else 1)
        blind_budget = self.max_text_tokens - len(blind_prefix)
        if not self.paper_compat:
            shown_budget = blind_budget = min(shown_budget, blind_budget)
        longest, shortest = max(shown_budget, blind_budget), min(shown_budget, blind_budget)
        if shortest < 1:
            raise BadSample(
                "long-query",
                f"sample {text.key!r}: its prompt has {self.max_text_tokens - shortest} text tokens and "
                f"data.max_text_tokens is {self.max_text_tokens}, which leaves no room for a response",
            )
        prefixes, positions = zip(
            *(self._prefix(text, image_prefix, size, prefix_of) for size in image_sizes),
            self._prefix(text, blind_prefix, None, prefix_of),
            strict=True,
        )
        first, second = (np.asarray(r[:longest], dtype=np.int64) for r in responses)
        if np.array_equal(first[:shortest], second[:shortest]):
            raise BadSample(
                "same-responses",
                f"sample {text.key!r}: both responses have the same {len(first[:shortest])} tokens, as far as "
                "data.max_text_tokens = "
                f"{self.max_text_tokens} lets them be scored, which is no contrast",
            )
        return EncodedText(
            prefixes=prefixes,
            responses=(first, second),
            cut=sum(max(0, len(r) - shortest) for r in responses),
            positions=positions,
            budgets=(shown_budget, shown_budget, blind_budget),
        )

    def prompt(self, text: PairText, size: Size | None) -> np.ndarray:
        """What the model is given to answer ``text``'s query about an image of ``size``, or about none: 1-D int64, a placeholder
        a feature.

        The prefix of :meth:`encode_text`, which no budget cuts. ``paper_compat``: where the family ends responses with the
        end-of-sequence token (LLaVA-1.5), the prompt ends with one too, as the authors' evaluator writes it.
        """
        ids = self.chat.ask(text, None if size is None else self.chat.word)
        self.special.check(text, size is not None, ids)
        asked, _ = self._prefix(text, ids, size, lambda image: self.chat.ask(text, image))
        end = self.chat.end_of_response if self.paper_compat else ()
        return np.concatenate([asked, np.asarray(end, dtype=np.int64)])

    @property
    def ends(self) -> list[int]:
        """Token ids that end an answer."""
        return self.chat.ends

    def decode(self, ids: Any) -> str:
        """The text of generated ids, without special tokens and white space around it."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _check_seen(self, text: PairText, responses: list[list[int]]) -> None:
        for side, ids in enumerate(responses):
            if not visible(self.tokenizer.decode(ids, skip_special_tokens=True)):
                raise BadSample(
                    "empty-response",
                    f"sample {text.key!r}: nothing is left of response {side} ({shortened(text.responses[side])}) in the "
                    "base's tokens",
                )

    def _prefix(
        self, text: PairText, prompt: list[int], size: Size | None, encode: Callable[[str], list[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(the ids of ``prompt``, which has the template's word, with one placeholder a feature of its image, their positions);
        ``encode`` gives the prompt's ids with another text in place of the word."""
        if size is None:
            ids = np.asarray(prompt, dtype=np.int64)
            return ids, self.positions(ids, None)
        if min(size) < 1:
            raise BadSample("undecodable-image", f"sample {text.key!r}: an image has no size that can be read")
        try:
            features, written = self.features_of(size), self.image_text(size)
        except ValueError as error:  # the processor refuses it, e.g. its aspect ratio
            raise BadSample(
                "odd-image", f"sample {text.key!r}: an image of {size[0]} × {size[1]} pixels: {error}"
            ) from None
        ids = np.asarray(prompt if written == self.chat.word else encode(written), dtype=np.int64)
        here = ids == self.image_token_id
        expanded = np.repeat(ids, np.where(here, features // here.sum(), 1))
        return expanded, self.positions(expanded, size)

    def filler_text(self, token: np.ndarray) -> EncodedText:
        size = self.filler_size
        shown = np.full(self.features_of(size), self.image_token_id, dtype=np.int64)
        positions = self.positions(shown, size)
        blind = self.positions(token, None)
        return EncodedText((shown, shown, token), (token, token), 0, (positions, positions, blind))

    def filler_image(self) -> Image:
        from PIL import Image

        return Image.new("RGB", self.filler_size)

    def image_token_mask(self, ids: Any) -> Any:
        return ids == self.image_token_id


def chat_template(base: str, tokenizer: Any) -> str | None:
    """The template that comes with a model, wherever its release keeps it."""
    from transformers import ProcessorMixin

    found = ProcessorMixin.get_processor_dict(base)[0].get("chat_template") or tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found
