"""What is remembered of a file is never taken for the file: verify reads bytes, a run reads what is cheap, and both say so."""

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from svco.basics.dist import World
from svco.basics.errors import UserError
from svco.basics.files import SAMPLE_BYTES, SAMPLES
from svco.cli import main
from svco.commands.data.build import MANIFEST, described
from svco.data import shard_index
from svco.data.shard_index import keep_index
from svco.data.shards import ShardSet
from svco.model.provenance import weights_digest
from svco.objectives.table import make_objective
from svco.recipe.config import Config
from svco.run.cached_reference import ReferenceCache, cache_facts


def change(path, place):
    """Another byte at ``place`` of ``path``; size and times of the contents stay."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_unseen(tar):
    """Another byte in a picture of ``tar``, and its index made to fit by all that is cheap to see."""
    opened = ShardSet.open(str(tar))
    last = tar.stat().st_size - SAMPLE_BYTES
    sampled = [range(last * n // (SAMPLES - 1), last * n // (SAMPLES - 1) + SAMPLE_BYTES) for n in range(SAMPLES)]
    ends = [sum(entry.members[f"{side}.jpg"]) for entry in opened.indices[0].entries for side in (0, 1)]
    places = (place for end in ends for place in range(end - 200, end - 20))
    change(tar, next(place for place in places if not any(place in part for part in sampled)))
    keep_index(opened.indices[0], tar.parent)
    return opened


def verified(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["svco", "data", "verify", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, capsys.readouterr().out


@pytest.mark.parametrize("manifest", [True, False])
def test_verify_reads_bytes_and_not_the_index(shards, manifest, monkeypatch, capsys):
    tars = sorted(shards.glob("*.tar"))
    if manifest:
        (shards / MANIFEST).write_text(json.dumps({"shards": described(tars)}))
    code, out = verified(monkeypatch, capsys, shards)
    assert (code, f"every byte of 3 shards was read; {3 if manifest else 0} of them" in out) == (0, True)
    opened = change_unseen(tars[1])
    assert ShardSet.open(str(tars[1])) == opened, "what is cheap to see does not show it"
    code, out = verified(monkeypatch, capsys, shards)
    assert code == 1
    assert f"stale index: The shard {tars[1]} has other contents than when it was indexed" in out
    assert (f"changed shard: {tars[1]} is not what" in out) == manifest
    assert ShardSet.open(str(tars[1])).digest != opened.digest, "verify has made its index anew"


def test_verify_compares_all_that_a_manifest_says(shards, monkeypatch, capsys):
    told = {"shards": described(sorted(shards.glob("*.tar")))}
    for damage, says in (
        (
            lambda told: told["shards"].update({"train-000003.tar": {"bytes": 1, "sha256": ""}}),
            "missing shard: .*names train-000003",
        ),
        (lambda told: told["shards"]["train-000000.tar"].update(bytes=1), "changed shard: .*train-000000.tar"),
        (lambda told: told["shards"]["train-000000.tar"].pop("sha256"), "damaged manifest"),
        (lambda told: told.update(shards=[]), "damaged manifest"),
    ):
        said = json.loads(json.dumps(told))
        damage(said)
        (shards / MANIFEST).write_text(json.dumps(said))
        code, out = verified(monkeypatch, capsys, shards)
        assert code == 1
        assert re.search(f"problem: {says}", out), out
    (shards / MANIFEST).write_text("{")
    assert verified(monkeypatch, capsys, shards)[0] == 1


def test_a_run_sees_a_change_at_equal_size_and_time(shards):
    tar = shards / "train-000001.tar"
    before = ShardSet.open(str(tar)).digest
    change(tar, tar.stat().st_size // 2)
    with pytest.warns(
        UserWarning, match=r"train-000001\.tar has other contents than when it was indexed; its index is"
    ):
        assert ShardSet.open(str(tar)).digest != before
    os.utime(tar, ns=(7, 7))  # a copy, a checkout: nothing to say, and read whole once only
    ShardSet.open(str(tar))
    os.chmod(tar, 0o600)
    after = ShardSet.open(str(tar))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_index, "file_digest", lambda path: pytest.fail("read whole again"))
        assert ShardSet.open(str(tar)) == after


@pytest.mark.parametrize("where", ["offset", "key", "sha256", "size", "mark"])
def test_an_index_that_was_changed_is_made_anew(shards, where):
    tar = shards / "train-000000.tar"
    opened = ShardSet.open(str(tar))
    file = tar.with_name(tar.name + ".index.json")
    record = json.loads(file.read_text())
    sample = record["samples"][3]
    if where == "offset":
        sample[1]["0.jpg"][0] += 512
    elif where == "key":
        sample[0] = "another"
    elif where == "size":
        sample[2][0] = [999, 999]
    else:
        record[where] = record[where][:-1]
    file.write_text(json.dumps(record))
    with pytest.warns(
        UserWarning,
        match=r"index\.json cannot be read \(it says something else .*\); it is made anew",
    ):
        assert ShardSet.open(str(tar)) == opened
    assert ShardSet.open(str(tar)) == opened


def test_a_shard_that_changes_in_use(shards):
    tar = shards / "train-000000.tar"
    opened = ShardSet.open(str(tar))
    pair = opened.read(1)
    os.utime(tar)  # touched, or moved to another disk: the same bytes
    assert opened.read(1) == pair
    change(tar, opened.indices[0].entries[1].members["0.jpg"][0] + 200)
    with pytest.raises(UserError, match="was replaced while it was in use, or is another one on this host"):
        opened.read(1)
    shard_index._STATES.clear()  # another host, whose file of that name begins otherwise
    change(tar, 0)
    with pytest.raises(UserError, match="is another one on this host"):
        opened.read(1)


@pytest.fixture
def job(shards, family):
    config = Config()
    objective = make_objective(config.objective)
    split = SimpleNamespace(shards=ShardSet.open(str(shards)))
    tuned = SimpleNamespace(policy=torch.nn.Linear(1, 1), attention="sdpa")
    tuned.policy.dtype = torch.float32
    return SimpleNamespace(config=config, objective=objective, family=family), tuned, split


def test_a_cached_reference_is_known_by_bytes(job, shards):
    whole, tuned, split = job
    facts = cache_facts(whole, tuned, split, World())
    assert cache_facts(whole, tuned, split, World()) == facts
    change_unseen(shards / "train-000001.tar")
    split.shards = ShardSet.open(str(shards))
    assert split.shards.digest == facts["pairs"], "what the index remembers is unchanged"
    with pytest.raises(
        UserError, match=r"train-000001\.tar has other contents than when it was indexed.*svco data verify"
    ):
        cache_facts(whole, tuned, split, World())


def test_remembered_weights_are_read_again_when_only_their_size_and_time_are_equal(tmp_path):
    base, memory = tmp_path / "base", tmp_path / "digests.json"
    base.mkdir()
    (base / "model.safetensors").write_bytes(bytes(100_000))
    before = weights_digest(str(base), memory)
    change(base / "model.safetensors", 50_000)
    assert weights_digest(str(base), memory) != before


def test_the_values_of_a_cached_reference_are_those_that_were_written(tmp_path):
    cache = ReferenceCache.open(tmp_path, {"pairs": "x"}, 5)
    cache.put(np.arange(5), np.arange(5), np.ones((5, 2, 3), np.float32))
    cache.save({"pairs": "x"})
    assert (ReferenceCache.open(tmp_path, {"pairs": "x"}, 5).logps == 1).all()
    change(cache.path, cache.path.stat().st_size - 40)
    with pytest.raises(UserError, match="is damaged: it is not what was written.*Delete it"):
        ReferenceCache.open(tmp_path, {"pairs": "x"}, 5)
    stored = load_file(cache.path)
    save_file(stored, cache.path, {"facts": '{"pairs": "x"}'})
    with pytest.raises(UserError, match="is damaged"):
        ReferenceCache.open(tmp_path, {"pairs": "x"}, 5)
