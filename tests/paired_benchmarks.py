"""Tiny Winoground, VisMin-Bench and NaturalBench in the form of their releases, of the embedded world's pairs."""

from __future__ import annotations

import json

import pyarrow
from pyarrow import parquet

from svco.tiny_world.contrast import world_pairs

CATEGORIES = ("object", "attribute", "counting", "relation")


def pairs(count, start=0):
    return list(world_pairs("val", start, count))


def make_winoground(folder, count=4):
    """``data/examples.jsonl`` and ``data/images/ex_N_img_S.png``, as they are when images.zip is unpacked."""
    images = folder / "data" / "images"
    images.mkdir(parents=True)
    lines = []
    for number, pair in enumerate(pairs(count)):
        for side in (0, 1):
            (images / f"ex_{number}_img_{side}.png").write_bytes(pair.images[side])
        lines.append(
            {
                "id": number,
                "image_0": f"ex_{number}_img_0",
                "image_1": f"ex_{number}_img_1",
                "caption_0": pair.text.responses[0],
                "caption_1": pair.text.responses[1],
                "tag": "Noun, Color",
                "secondary_tag": "",
                "num_main_preds": 1 + number % 2,
                "collapsed_tag": ("Object", "Relation")[number % 2],
            }
        )
    (folder / "data" / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def make_winoground_parquet(folder, count=4):
    """The same as the hub converts it."""
    made = make_winoground(folder / "lines", count) / "data"
    rows = [json.loads(line) for line in (made / "examples.jsonl").read_text().splitlines()]
    for row in rows:
        for name in ("image_0", "image_1"):
            row[name] = {"bytes": (made / "images" / f"{row[name]}.png").read_bytes(), "path": None}
    (folder / "data").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data" / "test-00000-of-00001.parquet")
    for file in made.rglob("*"):
        if file.is_file():
            file.unlink()
    return folder


def vismin_rows(count):
    for number, pair in enumerate(pairs(count, 8)):
        yield {
            "image_0": {"bytes": pair.images[0], "path": f"{number}_0.png"},
            "image_1": {"bytes": pair.images[1], "path": f"{number}_1.png"},
            "text_0": pair.text.responses[0],
            "text_1": pair.text.responses[1],
            "id": f"vismin-{number}",
            "category": CATEGORIES[number % 4],
            "image_question_0": "Which image is it?",
            "text_question_0": "Which text is it?",
        }


def make_vismin_bench(folder, count=4):
    """``data/test/data-0000N-of-00002.arrow`` as ``datasets`` saves them, and what it writes beside."""
    test = folder / "data" / "test"
    test.mkdir(parents=True)
    rows = list(vismin_rows(count))
    for part, some in enumerate((rows[: count // 2], rows[count // 2 :])):
        table = pyarrow.Table.from_pylist(some)
        with pyarrow.ipc.new_stream(str(test / f"data-{part:05d}-of-00002.arrow"), table.schema) as stream:
            stream.write_table(table)
    (folder / "data" / "dataset_dict.json").write_text(json.dumps({"splits": ["test"]}))
    (test / "state.json").write_text(json.dumps({"_data_files": []}))
    (test / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def naturalbench_rows(count):
    """Samples of both types in turn; question 1's answers are the other way round, as in the release."""
    for number, pair in enumerate(pairs(count, 16)):
        choice = number % 2
        answers = ("A", "B") if choice else ("Yes", "No")
        options = f"\nOption: A: {pair.text.responses[0]} B: {pair.text.responses[1]}\n" if choice else " "
        yield {
            "Index": number,
            "Question_0": f"{pair.text.query}{options}",
            "Question_1": f"What else: {pair.text.query}{options}",
            "Image_0": {"bytes": pair.images[0], "path": None},
            "Image_1": {"bytes": pair.images[1], "path": None},
            "Image_0_Question_0": answers[0],
            "Image_1_Question_0": answers[1],
            "Image_0_Question_1": answers[1],
            "Image_1_Question_1": answers[0],
            "Question_Type": "multiple_choice" if choice else "yes_no",
            "Source": ("Flickr", "DOCCI")[number // 2 % 2],
        }


def make_naturalbench(folder, count=4, rows=None):
    """``data/train-00000-of-00001.parquet``."""
    (folder / "data").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(list(rows or naturalbench_rows(count)))
    parquet.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    return folder
