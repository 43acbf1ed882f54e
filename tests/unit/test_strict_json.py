"""JSON from elsewhere: read as Python's own reader does, but for what that lets pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svco.basics.errors import BadSample
from svco.basics.strict_json import parse_json
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
