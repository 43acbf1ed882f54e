"""The official files of benchmarks: the same rows and pictures in every form they come in, and what is wrong with a file."""

import builtins
import csv
import json

import pyarrow
import pytest
from benchmarks import picture as jpeg
from pyarrow import parquet

from svco.basics.errors import BadSample, UserError
from svco.commands.evaluation.benchmarks.rows import (
    check_pictures,
    need,
    opener,
    picture,
    picture_bytes,
    split_files,
    split_rows,
)
from svco.data import tables

COUNT = 70
"""Rows: more than are in memory at a time, and of several row groups."""
ROWS = [{"id": str(number), "question": f"Is this {number}?"} for number in range(COUNT)]


def _beside(folder):
    for number in range(COUNT):
        (folder / "img" / f"{number}.jpg").parent.mkdir(exist_ok=True)
        (folder / "img" / f"{number}.jpg").write_bytes(jpeg(number))
    return [row | {"image": f"{row['id']}.jpg"} for row in ROWS]


def _inside():
    """As ``datasets`` keeps an image: a struct of bytes and path."""
    return pyarrow.Table.from_pylist([row | {"image": {"bytes": jpeg(int(row["id"])), "path": None}} for row in ROWS])


def _json(folder):
    (folder / "test.json").write_text(json.dumps(_beside(folder)))


def _lines(folder):
    (folder / "test_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _beside(folder)))


def _csv(folder):
    with (folder / "test.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "question", "image"])
        table.writeheader()
        table.writerows(_beside(folder))


def _parquet(folder):
    (folder / "data").mkdir()
    parquet.write_table(_inside().slice(0, 50), folder / "data/test-00000-of-00002.parquet", row_group_size=20)
    parquet.write_table(_inside().slice(50), folder / "data/test-00001-of-00002.parquet")


def _bare_bytes(folder):
    table = _inside().to_pydict()
    rows = {**table, "image": [cell["bytes"] for cell in table["image"]]}
    parquet.write_table(pyarrow.table(rows), folder / "test.parquet")


def _names_in_parquet(folder):
    named = [row | {"image": {"bytes": None, "path": row["image"]}} for row in _beside(folder)]
    schema = pyarrow.schema(
        [*((name, pyarrow.string()) for name in ROWS[0]), ("image", _inside().schema.field("image").type)]
    )
    schema = schema.set(
        2, pyarrow.field("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    )
    parquet.write_table(pyarrow.Table.from_pylist(named, schema), folder / "test.parquet")


def _saved_by_datasets(folder):
    (folder / "test").mkdir()
    (folder / "dataset_dict.json").write_text('{"splits": ["test"]}')
    (folder / "test/dataset_info.json").write_text("{}")
    (folder / "test/state.json").write_text("{}")
    with (
        pyarrow.OSFile(str(folder / "test/data-00000-of-00001.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, _inside().schema) as out,
    ):
        out.write_table(_inside(), max_chunksize=20)


FORMS = [_json, _lines, _csv, _parquet, _bare_bytes, _names_in_parquet, _saved_by_datasets]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows_and_pictures(tmp_path, form):
    form(tmp_path)
    (tmp_path / "train.json").write_text("no JSON: another split is not opened")
    found = list(split_rows(tmp_path, "test", "it"))
    assert [{name: row[name] for name in ROWS[0]} for _, row in found] == ROWS
    shown = [picture(row, where, tmp_path, "image", beside=["img"]) for where, row in found]
    check_pictures(shown, tmp_path)
    assert [picture_bytes(one) for one in shown] == [jpeg(number) for number in range(COUNT)]
    assert [picture_bytes(shown[number]) for number in (69, 0, 45, 19, 20)] == [jpeg(n) for n in (69, 0, 45, 19, 20)]
    assert opener(shown[3], "3")().size == (48, 40)


def test_pictures_stay_in_their_file(tmp_path):
    """What is read of a table is small whatever its pictures are; a null is no picture."""
    rows = [{"id": "0", "image": {"bytes": b"x" * 2**20, "path": "0.jpg"}}, {"id": "1", "image": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    (where, first), (_, second) = split_rows(tmp_path, "test", "it")
    assert isinstance(first["image"], tables.Stored) and second == {"id": "1", "image": None}
    assert first["image"].read() == b"x" * 2**20 and where == f"{tmp_path / 'test.parquet'}, row 0"
    assert next(tables.rows(tmp_path / "test.parquet"))[1]["image"]["bytes"] == b"x" * 2**20  # importers want them
    tables._column.cache_clear()
    (tmp_path / "test.parquet").write_bytes(b"gone")
    with pytest.raises(BadSample, match="cannot be read"):
        first["image"].read()


@pytest.mark.parametrize(
    "form, file, damage, said",
    [
        (_parquet, "data/test-00001-of-00002.parquet", b"version https://git-lfs", "00001-of.*cannot be read.*Git LFS"),
        (_parquet, "data/test-00000-of-00002.parquet", None, "00000-of.*cannot be read"),
        (_saved_by_datasets, "test/data-00000-of-00001.arrow", None, "arrow cannot be read"),
        (_json, "test.json", None, "test.json is not the JSON it should be"),
        (_lines, "test_questions.jsonl", None, "test_questions.jsonl, line 36 is not JSON"),
        (_lines, "test_questions.jsonl", b"\xff\xfe", "not UTF-8 text: byte 0"),
        (_csv, "test.csv", b"id,question\n1\n", "line 2 has more or fewer cells"),
        (_csv, "test.csv", b"id,image\n1,\n", "row 2 has no picture and names none .image."),
        (_lines, "test_questions.jsonl", b'{"image": "../a.jpg"}', "names the image '../a.jpg', outside of"),
        (_lines, "test_questions.jsonl", b'{"image": "a.jpg"}', "1 of the 1 images of .* missing, e.g. .*a.jpg"),
        (_lines, "test_questions.jsonl", b"[3]", "holds a JSON list"),
    ],
)
def test_what_is_wrong_is_said_with_the_files_name(tmp_path, form, file, damage, said):
    form(tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(UserError, match=said):
        found = [
            picture(row, where, tmp_path, "image", beside=["img"]) for where, row in split_rows(tmp_path, "test", "it")
        ]
        check_pictures(found, tmp_path)


@pytest.mark.parametrize(
    "files, chosen",
    [
        ("test_2d.jsonl test_3d.jsonl test_2d.parquet latest.jsonl train/testing.jsonl", "test_2d.jsonl test_3d.jsonl"),
        ("test.jsonl test_2d.jsonl", "test.jsonl"),
        ("data/test-00000-of-00002.parquet data/non_test-00000-of-00001.parquet", "data/test-00000-of-00002.parquet"),
        ("data/test-00000-of-00001.parquet data/test_0412-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("Test/a.arrow train/a.arrow Test/state.json", "Test/a.arrow"),
        ("train.json", ""),
    ],
)
def test_a_split_is_a_word_of_one_kind(tmp_path, files, chosen):
    for name in files.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert " ".join(str(file.relative_to(tmp_path)) for file in split_files(tmp_path, "test")) == chosen


def test_what_a_release_lacks_is_said(tmp_path):
    with pytest.raises(UserError, match="no file of the split 'val'.*thing is the folder of its release"):
        list(split_rows(tmp_path, "val", "thing"))
    with pytest.raises(UserError, match="x lacks b, c: it has a, b"):
        need({"a": 1, "b": None}, "x", "a", "b", "c")


def test_without_pyarrow_it_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "test.parquet").write_bytes(b"")
    whole = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="needs pyarrow: pip install pyarrow"):
        list(split_rows(tmp_path, "test", "it"))
