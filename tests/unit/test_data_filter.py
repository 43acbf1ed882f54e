"""``svco data filter``: scores equal to transformers' own, verdicts, what is encoded, resumed, divided among ranks, refused."""

import collections
import functools
import io
import json
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
import transformers
from launch import ENVIRONMENT
from PIL import Image, ImageOps
from places import BASE, ROOT
from sources import encoded, put
from test_data_tools import svco

from svco.basics.dist import World
from svco.commands.data.filter import command, tally
from svco.commands.data.filter.embed import _look
from svco.commands.data.filter.encoders import Encoder
from svco.commands.data.filter.store import Store
from svco.commands.data.filter.thresholds import Threshold, Thresholds
from svco.commands.data.images import Roots
from svco.commands.data.records import Record, as_line, make_record
from svco.data.tables import file_lines
from svco.tiny_world.contrast import world_pair
from svco.tiny_world.variants import Variant

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SEEN = {**SMALL, "image_size": 32, "patch_size": 8}


def _clip():
    text = {**SMALL, "vocab_size": 20, "projection_dim": 8}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=SEEN, projection_dim=8))


def _siglip():
    text = {**SMALL, "vocab_size": 20, "projection_size": 16}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=SEEN))


def _dinov2():
    return transformers.Dinov2Model(transformers.Dinov2Config(**SEEN, mlp_ratio=2))


PROCESSORS = {_clip: "CLIPImageProcessorPil", _siglip: "SiglipImageProcessorPil", _dinov2: "BitImageProcessorPil"}
KINDS = {"clip": _clip, "siglip": _siglip, "dinov2": _dinov2}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Random small ones of each architecture, as transformers saves them."""
    folder = tmp_path_factory.mktemp("encoders")
    for name, make in KINDS.items():
        torch.manual_seed(3)
        model = make()
        with torch.no_grad():
            for weight in model.parameters():  # the usual scale gives pictures that are all alike
                weight.mul_(4)
        model.save_pretrained(folder / name)
        how = (
            {"size": {"height": 32, "width": 32}}
            if name == "siglip"
            else {
                "size": {"shortest_edge": 32},
                "crop_size": {"height": 32, "width": 32},
            }
        )
        getattr(transformers, PROCESSORS[make])(**how).save_pretrained(folder / name)
    return folder


@functools.cache
def loaded(folder):
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor, transformers.AutoModel.from_pretrained(folder).eval()


def alone(folder, name, file):
    """The vector of one picture, by transformers alone."""
    processor, model = loaded(folder / name)
    pixels = processor(images=Image.open(file).convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(pixel_values=pixels) if name == "dinov2" else model.vision_model(pixel_values=pixels)
        found = out.pooler_output[0]
        found = model.visual_projection(found) if name == "clip" else found
    return (found / found.norm()).numpy()


def noisy(number, size=(40, 32)):
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def jpeg(image, quality=90):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture
def pairs(tmp_path):
    """Ten pairs over 14 pictures in 17 files, one of the pairs mirrored."""
    images = tmp_path / "images"
    records = []
    for number in range(9):
        first = "0_0.jpg" if number == 1 else f"{number}_0.jpg"  # one file in two pairs
        put(images / first, jpeg(noisy(0 if number in (1, 2) else number)))  # one content in two files
        put(images / f"{number}_1.jpg", jpeg(noisy(50 if number in (3, 4, 5) else 50 + number)))
        kind = ("object", "attribute", "scene")[number % 3]
        texts = {"captions": (f"a {number}", f"b {number}")} if number % 2 else {"query": "Q?", "responses": ("a", "b")}
        pair = Record(
            images=(first, f"{number}_1.jpg"), type=kind, source="ab"[number % 2], ids={"n": str(number)}, **texts
        )
        records.append(pair)
    put(images / "mirror.jpg", jpeg(ImageOps.mirror(noisy(0)), 75))
    records.append(Record(images=("0_0.jpg", "mirror.jpg"), type="position", source="a", captions=("l", "r")))
    file = tmp_path / "records.jsonl"
    file.write_text("".join(map(as_line, records)))
    return file


@pytest.fixture
def undrawn(monkeypatch):
    """Without the pictures, which take seconds."""
    for draw in ("draw_scores", "draw_borderline"):
        monkeypatch.setattr(command, draw, lambda *given: None)


def read(file):
    """The records of a file, which may be empty."""
    return [make_record(raw, file) for _, raw in file_lines(file)]


def wanted(pairs, checkpoints, out, clip="clip", **how):
    encoders = {"clip": str(checkpoints / clip), "dino": str(checkpoints / "dinov2")}
    how = {"thresholds": Thresholds(), "batch": 4, **how}
    return command.Wanted(pairs, Roots([pairs.parent / "images"]), out, pairs.parent / "vectors", encoders, **how)


@pytest.mark.parametrize("clip", ["clip", "siglip"])
def test_scores_are_those_of_transformers(pairs, checkpoints, undrawn, tmp_path, clip):
    images = pairs.parent / "images"
    result = command.run(wanted(pairs, checkpoints, tmp_path / "out", clip), World())
    found = [*read(tmp_path / "out/records.jsonl"), *read(tmp_path / "out/rejected.jsonl")]
    assert len(found) == result["pairs"]["scored"] == 10
    for record in found:
        for score, name in (("clip", clip), ("dino", "dinov2")):
            first, second = (alone(checkpoints, name, images / path) for path in record.images)
            assert record.scores[score] == pytest.approx(float(first @ second), abs=2e-5)
    assert len({record.scores["clip"] for record in found}) > 6, "the encoder tells pictures apart"
    contents = {file.read_bytes() for file in images.iterdir()}
    assert result["encoded"] == len(contents) < len(list(images.iterdir())), "each content once"
    again = command.run(wanted(pairs, checkpoints, tmp_path / "again", clip), World())
    assert again["encoded"] == 0
    for name in ("records.jsonl", "rejected.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    put(images / "0_1.jpg", jpeg(noisy(99)))
    assert command.run(wanted(pairs, checkpoints, tmp_path / "third", clip), World())["encoded"] == 1, (
        "by content, not by name"
    )


def test_verdicts_page_and_other_thresholds(pairs, checkpoints, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        for draw in ("draw_scores", "draw_borderline"):  # seconds each: once is enough
            patch.setattr(command, draw, lambda *given: None)
        command.run(wanted(pairs, checkpoints, tmp_path / "all", thresholds=Thresholds(Threshold(-1, 1))), World())
    scores = {record.images: record.scores for record in read(tmp_path / "all/records.jsonl")}
    plain = [value for images, value in scores.items() if "mirror.jpg" not in images]
    clip, dino = (float(np.round(np.median([value[name] for value in plain]), 2)) for name in ("clip", "dino"))
    words = ["--clip", checkpoints / "clip", "--dino", checkpoints / "dinov2", "--cache", pairs.parent / "vectors"]
    words += ["--clip-above", clip, "--dino-below", dino, "--threshold=scene=-1,1", "--images", pairs.parent / "images"]
    assert svco(monkeypatch, "data", "filter", pairs, *words, "-o", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out/filter.json").read_text())
    kept, rejected = (read(tmp_path / "out" / name) for name in ("records.jsonl", "rejected.jsonl"))
    assert f"{len(kept)} of 10 pairs kept, 0 unreadable; 0 pictures encoded" in capsys.readouterr().out
    verdicts = collections.Counter()
    for record in [*kept, *rejected]:
        low, high = (-1, 1) if record.type == "scene" else (clip, dino)
        unlike, alike = record.scores["clip"] <= low, record.scores["dino"] >= high
        verdict = ("kept", "looks too alike", "meaning too far apart", "meaning too far apart and looks too alike")[
            2 * unlike + alike
        ]
        if "mirror.jpg" in record.images:
            verdict = "kept: mirrored"
        assert record.stages["filter"]["verdict"] == verdict
        assert (record in kept) is verdict.startswith("kept")
        verdicts[verdict] += 1
    assert verdicts["kept: mirrored"] == 1
    assert len(verdicts) > 2
    assert sum(line["pairs"] for line in result["verdicts"]) == 10
    other = result["others"]
    for row, above in enumerate(other["clip_above"]):
        for column, below in enumerate(other["dino_below"]):
            kept_then = sum(value["clip"] > above and value["dino"] < below for value in plain) + 1
            assert other["kept"][row][column] == kept_then, (above, below)
    for name in ("scores.png", "borderline.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size > (300, 300)
    page = (tmp_path / "out/README.md").read_text()
    assert f"| all |  | 10 | {len(kept) / 10:.1%} |" in page
    pairs.write_text(pairs.read_text().replace('"source": "a"', '"kind": "left_right", "source": "a"'))
    assert (
        svco(monkeypatch, "data", "filter", pairs, *words, "--keep-kind", "left_right", "-o", tmp_path / "exempt") == 0
    )
    told = json.loads((tmp_path / "exempt/filter.json").read_text())["verdicts"]
    assert {line["verdict"] for line in told if line["source"] == "a"} == {"kept: exempt kind"}


def test_a_killed_run_goes_on(pairs, checkpoints, undrawn, tmp_path, monkeypatch):
    command.run(wanted(pairs, checkpoints, tmp_path / "whole"), World())
    (tmp_path / "vectors").rename(tmp_path / "elsewhere")
    called, plain = [], Encoder.__call__

    def dies(self, images):
        called.extend([self] * (len(images) > 1))  # each is tried on one picture first
        if len(called) > 4:  # two encoders a batch
            raise KeyboardInterrupt
        return plain(self, images)

    monkeypatch.setattr(Encoder, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        command.run(wanted(pairs, checkpoints, tmp_path / "out"), World())
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Encoder, "__call__", plain)
    contents = {file.read_bytes() for file in (pairs.parent / "images").iterdir()}
    assert command.run(wanted(pairs, checkpoints, tmp_path / "out"), World())["encoded"] == len(contents) - 8
    for name in ("records.jsonl", "rejected.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_ranks_and_the_world_s_own_tower(tmp_path, monkeypatch):
    """The embedded world's unfiltered pairs: edits that did not come out are found, on two ranks as on one."""
    records = []
    for pair in Variant("unfiltered").pairs("train", 64):
        for side in (0, 1):
            put(tmp_path / f"images/{pair.text.key}_{side}.jpg", pair.images[side])
        images = tuple(f"{pair.text.key}_{side}.jpg" for side in (0, 1))
        text = pair.text
        records.append(
            Record(
                query=text.query,
                responses=text.responses,
                images=images,
                type=text.contrast,
                extra={"fault": text.facts["fault"]},
            )
        )
    put(tmp_path / "records.jsonl", "".join(map(as_line, records)))
    words = [
        "data",
        "filter",
        tmp_path / "records.jsonl",
        "--images",
        tmp_path / "images",
        "--clip",
        BASE,
        "--dino",
        BASE,
    ]
    words += ["--clip-above", "0.5", "--dino-below", "0.9999"]
    two = [*words, "--ranks", "2", "-o", tmp_path / "out2", "--cache", tmp_path / "v2"]
    line = [sys.executable, "-m", "svco", *map(str, two)]
    done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert svco(monkeypatch, *words, "-o", tmp_path / "out1", "--cache", tmp_path / "v1") == 0
    two, one = (json.loads((tmp_path / f"out{ranks}/filter.json").read_text()) for ranks in (2, 1))
    contents = {file.read_bytes() for file in (tmp_path / "images").iterdir()}
    assert (two["ranks"], two["encoded"], one["encoded"]) == (2, len(contents), len(contents))
    assert all((tmp_path / f"v2/rank-0000{rank}.sqlite").stat().st_size > 20_000 for rank in (0, 1)), "both encoded"
    for name in ("records.jsonl", "rejected.jsonl"):
        ours, theirs = (read(tmp_path / f"out{ranks}" / name) for ranks in (2, 1))
        assert [(r.images, r.stages) for r in ours] == [(r.images, r.stages) for r in theirs]
        assert np.allclose([r.scores["clip"] for r in ours], [r.scores["clip"] for r in theirs], atol=2e-6)
    kept = collections.Counter(record.extra["fault"] for record in read(tmp_path / "out2/records.jsonl"))
    made = collections.Counter(record.extra["fault"] for record in records)
    assert kept["failed edit"] == 0 < made["failed edit"]
    assert kept["none"] > 0.8 * made["none"]


def refused(capsys, monkeypatch, *words):
    assert svco(monkeypatch, "data", "filter", *words) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split())


def test_what_is_refused(pairs, checkpoints, tmp_path, monkeypatch, capsys):
    clip, dino, out = checkpoints / "clip", checkpoints / "dinov2", tmp_path / "out"
    base = [pairs, "--images", pairs.parent / "images", "-o", out]

    def says(*words, clip=clip, dino=dino):
        told = refused(capsys, monkeypatch, *base, "--clip", clip, "--dino", dino, *words)
        assert not out.exists()
        return told

    damaged = transformers.Dinov2Model.from_pretrained(dino)
    with torch.no_grad():
        damaged.embeddings.cls_token.fill_(float("nan"))
    damaged.save_pretrained(tmp_path / "damaged")
    put(tmp_path / "damaged/preprocessor_config.json", (dino / "preprocessor_config.json").read_bytes())
    told = says(dino=tmp_path / "damaged")
    assert re.search(r"damaged gives (\d+) of \1 pictures numbers that are not finite, the first \w+\.jpg", told)
    assert "--threshold is 'attribute=0.8'" in says("--threshold", "attribute=0.8")
    assert "--threshold is 'mood=0.8,0.5'" in says("--threshold", "mood=0.8,0.5")
    assert "at least -1 and at most 1" in says("--clip-above", "7")
    assert "at least -1 and at most 1" in says("--dino-below", "nan")
    assert "--batch: it is 0 and must be at least 1" in says("--batch", "0")
    assert "cannot be loaded" in says(clip=tmp_path / "nowhere")
    language = transformers.LlamaModel(transformers.LlamaConfig(**SMALL, vocab_size=20))
    language.save_pretrained(tmp_path / "language")
    put(tmp_path / "language/preprocessor_config.json", (dino / "preprocessor_config.json").read_bytes())
    assert "LlamaModel, which gives an image no one vector" in says(clip=tmp_path / "language")
    put(tmp_path / "vectors/rank-00000.sqlite", b"no table " * 100)
    assert "cannot be read or written" in says("--cache", tmp_path / "vectors")
    put(tmp_path / "full/anything", "x")
    words = [*base[:-1], tmp_path / "full", "--clip", clip, "--dino", dino]
    assert "already holds files" in refused(capsys, monkeypatch, *words)
    held = command.FolderLock(tmp_path / "records.vectors")
    assert held.take()
    assert "Another filter writes into" in says()
    held.release()


def test_pictures_that_cannot_be_read(pairs, checkpoints, undrawn, tmp_path, monkeypatch, capsys):
    put(tmp_path / "images/3_0.jpg", b"no picture")
    (tmp_path / "images/4_0.jpg").unlink()
    words = [
        pairs,
        "--images",
        tmp_path / "images",
        "--clip",
        checkpoints / "clip",
        "--dino",
        checkpoints / "dinov2",
        "-o",
        tmp_path / "out",
    ]
    told = refused(capsys, monkeypatch, *words)
    assert "2 of 10 pairs have an image that cannot be read; the first: 3_0.jpg cannot be decoded" in told
    assert svco(monkeypatch, "data", "filter", *words, "--max-unreadable", 0.2) == 0
    rejected = {
        record.images[0]: record.stages["filter"]["verdict"] for record in read(tmp_path / "out/rejected.jsonl")
    }
    assert "cannot be decoded" in rejected["3_0.jpg"]
    assert "4_0.jpg cannot be read: No such file or directory" in rejected["4_0.jpg"]
    assert "4_0.jpg" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    "make", [lambda n: noisy(n, (80, 60)), lambda n: Image.open(io.BytesIO(world_pair("train", n).images[0]))]
)
def test_a_mirror_is_known_and_nothing_else_is(make):
    for number in range(8):
        picture = make(number)
        for quality in (60, 95):
            assert _look(picture).mirrors(_look(Image.open(io.BytesIO(jpeg(ImageOps.mirror(picture), quality)))))
        pasted = ImageOps.mirror(picture)
        pasted.paste((255, 0, 255), (2, 2, 2 + picture.width // 5, 2 + picture.height // 5))
        others = [
            picture,
            ImageOps.flip(picture),
            ImageOps.invert(picture),
            make(number + 20),
            pasted,
            picture.rotate(180),
        ]
        others.append(ImageOps.mirror(picture).resize((picture.width + 8, picture.height)))
        for place, other in enumerate(others):
            assert not _look(picture).mirrors(_look(other)), (number, place)


def test_vectors_of_another_number_of_ranks_serve_and_their_paths_do_not(tmp_path):
    """Files of ranks that this run has not: what they say of paths is old."""
    for rank, picture in ((0, "aa" * 32), (1, "bb" * 32)):
        store = Store(tmp_path, rank, 2)
        store.add_path("x.jpg", picture, "")
        store.add({"e": np.eye(2, dtype=np.float32)[rank : rank + 1]}, [picture], [_look(noisy(rank))])
        store.finish()
    store = Store(tmp_path, 0, 1)
    store.open()
    assert store.path("x.jpg") == ("", "x.jpg was not looked at")
    assert list(store.distinct(0, 1)) == []
    assert store.vector("e", "bb" * 32).tolist() == [0, 1]
    store.finish()


def test_memory_does_not_grow_with_the_pairs(checkpoints, undrawn, tmp_path, monkeypatch):
    """Ten times the pairs of the same pictures; the scatter's sample, which is bounded, is full in both."""
    monkeypatch.setattr(tally, "POINTS", 20)
    for number in range(4):
        put(tmp_path / f"images/{number}.jpg", encoded(number))

    def peak(count):
        records = tmp_path / f"records-{count}.jsonl"
        lines = [Record(images=(f"{n % 3}.jpg", "3.jpg"), captions=("a" * 400, f"{n}")) for n in range(count)]
        records.write_text("".join(map(as_line, lines)))
        del lines
        tracemalloc.start()
        command.run(wanted(records, checkpoints, tmp_path / f"out-{count}"), World())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(30)  # what is imported at first use
    small, large = peak(60), peak(600)
    assert large < 1.1 * small, (small, large)
