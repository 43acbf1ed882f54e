"""One schema at every entrance: what a record may say, ``pair.json`` may, and nobody meets what another let pass."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svco.basics.errors import BadSample, UserError, allowing
from svco.basics.strict_json import json_lines
from svco.commands.data.importers import IMPORTERS
from svco.commands.data.records import make_record, read_records, write_records
from svco.data.pairs import Pair, PairText, decode_text, encode_text
from svco.data.schema import NO_CONTRAST, as_read, visible

GOOD = {"query": "Which one?", "responses": ["The left one.", "The right one."]}
PICTURES = ["a.jpg", "b.jpg"]
LINE_ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
"""Where str.splitlines parts besides \\n and \\r; the last five must be escaped in JSON."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(LINE_ENDS + "\u200b\ufeff\u3164\r\n"))
"""Whatever can be written."""


def verdict(check):
    """(reason or None, the pair's text) by one of the doors."""
    try:
        return None, check()
    except (BadSample, UserError) as error:
        return getattr(error, "reason", "mistake"), None


def by_both_doors(fields):
    """What the record's door and the shard's say of the same fields."""
    stored = json.dumps({"schema": 1, **fields}).encode()
    record = {("type" if name == "contrast" else name): value for name, value in fields.items()}
    there, shard = verdict(lambda: decode_text("k", stored, "x.tar"))
    here, made = verdict(lambda: make_record(record | {"images": PICTURES}, "f, line 1"))
    if here == "mistake":
        here = there if there and there not in NO_CONTRAST else "mistake"
    return (here, there), made, shard


FIELD_VALUES = {
    "query": ["Q?", "", " ", "\u200b\u2060\ufeff", "\u3164", "\u0301", "?", "😀", 1, None, ["Q?"], "a\ud83d", "a\u2028b"],
    "responses": [
        ["a", "b"], ["a", "a"], ["a", " a\u200b"], ["a\u0301", "\u00e1"], ["a", ""], ["\u2800", "b"], ["a"], ["a", "b", "c"],
        ["a", 1], "ab", None, ["a", "b\udc00"], [["a"], "b"],
    ],
    "contrast": ["object", "unknown", "", None, "colour", 1, ["object"], {}],
    "source": ["mvc", "", None, 3, ["mvc"], {"a": 1}, "\ud83d"],
    "system": ["You see.", "", None, " ", "\u200b", 5, [], ["You see."], False],
    "ids": [{"a": "b"}, {"a": 3}, {}, None, [], ["a"], "a", {"a": None}, {"a": True}, {"a": 1.5}, {"a": ["b"]}, {"\ud83d": "a"}],
    "kind": ["colour", "", None, 3],
    "facts": [{"scenes": [1]}, None, {}, [], "x", {"a": {"b": ["\udc80"]}}, json.loads('{"a":' * 80 + "1" + "}" * 80)],
    "sytem": ["a misspelt field"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in FIELD_VALUES.items() for value in values],
    ids=lambda value: ascii(value)[:30],
)
def test_both_doors_say_the_same(name, value):
    (here, there), made, shard = by_both_doors(GOOD | {name: value})
    assert here == there
    if here is None:
        for field in ("query", "responses", "system", "source", "ids", "kind", "facts"):
            assert getattr(made, field) == getattr(shard, field), field
        assert (made.type, decode_text("k", encode_text(shard), "")) == (shard.contrast, shard)
    else:
        assert name != "query" or value not in ("Q?", "?", "😀")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ids", ["a"], "'ids' must be an object"),
        ("source", 3, "'source' must be a string"),
        ("system", ["You see."], "'system' must be a string"),
        ("query", "a \ud83d ?", "field 'query' holds half a surrogate pair"),
        ("responses", ["a", "b\udc00"], r"field 'responses\[1\]' holds half"),
        ("facts", {"a": {"b": ["\udc80"]}}, r"field 'facts.a.b\[0\]' holds half"),
        ("responses", ["a", "\u200b\u2060"], "response 1 is empty"),
        ("responses", ["a ", "a\u200b"], "which is no contrast"),
        ("sytem", "x", "unknown field 'sytem'"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_field(name, value, says):
    with pytest.raises(BadSample, match=says) as error:
        decode_text("the-key", json.dumps({"schema": 1, **GOOD, name: value}).encode(), "some.tar")
    assert "some.tar: sample 'the-key': pair.json: " in str(error.value)
    str(error.value).encode()  # and can be printed
    with pytest.raises((UserError, BadSample), match=says) as error:
        make_record(GOOD | {"images": PICTURES, name: value}, "mine.jsonl, line 7")
    assert str(error.value).startswith("mine.jsonl, line 7: ")


@settings(max_examples=300, deadline=None)
@given(VALUES | st.fixed_dictionaries({}, optional={name: VALUES for name in (*FIELD_VALUES, "schema")}))
def test_whatever_json_says_is_taken_or_named(value):
    """By both doors alike, and without a third thing happening."""
    data = json.dumps(value).encode()
    assert verdict(lambda: decode_text("k", data, "x.tar"))[0] in (None, *BadSample.REASONS)
    verdict(lambda: make_record(value, "f, line 1"))
    if isinstance(value, dict):
        value.pop("schema", None)
        (here, there), _, _ = by_both_doors(value)
        assert here == there


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_bytes_that_are_no_pair_are_named(data):
    assert verdict(lambda: decode_text("k", data, "x.tar"))[0] in (None, *BadSample.REASONS)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    st.booleans(),
)
def test_lines_end_where_json_lines_end(tmp_path_factory, rows, ending, mark):
    """What is written by others (any characters, unescaped; CR LF; a byte-order mark) is read as it was meant, and again as
    written."""
    path = tmp_path_factory.mktemp("lines") / "r.jsonl"
    objects = [{"query": f"q{q}", "images": PICTURES, "responses": [f"a{a}", f"b{b}"]} for q, a, b in rows]
    text = ("\ufeff" if mark else "") + ending.join(json.dumps(o, ensure_ascii=False) for o in objects)
    path.write_bytes(text.encode())
    records = read_records(path, left := [])
    assert [(r.query, list(r.responses)) for r in records] == [(o["query"], o["responses"]) for o in objects]
    assert not left
    write_records(path, records)
    assert read_records(path, []) == records


def test_python_parts_lines_elsewhere():
    """The control: with str.splitlines the test above would fail."""
    line = json.dumps({"query": "a\u2028b\x85c"}, ensure_ascii=False)
    assert len(line.splitlines()) == 3
    assert [text for _, text in json_lines(line + "\r\n\n" + line)] == [line, line]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(IMPORTERS)),
    st.binary() | st.text().map(str.encode) | VALUES.map(lambda v: json.dumps(v).encode()),
)
def test_a_file_that_is_none_is_refused_in_words(tmp_path_factory, form, data):
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(data)
    with pytest.raises(UserError, match=str(path)):
        IMPORTERS[form](path, [])


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("jsonl", '[{"query": "a"}]', "holds a JSON list; records are JSON lines.*mvc-json"),
        ("jsonl", '{\n "query": "a"\n}', "an object that runs over several lines"),
        ("mvc-json", '{"a": 1}\n{"a": 2}\n', "holds JSON lines.*imported as jsonl"),
        ("jsonl", '{"query": "a"}'.encode("utf-16"), "is not UTF-8 text: byte 0 is 0xff"),
        ("mvc-json", "[]", "must hold a non-empty JSON list"),
        ("jsonl", "", "holds no records"),
        ("jsonl", '{"query": "a?", "query": "b?"}', "line 1 is not JSON: 'query' is given twice"),
    ],
)  # fmt: skip
def test_one_kind_of_file_taken_for_another_is_told_by_name(tmp_path, form, text, says):
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says):
        IMPORTERS[form](path, [])


def test_pairs_that_are_no_contrast_are_left_out_and_named(tmp_path):
    path = tmp_path / "r.jsonl"
    rows = [{}, {"responses": ["It is b.", "It is b. "]}, {"images": ["a.jpg", "./a.jpg"]}]
    path.write_text("\n".join(json.dumps(GOOD | {"images": PICTURES} | row) for row in rows))
    assert len(read_records(path, left := [])) == 1
    assert [(error.reason, str(error).partition(":")[0][-6:]) for error in left] == [
        ("same-responses", "line 2"),
        ("same-images", "line 3"),
    ]
    with pytest.raises(BadSample, match="no contrast"):
        Pair.of("Q?", ("a", "a"), (b"", b""))
    with pytest.raises(BadSample, match="surrogate"):
        Pair.of("Q\ud83d?", ("a", "b"), (b"", b""))


@given(st.text())
def test_what_is_seen_is_what_unicode_shows(text):
    """Nothing is invisible to the check that has a letter or digit; nothing is visible that is made of white space and format
    characters."""
    if any(
        c.isalnum()
        for c in text.replace("\u3164", "").replace("\u115f", "").replace("\u1160", "").replace("\uffa0", "")
    ):
        assert visible(text)
    assert not visible("".join(c for c in text if c.isspace()) + "\u200b\u200d\ufe0f\u00ad\u034f\u2060\ufeff")
    assert as_read(f" {text}\u200b") == as_read(text)


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_a_suggested_share_is_accepted(total, lost):
    lost = min(lost, total)
    share = float(allowing(lost, total))
    assert lost <= share * total and share <= 1
    assert not lost or lost > (share - 0.02) * total, "and is not larger than it needs to be"


def test_texts_survive():
    text = PairText("k", "Q?", ("a", "b"), "object", "s", {"n": "1"}, "You see.", "colour", {"scenes": [{}, {}]})
    assert decode_text("k", encode_text(text), "x.tar") == text
