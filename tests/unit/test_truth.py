"""What counts as false of a scene: every true answer of the world has no false word, every wrong one has."""

from random import Random

import pytest

from svco.tiny_world.contrast import world_pairs
from svco.tiny_world.grammar import CAPTION_QUESTIONS, caption, questions
from svco.tiny_world.scenes import sample_scene
from svco.tiny_world.truth import false_words


def test_true_answers_say_nothing_false_and_the_other_sides_do():
    wrong = 0
    pairs = list(world_pairs("heldout", 0, 200))
    for pair in pairs:
        for side in (0, 1):
            scene, query = pair.text.facts["scenes"][side], pair.text.query
            assert false_words(pair.text.responses[side], scene, query) == [], pair.text
            wrong += bool(false_words(pair.text.responses[1 - side], scene, query))
    assert wrong == 2 * len(pairs), "the contradicting answer always says something false"


def test_terse_answers_and_captions():
    rng = Random(0)
    for number in range(300):
        scene = sample_scene(rng, ("one", "many", "two")[number % 3], number % 2 == 0)
        assert false_words(caption(scene), scene.facts(), CAPTION_QUESTIONS[0]) == []
        for question in questions(scene):
            assert false_words(question.answer(question.value, None), scene.facts(), question.ask(0)) == [], question


@pytest.mark.parametrize(
    ("answer", "false"),
    [
        ("The picture shows a blue circle left of a red star.", ["blue", "red"]),
        ("The picture shows a red circle right of a blue star.", ["right of"]),
        ("There is a green ring.", ["ring", "green"]),
        ("Two circle figures.", ["two"]),
        ("There are two circles and three rings.", ["ring", "two", "three"]),
        ("The blue one is a star.", []),
        ("One.", ["one"]),
        ("", []),
    ],
)
def test_words_belong_to_the_shape_they_describe(answer, false):
    scene = [
        {"shape": "circle", "colour": "red", "size": "large", "cell": [0, 0]},
        {"shape": "star", "colour": "blue", "size": "small", "cell": [0, 1]},
    ]
    assert false_words(answer, scene) == false
