"""Importers: releases in their true layouts to records, each rule and each missing file by name."""

import collections
import csv
import json
import tracemalloc

import pytest
import sources
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sources import put
from test_data_tools import svco

from svco import __version__
from svco.basics import strict_json
from svco.basics.errors import UserError
from svco.basics.progress import silent
from svco.commands.data.images import Roots
from svco.commands.data.importing import import_records
from svco.commands.data.records import stream_records
from svco.commands.data.sources.raw import Raw
from svco.commands.data.sources.table import SOURCES
from svco.data import tables
from svco.data.shards import ShardSet


class Import:
    """``svco data import`` as typed, in this process."""

    def __init__(self, monkeypatch, capsys, folder):
        self.monkeypatch, self.capsys, self.out = monkeypatch, capsys, folder / "out" / "records.jsonl"
        self.out.parent.mkdir()

    def __call__(self, *words):
        """(records, what was said)."""
        code = svco(self.monkeypatch, "data", "import", *words, "-o", self.out)
        said = self.capsys.readouterr()
        assert code == 0, said.err
        return list(stream_records(self.out)), said.out

    def refused(self, *words):
        """What is said on the way out."""
        assert svco(self.monkeypatch, "data", "import", *words, "-o", self.out) == 2
        assert not self.out.exists()
        assert not list(self.out.parent.glob(".*")), "nothing half-written is left"
        error = self.capsys.readouterr().err
        assert "Traceback" not in error
        return " ".join(error.split())


@pytest.fixture
def imported(tmp_path, monkeypatch, capsys):
    return Import(monkeypatch, capsys, tmp_path)


def by(records, *fields):
    return collections.Counter(tuple(getattr(record, field) for field in fields) for record in records)


def test_countercurate(tmp_path, imported):
    train_data = sources.countercurate(tmp_path / "train_data")
    records, said = imported("countercurate", train_data)
    assert by(records, "kind", "type") == {
        ("left_right", "position"): 6,
        ("up_down", "position"): 3,
        ("counting", "relation"): 6,
        ("noun", "object"): 3,
        ("adjective", "attribute"): 3,
    }
    assert "left out: 3 × dalle_gen_counterfactuals: no reverse caption" in said
    assert "21 have no question yet" in said
    assert by(records, "source", "licence") == {("countercurate", "cc (the hub card names no version)"): 21}
    assert len({tuple(sorted(record.ids.items())) for record in records}) == 21, (
        "image_id starts again for each picture"
    )
    left = next(record for record in records if record.kind == "left_right")
    assert left.images == ("left_right/pos/1000.jpg", "left_right/neg/1000.png")
    assert left.captions == ("left 0", "right 0")
    assert left.extra == {"phrases": ["a dog"], "coords": [[0, 1]]}
    made = imported.out.parent / "records.images"
    assert f"--images {train_data} --images {made}" in said
    with Image.open(train_data / left.images[0]) as positive, Image.open(made / left.images[1]) as mirror:
        assert ImageOps.mirror(positive).tobytes() == mirror.tobytes(), "kept without loss"
    counts = [record for record in records if record.kind == "counting"]
    assert {record.images[1] for record in counts} >= {"counting/neg/1000_0.png", "counting/neg/1000_1.jpg"}
    assert not any("input_image" in record.extra for record in counts)
    assert next(record for record in records if record.kind == "noun").captions == ("a dog 1000", "a cat")


def test_no_release_writes_elsewhere(tmp_path, imported):
    train_data = tmp_path / "train_data"
    put(train_data / "left_right.json", {"../../../up": [{"pos": "a", "neg": "b"}]})
    put(tmp_path / "up.jpg", sources.encoded(1))
    (train_data / "left_right/pos").mkdir(parents=True)
    assert "would be written outside of" in imported.refused("countercurate", train_data)
    assert not list(tmp_path.rglob("up.png"))


def test_countercurate_takes_the_authors_mirrors_and_prefers_the_record_s_own(tmp_path, imported):
    train_data = sources.countercurate(tmp_path / "train_data", 1)
    put(train_data / "left_right/neg/1000.jpg", sources.encoded(7))
    put(train_data / "left_right/neg/1000_1.jpg", sources.encoded(8))
    records, _ = imported("countercurate", train_data, "--parts", "left_right")
    assert [record.images[1] for record in records] == ["left_right/neg/1000.jpg", "left_right/neg/1000_1.jpg"]
    assert not (imported.out.parent / "records.images").exists()


def test_countercurate_counts_what_it_has_not(tmp_path, imported):
    train_data = sources.countercurate(tmp_path / "train_data", 2)
    for name in (
        "up_down/neg/1000.jpg",
        "dalle_gen_counterfactuals/1000_noun.jpg",
        "left_right/pos/1001.jpg",
        "counting.json",
    ):
        (train_data / name).unlink()
    (train_data / "flickr30k-images/1001.jpg").unlink()
    captions = json.loads((train_data / "flickr30k_image_captions.json").read_text())
    put(train_data / "flickr30k_image_captions.json", {"1001": captions["1001"]})
    error = imported.refused("countercurate", train_data)
    assert "4 of 7 pairs lack an image" in error  # two of left_right, the noun and the adjective of the photograph
    assert (
        "2 missing under flickr30k-images/ (the Flickr30k images, on request from the University of Illinois" in error
    )
    assert "2 missing under left_right/ (CounterCurate's data set" in error
    assert "--max-missing 0.58" in error, "rounded up"
    records, said = imported("countercurate", train_data, "--max-missing", 0.58)
    assert len(records) == 3
    assert "up_down: no negative image" in said
    assert "left out: 2 × dalle_gen_counterfactuals: the photograph has no caption" in said
    assert "not there, so not imported: counting.json" in said
    (train_data / "flickr30k_image_captions.json").unlink()
    imported.out.unlink()
    assert "--parts left_right,up_down." in imported.refused("countercurate", train_data)
    assert "lacks counting.json" in imported.refused("countercurate", train_data, "--parts", "counting")
    assert "no such part" in imported.refused("countercurate", train_data, "--parts", "upside_down")
    assert "takes the folder train_data" in imported.refused("countercurate", tmp_path)
    put(train_data / "up_down.json", {"1000": [{"pos": "above"}]})
    assert "'1000', record 0 lacks neg" in imported.refused("countercurate", train_data, "--parts", "up_down")


def test_finecops(tmp_path, imported):
    release = sources.finecops(tmp_path / "finecops")
    records, said = imported("finecops-ref", release)
    assert by(records, "kind", "type") == {
        ("object", "object"): 2,
        ("attribute", "attribute"): 1,
        ("relation", "relation"): 1,
        ("odd", "unknown"): 1,
    }
    for reason in ("negative_type is order", "its positive_id is in no file", "the negative is a text"):
        assert f"left out: 1 × {reason}" in said
    first = records[0]
    assert first.images == ("images/231.jpg", "neg_images/n10.jpg")
    assert first.captions == ("the dog 1", "the cat 10")
    assert first.ids == {"id": "10", "positive_id": "1"}
    assert first.licence == "not stated"
    assert first.extra["ori_type"] == "1_hop"
    assert records[1].images[1] == "neg_images/n11.png"
    (release / "neg_images").rename(release / "elsewhere")
    imported.out.unlink()
    error = imported.refused("finecops-ref", release)
    assert "5 missing under neg_images/ (FineCops-Ref's release at figshare, which does not say where" in error
    assert len(imported("finecops-ref", release, "--negatives", "elsewhere")[0]) == 5
    imported.out.unlink()
    (release / "images/231.jpg").unlink()
    assert "4 missing under images/ (GQA's" in imported.refused("finecops-ref", release, "--negatives", "elsewhere")
    only_coco = release / "expression_all_train_set_coco_format.json"
    assert "only the COCO form" in imported.refused("finecops-ref", only_coco)


@pytest.mark.parametrize("form", ["json", "datasets"])
def test_vismin(tmp_path, imported, form):
    path = sources.vismin(tmp_path / "vismin")
    if form == "datasets":
        sources.saved_by_datasets(tmp_path / "saved", sources.vismin_entries())
        records, said = imported("vismin", tmp_path / "saved", "--images", tmp_path / "vismin")
    else:
        records, said = imported("vismin", path)
    assert [record.type for record in records] == ["object", "attribute", "relation", "position", "unknown"]
    assert records[3].images == ("coco/images/train2017/000000234136.jpg", "edited/coco/234136/3.png")
    assert records[3].captions == ("Two men.", "edit 3")
    assert records[3].ids == {"image": "234136", "edit": "e3"}
    assert records[3].extra == {"category": "relation(left of)", "source": "coco"}
    assert records[0].licence.startswith("CC BY-SA 4.0")
    assert "left out: 1 × no negatives" in said


def test_vismin_without_its_images(tmp_path, imported):
    path = sources.vismin(tmp_path / "vismin")
    (tmp_path / "vismin/coco/images/train2017/000000234136.jpg").unlink()
    (tmp_path / "vismin/edited/coco/234136/2.png").unlink()
    error = imported.refused("vismin", path)
    assert "5 missing under coco/ (COCO 2017's images)" in error
    assert "1 missing under edited/" in error
    put(path, [{"image_path": "a.jpg"}])
    assert "row 0 lacks caption" in imported.refused("vismin", path)


def test_vlfeedback(tmp_path, imported):
    release = sources.vlfeedback(tmp_path / "vlf")
    records, said = imported("vlfeedback", release)
    assert "left out: 1 × a tie" in said
    assert "left out: 1 × an answer without three ratings" in said
    (record,) = records
    assert (record.query, record.responses) == ("What is there?", ("A dog, black.", "A cat."))
    assert record.ids == {"id": "lrv-1", "chosen": "c", "rejected": "b"}
    assert record.extra["ratings"] == [5, 7 / 3]
    assert record.extra["corrupted"]["kind"] == "crop"
    assert record.images == ("merged_images/lrv-1.jpg", "merged_images/lrv-1.crop.png")
    made = imported.out.parent / "records.images" / record.images[1]
    first = made.read_bytes()
    assert Image.open(made).size == (24, 16)
    records, _ = imported("vlfeedback", release, "--pairs", "all")
    assert [record.responses[1] for record in records] == ["A dog.", "A cat.", "A cat."]
    assert made.read_bytes() == first, "the same each time"
    subset = put(
        tmp_path / "subset.json", [{"img_path": "lrv-2.jpg", "prompt": "Q?", "chosen": "a", "rejected": "b", "more": 1}]
    )
    (record,) = imported("vlfeedback", subset, "--images", tmp_path / "vlf", "--corrupt", "noise")[0]
    assert (record.responses, record.extra["more"], record.kind) == (("a", "b"), 1, "preference-noise")
    (tmp_path / "vlf/merged_images/lrv-2.jpg").unlink()
    imported.out.unlink()
    error = imported.refused("vlfeedback", subset, "--images", tmp_path / "vlf")
    assert "1 missing under merged_images/ (VLFeedback's merged_images.zip" in error


def test_ic_vco(tmp_path, imported):
    release = sources.ic_vco(tmp_path / "IC-VCO-Dataset")
    records, said = imported("ic-vco", release)
    (record,) = records
    assert record.images == ("images/0.jpg", "images/1.jpg")
    assert (record.query, record.responses) == ("What?", ("A dog.", "A cat."))
    assert record.extra == {"chosen_response_spans": [[2, 5]], "rejected_response_spans": [[2, 5]]}
    assert record.licence.startswith("Apache-2.0")
    assert "left out: 1 × other than two images" in said
    assert "left out: 1 × an empty text" in said
    inside = [
        {
            "prompt": "Q?",
            "chosen": "a",
            "rejected": "b",
            "images": [{"bytes": sources.encoded(n), "path": "x"} for n in (0, 1)],
        }
    ]
    (record,) = imported("ic-vco", sources.parquet(tmp_path / "loaded.parquet", inside))[0]
    assert (imported.out.parent / "records.images" / record.images[1]).read_bytes() == sources.encoded(1)
    imported.out.unlink()
    (release / "images/1.jpg").unlink()
    assert "1 missing under" in imported.refused("ic-vco", release)
    put(tmp_path / "broken.parquet", "version https://git-lfs.github.com/spec/v1")
    assert "a clone needs Git LFS" in imported.refused("ic-vco", tmp_path / "broken.parquet")
    without = sources.parquet(tmp_path / "without.parquet", [{"prompt": "Q?"}])
    assert "lacks images" in imported.refused("ic-vco", without)


def test_magicbrush_and_its_like(tmp_path, imported):
    table = sources.parquet(tmp_path / "data/train-00000-of-00002.parquet", sources.magicbrush_rows())
    records, said = imported("magicbrush", table.parent)
    assert [(r.instruction, r.ids["turn"], r.query, r.captions) for r in records] == [
        ("Make it 1.", "1", "", None),
        ("Make it 2.", "2", "", None),
    ]
    assert records[0].licence == "CC BY 4.0 (MagicBrush's hub card)"
    made = imported.out.parent / "records.images"
    assert (made / records[0].images[1]).read_bytes() == sources.encoded(2, "PNG")
    assert (made / records[0].extra["mask"]).is_file()
    assert "2 have no question yet" in said
    build = ("data", "build", imported.out, "--images", made, "-o", tmp_path / "shards")
    assert svco(imported.monkeypatch, *build) == 2
    assert "svco data rewrite" in imported.capsys.readouterr().err
    rows = [
        ["source_img", "target_img", "instruction", "type", "place"],
        ["a.jpg", "b.jpg", "At night.", "scene", "Rome"],
    ]
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for name in "ab":
        put(tmp_path / f"{name}.jpg", sources.encoded(ord(name)))
    (record,) = imported("magicbrush", tmp_path / "mine.csv", "--name", "mine")[0]
    assert (record.type, record.source, record.licence, record.extra) == (
        "scene",
        "mine",
        "not stated",
        {"place": "Rome"},
    )
    imported.out.unlink()
    put(tmp_path / "mine.csv", "source_img,target_img,instruction\na.jpg,b.jpg\n")
    assert "line 2 has more or fewer cells" in imported.refused("magicbrush", tmp_path / "mine.csv")


def texts(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_folder(tmp_path, imported):
    pairs = tmp_path / "pairs"
    for name, ending in (("dog", "jpg"), ("cat", "PNG"), ("lone", "jpg")):
        for side, folder in enumerate(("before", "after")):
            put(pairs / folder / f"{name}.{ending}", sources.encoded(side + 2 * len(name)))
    (pairs / "after/lone.jpg").unlink()
    head = ["name", "query", "response_0", "response_1", "caption_0", "caption_1", "type", "licence", "camera"]
    rows = [
        ["dog.jpg", "What does it do?", "It runs.", "It sleeps.", "", "", "action", "CC BY 2.0", "x"],
        ["cat", "", "", "", "a cat", "no cat", "object", "", ""],
    ]
    texts(pairs / "texts.csv", head, *rows)
    records, said = imported("folder", pairs, "--sides", "before,after")
    assert records[0].images == ("before/dog.jpg", "after/dog.jpg")
    assert (records[0].type, records[0].licence, records[0].extra) == ("action", "CC BY 2.0", {"camera": "x"})
    assert records[1].images == ("before/cat.PNG", "after/cat.PNG")
    assert (records[1].captions, records[1].licence) == (("a cat", "no cat"), "not stated")
    assert "left out: 1 × a picture of before/ that no row of the CSV names" in said
    assert imported("folder", pairs)[0][0].images[0] == "after/dog.jpg", "without --sides in the order of the alphabet"
    imported.out.unlink()
    texts(pairs / "texts.csv", head, *rows, ["lone", "", "", "", "a", "b", "", "", ""])
    error = imported.refused("folder", pairs, "--sides", "before,after")
    assert "1 of 3 pairs lack an image" in error
    assert "1 missing under after/" in error
    texts(pairs / "texts.csv", head, rows[0], rows[0])
    assert "line 3: the name 'dog' is there twice" in imported.refused("folder", pairs)
    texts(pairs / "texts.csv", ["title"], ["dog"])
    assert "has no name" in imported.refused("folder", pairs)
    texts(pairs / "texts.csv", head, ["dog", "Q?", "a", "", "", "", "", "", ""])
    assert "of response_0 and response_1 one is empty" in imported.refused("folder", pairs)
    texts(pairs / "texts.csv", head, ["dog", "", "", "", "", "", "", "", ""])
    assert "neither 'captions' nor an 'instruction'" in imported.refused("folder", pairs)
    assert "--sides is 'before'" in imported.refused("folder", pairs, "--sides", "before")
    (pairs / "third").mkdir()
    assert "has 3 folders" in imported.refused("folder", pairs)
    (pairs / "texts.csv").unlink()
    assert "There is no file" in imported.refused("folder", pairs)


def test_numbered_pictures_to_shards(tmp_path, imported):
    """Several image folders; licence, kind and the source's other keys reach the shards."""
    for side in (0, 1):
        put(tmp_path / f"pairs/dog_{side}.png", sources.encoded(side, "PNG"))
        put(tmp_path / f"more/cat_{side}.jpg", sources.encoded(side + 4))
    head = ["name", "query", "response_0", "response_1", "type", "kind", "weather"]
    rows = [
        ["dog", "Where?", "At home.", "In town.", "scene", "place", "dry"],
        ["cat", "What?", "It sits.", "It runs.", "action", "", ""],
    ]
    texts(tmp_path / "t.csv", head, *rows)
    words = (
        "--texts",
        tmp_path / "t.csv",
        "--images",
        tmp_path / "pairs",
        "--images",
        tmp_path / "more",
        "--licence",
        "CC0",
    )
    records, said = imported("folder", tmp_path / "pairs", *words)
    assert [record.images for record in records] == [("dog_0.png", "dog_1.png"), ("cat_0.jpg", "cat_1.jpg")]
    build = (
        "data",
        "build",
        imported.out,
        "--images",
        tmp_path / "pairs",
        "--images",
        tmp_path / "more",
        "--val",
        0,
        "--heldout",
        0,
    )
    assert svco(imported.monkeypatch, *build, "-o", tmp_path / "shards") == 0
    assert svco(imported.monkeypatch, "data", "verify", tmp_path / "shards") == 0
    manifest = json.loads((tmp_path / "shards/MANIFEST.json").read_text())
    assert manifest["types"] == {"action": 1, "scene": 1}
    assert (manifest["sources"], manifest["licences"]) == ({"folder": 2}, {"CC0": 2})
    shards = ShardSet.open(str(tmp_path / "shards"))
    pairs = {pair.text.contrast: pair.text for pair in map(shards.read, range(2))}
    assert pairs["scene"].kind == "place"
    stages = {"import": {"source": "folder", "svco": __version__, "release": "pairs", "texts": "t.csv"}}
    assert pairs["scene"].facts == {"provenance": {"licence": "CC0", "extra": {"weather": "dry"}, "stages": stages}}
    assert manifest["recipes"] == [{"pairs": 2, "source": "folder", "licence": "CC0", "stages": stages}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value, path=()):
    """The paths of everything in a JSON value."""
    yield path
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(inner, (*path, name))


def with_another(value, path, other):
    if not path:
        return other
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = with_another(value[path[0]], path[1:], other)
    return changed


RELEASES = {
    "countercurate": (sources.countercurate, "left_right.json", None),
    "finecops-ref": (sources.finecops, "train_negative.json", None),
    "vismin": (sources.vismin, "train.json", "train.json"),
    "vlfeedback": (sources.vlfeedback, "vlfeedback_80k.jsonl", "vlfeedback_80k.jsonl"),
    "mvc-json": (sources.mvc, "mvc.json", "mvc.json"),
    "ic-vco": (sources.ic_vco_json, "pairs.json", "pairs.json"),
    "magicbrush": (sources.edits_json, "edits.json", "edits.json"),
}
"""Source -> (what makes a release, the file of it that is damaged, the path that is given; None: the folder)."""


@pytest.mark.parametrize("name", RELEASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_release_with_anything_in_it(tmp_path_factory, name, data):
    """Whatever stands where something else should: pairs, or one sentence that says where; never another error."""
    make, file, given_path = RELEASES[name]
    folder = tmp_path_factory.mktemp("release")
    make(folder)
    text = (folder / file).read_text()
    lines = file.endswith("l")
    whole = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    path = data.draw(st.sampled_from(list(places(whole))[1:]))
    changed = with_another(whole, path, data.draw(JSON))
    put(folder / file, "\n".join(map(json.dumps, changed)) if lines else changed)
    raw = Raw(SOURCES[name], folder / (given_path or ""), Roots([folder]), folder / "made")
    try:
        done = import_records(raw, folder / "records.jsonl", 1, silent)
    except UserError as error:
        assert str(folder) in str(error)
    else:
        assert len(list(stream_records(folder / "records.jsonl"))) == done.kept


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, imported, monkeypatch):
    monkeypatch.setattr(tables, "MOST_ITEM", 200)
    line = json.dumps({"images": ["a.jpg", "b.jpg"], "captions": ["x" * 300, "y"]})
    assert "line 1 has more than 200 bytes" in imported.refused("jsonl", put(tmp_path / "long.jsonl", line))


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_not_there_or_no_release(tmp_path, imported, name):
    assert "There is no" in imported.refused(name, tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    imported.refused(name, empty)
    for ending, what in (
        ("json", "[]"),
        ("json", "{"),
        ("jsonl", "[1]\n"),
        ("json", '[{"a": 1}]'),
        ("csv", "a\n"),
        ("txt", "x"),
    ):
        imported.refused(name, put(tmp_path / f"odd.{ending}", what))


def test_memory_does_not_grow_with_the_pairs(tmp_path, monkeypatch):
    """Ten times the pairs of a release in the memory of one tenth (the control: a list of its records, which grows)."""

    def peak(pictures, keep):
        release = sources.finecops(tmp_path / f"finecops-{pictures}")
        positive = {"image_id": "231", "expression": "the dog " * 20}
        negative = {"image_id": "n10", "expression": "x" * 200, "negative_type": "object", "negative_cate": "image"}
        put(release / "train_positive.json", [positive | {"id": n} for n in range(pictures)])
        put(release / "train_negative.json", [negative | {"id": -n, "positive_id": n} for n in range(pictures)])
        raw = Raw(SOURCES["finecops-ref"], release, Roots([release]), tmp_path / "made")
        kept = []

        def progress(records, what):
            for record in records:
                if keep:
                    kept.append(record)
                yield record

        tracemalloc.start()
        done = import_records(raw, tmp_path / "records.jsonl", 0, progress)
        grown = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert done.kept == pictures
        return grown

    monkeypatch.setattr(strict_json, "_CHUNK", 2**12)  # less than the smaller release
    peak(100, False)  # what is imported at first use
    small, large = peak(100, False), peak(1000, False)
    assert large < 1.2 * small, (small, large)
    assert peak(1000, True) > 3 * large
