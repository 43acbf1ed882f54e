"""Splits are apart when they are used: which shards of a folder are read, and what two of them may not share."""

import dataclasses
import io
import json

import fsspec
import pytest
from PIL import Image
from places import BASE

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.basics.progress import silent
from svco.commands.evaluation.trained import check_untrained
from svco.commands.study.sources import check_sources_apart
from svco.commands.study.spec import Group, Source, Study
from svco.data.pairs import Pair
from svco.data.shards import ShardSet, expand, write_shards
from svco.data.splits import check_apart, of_split
from svco.recipe.read import load_recipe
from svco.run.describe import describe
from svco.run.job import make_job


@pytest.fixture
def folder(tmp_path, make_pairs):
    """The layout that svco data build writes."""
    for split, start, count in (("train", 0, 9), ("val", 0, 3), ("heldout", 0, 4)):
        write_shards(make_pairs(split, start, count), tmp_path / "shards", split, 5)
    return tmp_path / "shards"


@pytest.mark.parametrize(
    ("names", "split", "meant"),
    [
        (["heldout-000000", "train-000000", "train-000001", "val-000000"], "train", "train-000000 train-000001"),
        (["heldout-000000", "train-000000", "val-000000"], "validation", "val-000000"),
        (["heldout-000000", "train-000000", "val-000000"], "heldout", "heldout-000000"),
        (["test-0", "train-0", "validation-0"], "heldout", "test-0"),
        (["extra-0", "train-0"], "train", "train-0"),
        (["mine-0", "mine-1"], "train", "mine-0 mine-1"),
        (["a-0", "b-0"], "heldout", "a-0 b-0"),
        (
            ["train-0", "train-1"],
            "heldout",
            "train-0 train-1",
        ),  # one name alone is what was asked for; check_apart sees the rest
        (["train-0", "val-0"], "heldout", None),
        (["heldout-0", "val-0"], "train", None),
    ],
)
def test_a_folder_of_splits_means_its_own(names, split, meant):
    shards = [f"/data/{name}.tar" for name in names]
    if meant is None:
        with pytest.raises(UserError, match=r"/data holds the splits .* and none that is called .*/data/\w+-\*\.tar"):
            of_split(shards, split, "/data")
        return
    chosen, said = of_split(shards, split, "/data")
    assert chosen == [f"/data/{name}.tar" for name in meant.split()]
    assert ("not" in said) == (len(chosen) < len(shards)) or "no folder of splits" in said


def test_only_folders_and_only_where_a_split_is_asked_for(folder):
    names = [str(path) for path in sorted(folder.glob("*.tar"))]
    store = fsspec.filesystem("memory")
    for path in names:
        store.pipe(f"/splits/{path.rpartition('/')[2]}", b"")
    assert list(expand(str(folder))) == names == list(expand(f"{folder}/*.tar", "train"))
    assert list(expand(str(folder), "train")) == [name for name in names if "train-" in name]
    assert [name.rpartition("/")[2] for name in expand("memory://splits", "validation")] == ["val-000000.tar"]
    assert len(expand("memory://splits/*.tar", "validation")) == 4
    assert len(ShardSet.open([str(folder), f"{folder}/val-*.tar"], split="train")) == 12


def config_of(folder, tmp_path, *settings):
    return load_recipe(None, [f"model.base={BASE}", f"data.cache_dir={tmp_path / 'cache'}", *settings])


def test_a_run_on_a_folder_trains_on_its_train_shards_and_says_so(folder, tmp_path):
    settings = [f"data.{name}={folder}" for name in ("train", "validation", "heldout")]
    job = make_job(config_of(folder, tmp_path, *settings), World(), silent)
    assert {name: len(split.shards) for name, split in job.splits.items()} == {
        "train": 9,
        "validation": 3,
        "heldout": 4,
    }
    told = describe(job, World())
    assert "3 validation pairs, 4 heldout pairs; no key and no picture is shared" in told
    assert f"{folder} holds splits: of it 2 shards of train are read, not heldout, val" in told
    with pytest.raises(UserError, match="data.train and data.heldout share 4 keys"):
        make_job(config_of(folder, tmp_path, f"data.train={folder}/*.tar", f"data.heldout={folder}"), World(), silent)


@pytest.fixture
def leaking(folder, make_pairs, tmp_path):
    """Held-out shards with keys of their own, of which one has a training picture as PNG with other metadata, on its other side,
    beside a picture of one colour that training has too."""
    (grey, mine, theirs) = make_pairs("train", 4, 1)[0], *make_pairs("heldout", 20, 2)
    image = Image.open(io.BytesIO(grey.images[0]))
    stream, blank = io.BytesIO(), io.BytesIO()
    image.save(stream, "PNG", dpi=(72, 72))
    Image.new("RGB", (8, 8)).save(blank, "PNG")
    pairs = [
        Pair(mine.text, (mine.images[0], blank.getvalue())),
        Pair(theirs.text, (theirs.images[0], stream.getvalue())),
    ]
    write_shards(pairs[:1], tmp_path / "clean", "heldout", 9)
    write_shards(pairs, tmp_path / "leaking", "heldout", 9)
    marked = dataclasses.replace(
        make_pairs("train", 50, 1)[0], images=(make_pairs("train", 50, 1)[0].images[0], blank.getvalue())
    )
    write_shards([marked], folder / "more", "train", 9)
    return str(tmp_path / "clean"), str(tmp_path / "leaking")


def test_what_two_splits_may_not_share(folder, leaking):
    clean, bad = map(ShardSet.open, leaking)
    train = ShardSet.open([str(folder), str(folder / "more")], split="train")
    again = ShardSet.open(str(folder / "train-000001.tar"))
    check_apart({"data.train": train.indices, "data.heldout": clean.indices})  # a picture of one colour is no leak
    with pytest.raises(
        UserError, match=r"share 1 pictures: image 0 of 'train-000004' in .*train-000000.tar is image 1 of"
    ):
        check_apart({"data.train": train.indices, "data.heldout": bad.indices})
    with pytest.raises(UserError, match=r"share 1 pictures"):
        check_apart({"data.train": train.indices, "data.heldout": bad.indices}, "keys")
    check_apart({"data.train": train.indices, "data.heldout": bad.indices}, "all")
    with pytest.raises(UserError, match=r"data.validation and data.heldout share 4 keys, such as 'train-000005'"):
        check_apart({"data.train": clean.indices, "data.validation": again.indices, "data.heldout": again.indices})


def test_an_evaluation_knows_what_its_model_was_trained_on(folder, leaking, tmp_path, capsys):
    run = tmp_path / "runs" / "mine"
    (run / "adapter").mkdir(parents=True)
    recipe = run / "recipe.yaml"
    recipe.write_text(json.dumps({"data": {"train": [str(folder)], "cache_dir": str(tmp_path / "cache")}}))

    def check(allow="none", **sets):
        check_untrained("hub/base", str(run / "adapter"), {k: (v,) for k, v in sets.items()}, tmp_path / "cache", allow)

    clean, bad = leaking
    check(mine=clean, theirs=str(folder))
    with pytest.raises(UserError, match=r"runs/mine and --set theirs share 1 pictures.*say so: --allow-overlap all"):
        check(mine=clean, theirs=bad)
    check("all", theirs=bad)
    check_untrained("hub/base", None, {"theirs": (bad,)}, tmp_path / "cache", "none")
    assert capsys.readouterr().err == ""
    recipe.write_text("data: {train: gone/train-*.tar}")
    check(theirs=bad)
    assert "The sets are not compared with what the model was trained on: No shards match" in capsys.readouterr().err


def test_a_study_compares_what_it_trains_on_with_its_tests(folder, leaking, tmp_path):
    clean, bad = leaking
    group = Group("g", rows=(("DPO", "mine"),), tests=("clean",))
    study = Study(
        "s",
        "tiny",
        data={"mine": Source(shards=(str(folder),)), "unused": Source(shards=(bad,))},
        tests={"clean": Source(shards=(clean,)), "bad": Source(shards=(bad,)), "far": Source(shards=("s3://b/x.tar",))},
        settings={"data.cache_dir": str(tmp_path / "cache")},
        groups=(group,),
    )
    check_sources_apart(study)
    group = dataclasses.replace(group, tests=("clean", "far", "bad"))
    study = dataclasses.replace(study, groups=(group,))
    with pytest.raises(UserError, match="the training set mine and the test set bad share 1 pictures"):
        check_sources_apart(study)
    check_sources_apart(dataclasses.replace(study, settings={**study.settings, "data.allow_overlap": "all"}))
