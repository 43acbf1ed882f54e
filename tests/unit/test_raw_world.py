"""The raw source of the world: flaws in the shares that are said, and the study's commands that begin with it."""

import io
import re
import runpy
import shlex
import sys

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from svco import cli
from svco.data.shards import ShardSet
from svco.tiny_world.contrast import world_pair
from svco.tiny_world.raw import FAULTS, raw_pair


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_flaws_are_what_they_say_and_as_many():
    pairs = [raw_pair("train", index) for index in range(160)]
    seen = {fault: [] for fault in FAULTS}
    for index, pair in enumerate(pairs):
        whole, edited = raw_pair("train", index, faulty=False), int(pair.row["edited"])
        clean = world_pair("train", index)
        assert pair.images[1 - edited] == whole.images[1 - edited] == clean.images[1 - edited], (
            "the original is the world's"
        )
        assert pair.row["caption_0"] != pair.row["caption_1"] and whole.row["fault"] == "none"
        own, asked = pixels(pair.images[edited]), pixels(clean.images[edited])
        before = pixels(clean.images[1 - edited])
        assert pair.images[0] != pair.images[1]
        told = pair.row[f"caption_{edited}"] == whole.row[f"caption_{edited}"]
        seen[pair.row["fault"]].append((np.abs(own - before).mean(), np.abs(own - asked).mean(), told))
    for fault, share in FAULTS.items():
        assert len(seen[fault]) / 160 == pytest.approx(share, abs=0.1)
    from_before, from_asked, told = (
        {fault: np.mean([values[n] for values in many]) for fault, many in seen.items()} for n in range(3)
    )
    assert from_asked["none"] < from_before["none"], "an edit that came out"
    assert (
        from_before["failed edit"]
        < from_before["faint edit"]
        < from_asked["faint edit"]
        < from_asked["failed edit"] + 1
    )
    assert from_before["other scene"] > 2 * from_before["none"]
    assert (told["none"], told["failed edit"], told["faint edit"], told["other scene"]) == (1, 1, 1, 0)
    assert raw_pair("train", 7) == pairs[7]
    assert {int(pair.row["edited"]) for pair in pairs[:20]} == {0, 1}


def test_the_studys_commands_make_its_sets(tmp_path, monkeypatch, capfd):
    """Those in the recipe's head, on fewer pairs."""
    text = (ROOT / "launchers" / "recipes" / "study_quality.yaml").read_text()
    commands = re.findall(r"^#   (.*)$", text, re.M)
    assert len(commands) == 18
    for name in ("launchers", "data_shards", "ds_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command.replace("--pairs 2000", "--pairs 40").replace("--pairs 192", "--pairs 8"))
        words += ["--dry-run"] if words[:2] == ["svco", "study"] else []
        monkeypatch.setattr(sys, "argv", words[words[0] == "python" :])
        with pytest.raises(SystemExit) if words[0] == "svco" else monkeypatch.context() as done:
            cli.main() if words[0] == "svco" else runpy.run_path(words[1], run_name="__main__")
        assert words[0] == "python" or done.value.code == 0, f"{command}\n{capfd.readouterr()}"
    assert "cells: 25" in capfd.readouterr().out
    sets = {
        name: ShardSet.open(str(tmp_path / "runs" / "quality" / name))
        for name in ("unfiltered-raw", "unfiltered-rewritten", "filtered-raw", "filtered-rewritten", "test-rewritten")
    }
    sizes = {name: len(shards) for name, shards in sets.items()}
    assert sizes["unfiltered-raw"] == sizes["unfiltered-rewritten"] == 40 and sizes["test-rewritten"] == 8, (
        "no text is rejected"
    )
    assert 0 < sizes["filtered-raw"] == sizes["filtered-rewritten"] < 40
    rewritten, raw = (sets[f"unfiltered-{name}"].read(0).text for name in ("rewritten", "raw"))
    assert rewritten.responses[0].startswith("The picture shows a ") and raw.responses[0].startswith("a ")
