"""What a run refuses is what verify lists, on any number of ranks, and all that a dry run can know of it."""

import re
import sys

import pytest
from bad_pairs import GOOD, MADE, OF_A_BASE, write_bad_pairs
from places import BASE

from svco import cli
from svco.basics.dist import World
from svco.basics.errors import BadSample
from svco.basics.progress import silent
from svco.basics.views import ALL_CELLS
from svco.batches.lengths import measured
from svco.batches.split import Split, evaluation_loader
from svco.commands.data.verify import verify
from svco.recipe.config import Config, DataConfig


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """(shard folder, key -> reason)."""
    folder = tmp_path_factory.mktemp("bad") / "shards"
    return folder, write_bad_pairs(folder)


def named(messages):
    """Key -> reason of messages ``reason: … sample 'key' …``."""
    found = [re.match(r"([\w-]+): .*?sample '([^']+)'", message).groups() for message in messages]
    assert len(dict((key, reason) for reason, key in found)) == len(found), "each is named once"
    return {key: reason for reason, key in found}


def refused(folder, family, world, config):
    """Key -> reason of what ``world`` ranks refuse while they load every pair as a run does."""
    split = Split.open((str(folder),), family, folder.parent / "cache", World(), silent, config.data.equal_pictures)
    errors = []
    for rank in range(world):
        here = World(rank, world)
        for step in evaluation_loader(split, ALL_CELLS, family, config, here, at_once=8):
            errors += [f"{error.reason}: {error}" for error in step.bad]
    return named(errors)


@pytest.mark.parametrize("world", [1, 2])
def test_verify_with_a_base_lists_what_a_run_refuses(bad, family, world):
    folder, reasons = bad
    config = Config(data=DataConfig(workers=0))
    found = verify([str(folder)], folder.parent / "cache", silent, family)
    assert named(found.problems) == refused(folder, family, world, config) == reasons
    assert len(reasons) == len(MADE) and found.pairs.total() == len(MADE) + GOOD


def test_pictures_may_be_equal_where_that_is_wanted(bad, family):
    folder, reasons = bad
    config = Config(data=DataConfig(workers=0, equal_pictures=True))
    found = verify([str(folder)], folder.parent / "cache", silent, family, equal_pictures=True)
    wanted = {key: reason for key, reason in reasons.items() if reason != "same-images"}
    assert named(p for p in found.problems if "sample" in p) == refused(folder, family, 1, config) == wanted


def test_verify_without_a_base_lists_the_rest(bad):
    folder, reasons = bad
    found = verify([str(folder)], folder.parent / "cache", silent)
    assert named(found.problems) == {key: reason for key, reason in reasons.items() if key not in OF_A_BASE}


def test_a_dry_run_knows_them_all(bad, family):
    """And names them: what only decoding shows was seen when the shard was indexed."""
    folder, reasons = bad
    split = Split.open((str(folder),), family, folder.parent / "cache", World(), silent)
    keys = {split.shards.key(index): split.lengths.reasons[index] for index in split.lengths.bad}
    assert keys == reasons
    for index in split.lengths.bad:
        with pytest.raises(BadSample, match=f"sample '{split.shards.key(index)}'"):
            measured(split.shards, family, index)
    assert len(split.lengths.reasons) - len(keys) == GOOD


def test_the_command(bad, monkeypatch, capsys):
    folder, reasons = bad

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["svco", "data", "verify", str(folder), *map(str, more)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, capsys.readouterr()

    code, said = run("--base", BASE)
    problems = [line.removeprefix("problem: ") for line in said.out.splitlines() if line.startswith("problem: ")]
    assert (code, named(problems)) == (1, reasons)
    code, said = run("--base", BASE, "--max-text-tokens", 4000)
    assert code == 1 and "sample 'long'" not in said.out and "sample 'same-when-cut'" not in said.out
    assert run("--base", folder / "nowhere")[0] == 2
    assert run("--base", BASE, "--max-text-tokens", 1)[0] == 2
