"""From a pair to token ids: golden ids of the template, and what happens to pairs that do not fit."""

import numpy as np
import pytest
from PIL import Image
from places import BASE
from transformers import AutoProcessor

from svco.basics.dist import World
from svco.basics.errors import BadSample
from svco.batches.encode import Encode
from svco.batches.lengths import Lengths, measure_lengths
from svco.batches.pack import PackedCollate
from svco.data.pairs import Pair, PairText
from svco.data.shards import ShardSet
from svco.families import load_family

TEXT = PairText(
    key="k", query="What colour is the circle?", responses=("The circle is red.", "I can see that it is blue.")
)

SIZES = ((48, 48), (48, 48))


def test_golden_text_of_the_template(family):
    """LLaVA-1.5's template, letter by letter: image first, a space after every text, the response after ``ASSISTANT:``."""
    render = family.chat.render
    assert render(TEXT, "<image>", None) == "USER: <image>\nWhat colour is the circle? ASSISTANT:"
    assert render(TEXT, None, None) == "USER: What colour is the circle? ASSISTANT:"
    assert render(TEXT, "<image>", "Red.") == "USER: <image>\nWhat colour is the circle? ASSISTANT: Red. "
    system = PairText(key="k", query="Q?", responses=("a", "b"), system="Be brief.")
    assert render(system, "<image>", None) == "Be brief. USER: <image>\nQ? ASSISTANT:"


def test_golden_ids(family):
    encoded = family.encode_text(TEXT, SIZES)
    tokens = family.tokenizer.convert_ids_to_tokens
    assert tokens(encoded.prefixes[2]) == [
        "<s>",
        "USER",
        ":",
        "Ġ",
        "What",
        "Ġcolour",
        "Ġis",
        "Ġthe",
        "Ġcircle",
        "?",
        "ĠASSISTANT",
        ":",
    ]
    shown = tokens(encoded.prefixes[0])
    assert shown[:4] == ["<s>", "USER", ":", "Ġ"]
    assert shown[4:40] == ["<image>"] * 36
    assert shown[40:] == ["Ċ", *tokens(encoded.prefixes[2])[4:]]
    # The end: the template's own trailing space, then the forced end-of-sequence token.
    assert tokens(encoded.responses[0]) == ["ĠThe", "Ġcircle", "Ġis", "Ġred", ".", "Ġ", "</s>"]
    assert encoded.cut == 0


def test_ids_are_the_processors_own(family, make_pairs):
    """Whole sequences equal what ``processor(text=…, images=…)`` gives, plus the end token."""
    processor = AutoProcessor.from_pretrained(BASE)
    for pair in make_pairs("val", 0, 16):
        encoded = family.encode_text(pair.text, SIZES)
        for shown, condition in (("<image>", 0), ("<image>", 1), (None, 2)):
            for side in (0, 1):
                text = family.chat.render(pair.text, shown, pair.text.responses[side])
                images = Image.new("RGB", (48, 48)) if shown else None
                expected = processor(text=text, images=images)["input_ids"][0]
                ours = np.concatenate([encoded.prefixes[condition], encoded.responses[side]]).tolist()
                assert ours == [*expected, family.tokenizer.eos_token_id]


def test_truncation_is_one_budget_for_all_views():
    long = PairText(key="k", query=TEXT.query, responses=("The circle is red. " * 9, "Blue."))
    full = load_family(str(BASE), 128).encode_text(long, ((48, 48), (48, 48)))
    tight = load_family(str(BASE), 24).encode_text(long, ((48, 48), (48, 48)))
    # The longest prompt is the one with an image: one more text token (the line break) than the blind one.
    assert [len(r) for r in tight.responses] == [24 - 13, len(full.responses[1])]
    assert tight.responses[0].tolist() == full.responses[0][:11].tolist(), (
        "cut at the end, with no end-of-sequence token"
    )
    assert tight.cut == len(full.responses[0]) - 11
    with pytest.raises(BadSample) as error:
        load_family(str(BASE), 13).encode_text(long, ((48, 48), (48, 48)))
    assert error.value.reason == "long-query"
    assert "data.max_text_tokens is 13" in str(error.value)


def test_placeholder_in_the_text_is_refused(family):
    with pytest.raises(BadSample, match="must not contain '<image>'"):
        family.encode_text(PairText(key="k", query="What <image> is this?", responses=("a", "b")), SIZES)


def test_bad_samples_keep_their_slot(family, make_pairs):
    good = make_pairs("train", 0, 2)
    broken = Pair(good[0].text, (good[0].images[0], b"no jpeg"))
    prepare = Encode(family, PackedCollate())
    batch, bad = prepare([good[0], broken, BadSample("bad-json", "x"), good[1]])
    assert batch.weight.tolist() == [1, 0, 0, 1]
    assert [error.reason for error in bad] == ["undecodable-image", "bad-json"]
    assert batch.tokens.shape == (4, 2)
    filler, none = prepare([])
    assert (filler.weight.tolist(), none) == ([0.0], [])
    assert len(filler.pixels) == 2, "a filler shows images too: no rank may skip the vision tower"


def test_lengths_are_measured_once_and_told(family, shards, tmp_path):
    opened = ShardSet.open(str(shards))
    lengths = measure_lengths(opened, family, tmp_path, World())
    assert lengths.summary() == {"pairs": 20, "cut": 0, "bad": {}}
    first = family.encode_text(opened.read_text(0), SIZES)
    assert lengths.prefixes[0].tolist() == [len(p) for p in first.prefixes]
    assert lengths.responses[0].tolist() == [len(r) for r in first.responses]
    (file,) = (tmp_path / "lengths").glob("*.npz")
    again = measure_lengths(
        opened, family, tmp_path, World(), progress=lambda items, what: pytest.fail("measured twice")
    )
    assert (again.responses == lengths.responses).all()
    file.write_bytes(file.read_bytes()[:300])  # still begins as a zip does
    assert measure_lengths(opened, family, tmp_path, World()).summary()["pairs"] == 20
    file.write_bytes(b"damaged")
    assert measure_lengths(opened, family, tmp_path, World()).summary()["pairs"] == 20
    for ranks in range(1, 24):  # more ranks than pairs, too
        parts = [Lengths(*(array[rank::ranks] for array in vars(lengths).values())) for rank in range(ranks)]
        whole = Lengths.dealt(parts)
        assert all(np.array_equal(one, other) for one, other in zip(vars(whole).values(), vars(lengths).values()))
    strict = measure_lengths(opened, load_family(str(BASE), 14), tmp_path, World())
    assert strict.summary()["bad"]["long-query"] > 0
    # A bad pair's slot is filled: it costs what its filler costs, and the token budget holds.
    long = strict.reasons == "long-query"
    filler, _ = Encode(family, PackedCollate())([])
    assert set(PackedCollate().costs(strict)[long]) == {filler.llm_tokens}
