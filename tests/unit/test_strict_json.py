"""JSON: written and read as Python's own module does it, but for what that lets pass."""

import ast
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from places import ROOT

from svco.basics import strict_json
from svco.basics.errors import BadSample
from svco.basics.strict_json import json_items, json_text, parse_json
from svco.data.pairs import decode_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_read_as_it_was_written(value):
    assert parse_json(json.dumps(value)) == value


@given(st.text(), VALUES, VALUES)
def test_a_name_given_twice_is_named(name, first, second):
    pair = f"{json.dumps(name)}: {json.dumps(first)}, {json.dumps(name)}: {json.dumps(second)}"
    for text in (f"{{{pair}}}", f'[{{"a": {{{pair}}}}}]'):
        with pytest.raises(ValueError, match="given twice") as error:
            parse_json(text)
        assert repr(name) in str(error.value)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "[" * 100_000, "{", ""])
def test_no_json(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_a_pair_with_a_field_given_twice_is_bad():
    twice = b'{"schema": 1, "query": "a?", "query": "b?", "responses": ["x", "y"]}'
    with pytest.raises(BadSample, match="'query' is given twice") as error:
        decode_text("k", twice, "shard.tar")
    assert error.value.reason == "bad-json"


@given(
    st.recursive(VALUES | st.floats(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
)
def test_what_is_written_parses_and_only_what_is_no_number_is_lost(value):
    def expected(value):
        if isinstance(value, dict):
            return {name: expected(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [expected(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    assert parse_json(json_text(value)) == expected(value)


def test_numbers_that_something_else_is_made_of():
    assert json_text({"a": {0.5, math.inf}}, default=sorted) == '{"a": [0.5, null]}'
    assert json_text({"b": (1, math.nan), "a": "ß"}, sort_keys=True, compact=True) == '{"a":"\\u00df","b":[1,null]}'
    with pytest.raises(TypeError):
        json_text({"a": object()})


def test_one_door_writes_json():
    """Nobody else makes JSON: what Python's own writer lets pass no other program reads."""
    door, found = ROOT / "svco" / "basics" / "strict_json.py", []
    peers = ROOT / "svco" / "commands" / "bench" / "rival_worker.py"  # runs where svco is not installed
    for path in (*(ROOT / "svco").rglob("*.py"), *(ROOT / "launchers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "json":
                found.append(path)  # by a name of its own it could not be seen below
            if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps", "JSONEncoder", "to_json"):
                found += [path] if isinstance(node.value, ast.Name) and node.value.id == "json" else []
    assert set(found) == {door, peers}, "the control: the door itself is found"


@given(st.lists(VALUES) | st.dictionaries(st.text(), VALUES), st.integers(1, 9), st.sampled_from([None, 1]))
@example([False, 10.0], 7, 1)  # cut between "10." and "0"
def test_items_are_those_of_the_whole(tmp_path_factory, value, chunk, indent):
    file = tmp_path_factory.mktemp("items") / "long.json"
    file.write_text(json.dumps(value, indent=indent, ensure_ascii=False), encoding="utf-8")
    whole = enumerate(value) if isinstance(value, list) else value.items()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_CHUNK", chunk)  # cuts through every kind of value
        assert list(json_items(file)) == list(whole)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither"),
        ('"a"', "neither"),
        ("[1, 2", "after item 1"),
        ("[1 2]", "after item 0"),
        ("[1, ]", "item 1"),
        ('{"a" 1}', "has no value"),
        ("{1: 1}", "has no name"),
        ("[1] [2]", "follows its end"),
        ("[1, NaN]", "NaN"),
        ('[{"a": 1, "a": 2}]', "given twice"),
        ("[" * 100_000, "too deeply"),
        ('["' + "a" * 300, "more than 256"),
    ],
)
def test_what_is_no_list_of_items(tmp_path, monkeypatch, text, says):
    monkeypatch.setattr(strict_json, "_CHUNK", 16)
    monkeypatch.setattr(strict_json, "MOST_ITEM", 256 if "aaa" in text else 2**20)
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        list(json_items(tmp_path / "bad.json"))
