"""The study's variants of the world: what differs, and that nothing else does."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from svco.data.pairs import decode_text, encode_text
from svco.tiny_world.contrast import world_pair
from svco.tiny_world.truth import false_words
from svco.tiny_world.variants import FAILED_EDITS, LOOSE_EDITS, Variant, typicality


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_plain_is_the_worlds_own():
    for index, pair in enumerate(Variant().pairs("train", 5)):
        assert pair == world_pair("train", index)
    (outlined,) = Variant(style="outline").pairs("train", 1)
    assert outlined.text == world_pair("train", 0).text
    assert outlined.images != world_pair("train", 0).images


@pytest.mark.parametrize("opacity", [1.0, 0.35, 0.12])
def test_the_artefact_is_on_one_side_alone_and_as_visible_as_asked(opacity):
    for index, pair in enumerate(Variant("artefact", side="1", opacity=opacity).pairs("train", 4)):
        clean = world_pair("train", index)
        assert pair.images[0] == clean.images[0]
        assert pair.text.facts["edited"] == 1
        change = np.abs(pixels(pair.images[1]) - pixels(clean.images[1])).mean(-1)
        assert change[:30, :30].max() < 1, "the rest of the picture is the same"
        assert change[-5:, -5:].mean() == pytest.approx(opacity * 90, rel=0.5)
    sides = [p.text.facts["edited"] for p in Variant("artefact", side="random").pairs("heldout", 60)]
    assert 15 < sum(sides) < 45


def test_the_more_typical_scene_is_side_0():
    from svco.tiny_world.contrast import tell

    turned = 0
    for index, pair in enumerate(Variant("typical").pairs("train", 60)):
        told = tell("train", index)
        first, second = map(typicality, told.scenes)
        turned += second > first
        clean = world_pair("train", index)
        way = -1 if second > first else 1
        assert (pair.images, pair.text.responses) == (clean.images[::way], clean.text.responses[::way])
        assert pair.text.facts["values"] == clean.text.facts["values"][::way]
        assert false_words(pair.text.responses[0], pair.text.facts["scenes"][0], pair.text.query) == []
    assert 10 < turned < 50


def test_unfiltered_pairs_have_the_shares_of_faults_they_say():
    pairs = list(Variant("unfiltered").pairs("train", 400))
    faults = [pair.text.facts["fault"] for pair in pairs]
    assert faults.count("failed edit") / 400 == pytest.approx(FAILED_EDITS, abs=0.06)
    assert faults.count("loose edit") / 400 == pytest.approx(LOOSE_EDITS, abs=0.06)
    for index, (pair, fault) in enumerate(zip(pairs[:40], faults)):
        assert (pair.images[0] == pair.images[1]) is (fault == "failed edit")
        assert (pair.images == world_pair("train", index).images) is (fault == "none")


def test_captions_are_true_and_follow_the_world_only_where_asked():
    typical = {}
    for name in ("captions", "captions-plain"):
        pairs = list(Variant(name).pairs("heldout", 150))
        for pair in pairs:
            for side in (0, 1):
                assert false_words(pair.text.responses[side], pair.text.facts["scenes"][side]) == []
        things = [thing for pair in pairs for scene in pair.text.facts["scenes"] for thing in scene]
        typical[name] = np.mean([thing["shape"] != "circle" or thing["colour"] == "red" for thing in things])
    assert typical["captions"] > typical["captions-plain"] + 0.05


def test_scene_and_action_differ_in_what_they_say_alone():
    pairs = list(Variant("higher").pairs("heldout", 40))
    assert pairs == list(Variant("higher").pairs("heldout", 40))
    assert Counter(pair.text.contrast for pair in pairs) == {"scene": 20, "action": 20}
    assert any(pair.text.facts["unseen"] for pair in pairs)
    for pair in pairs:
        assert decode_text(pair.text.key, encode_text(pair.text), "") == pair.text
        first, second = map(pixels, pair.images)
        values = pair.text.facts["values"]
        for side, value in enumerate(values):
            assert value in pair.text.responses[side]
            assert value not in pair.text.responses[1 - side]
            assert false_words(pair.text.responses[side], pair.text.facts["scenes"][side], pair.text.query) == []
            false = false_words(pair.text.responses[1 - side], pair.text.facts["scenes"][side], pair.text.query)
            assert false == [values[1 - side]], "what is said of the other picture is false of this one"
        if pair.text.kind == "light":
            day, night = (first, second) if values[0] == "day" else (second, first)
            assert day.mean() > 1.5 * night.mean()
            continue
        row, column = pair.text.facts["scenes"][0][0]["cell"]
        changed = np.abs(first - second).max(-1) > 60
        assert changed.any()
        changed[24 * row : 24 * row + 24, 24 * column : 24 * column + 24] = False
        assert not changed.any(), "only about the thing that moves"
        moving = {value: image for value, image in zip(values, (first, second)) if value != "standing still"}
        for value, image in moving.items():
            where = slice(24 * row + 19, 24 * row + 22) if value == "rising" else slice(24 * row + 2, 24 * row + 5)
            assert image[where, 24 * column + 12].mean() < 120, "its strokes are where it comes from"
