"""svco data build: the same bytes with any number of workers and after any kill, splits that are fair and apart."""

import hashlib
import json
import os
import signal
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from svco import cli
from svco.commands.data.apart import divided, quotas
from svco.commands.data.manifest import Recipes
from svco.commands.data.records import Record
from svco.data.alike import components, near
from svco.data.looks import UNKNOWN, look_of
from svco.data.shards import ShardSet, expand
from svco.data.splits import split_of


def run(*arguments):
    """Runs the console script in this process; its exit code."""
    before, sys.argv = sys.argv, ["svco", "data", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as done:
            cli.main()
    finally:
        sys.argv = before
    return done.value.code


def photograph(seed, size=(96, 72)):
    """Something like one: light and dark on every scale, by a spectrum that falls with the frequency."""
    rng = np.random.default_rng(seed)
    height, width = size[1], size[0]
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / width) ** 1.5
    layers = []
    for _ in range(3):
        spectrum = fall * np.exp(2j * np.pi * rng.random((height, width // 2 + 1)))
        layers.append(np.fft.irfft2(spectrum, (height, width)))
    grey = layers[0]
    picture = np.stack([grey + 0.3 * layer for layer in layers], 2)
    low, high = np.percentile(picture, (1, 99))
    return Image.fromarray((255 * np.clip((picture - low) / (high - low), 0, 1)).astype(np.uint8))


def pasted(image):
    spot = Image.new("RGB", (image.width // 16, image.height // 16), (200, 40, 30))
    image = image.copy()
    image.paste(spot, (image.width // 3, image.height // 3))
    return image


EDITS = {
    "as it is": lambda image: image,
    "mirrored": ImageOps.mirror,
    "recoloured": lambda image: ImageEnhance.Color(image).enhance(0.2),
    "lighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "pasted": pasted,
    "smaller": lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)),
    "larger, mirrored": lambda image: ImageOps.mirror(image.resize((image.width * 2, image.height * 2))),
}


def save(image, path, quality=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality) if path.suffix == ".jpg" else image.save(path)


def records_of(tmp_path, pairs):
    """``pairs``: (image, image, type, source, …); the file of records."""
    lines = [
        {
            "query": f"What is in {n}?",
            "images": [a, b],
            "responses": [f"A {n}.", f"B {n}."],
            "type": kind,
            "source": source,
        }
        for n, (a, b, kind, source) in enumerate(pairs)
    ]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def contents(folder):
    """Name -> digest of all that a build promises to be the same: shards and manifest."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if not path.name.endswith(".index.json")
    }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Records of 24 pairs whose pictures are JPEG, PNG, turned, transparent, 16-bit, large and blank; the build's command without
    its target, and what an undisturbed build with one worker makes of them."""
    folder = tmp_path_factory.mktemp("mixed")
    images, pairs = folder / "images", []
    for n in range(24):
        first, second = photograph(2 * n, (40, 30)), photograph(2 * n + 1, (40, 30))
        names = (f"{n}a.jpg", f"{n}b.jpg") if n % 3 else (f"{n}a.png", f"{n}b.jpg")
        if n == 3:
            first.putalpha(128)
        if n == 6:
            first = Image.fromarray(np.asarray(first.convert("L")).astype(np.uint16) * 257)
        if n == 9:
            first = Image.new("RGB", (40, 30), (9, 9, 9))
        if n == 12:
            second = photograph(99, (120, 60))
        save(first, images / names[0])
        save(second, images / names[1])
        pairs.append((*names, ("object", "attribute")[n % 2], ("x", "y", "z")[n % 3]))
    records = records_of(folder, pairs)
    command = [
        "build",
        records,
        "--images",
        images,
        "--val",
        0.2,
        "--heldout",
        0.2,
        "--pairs-per-shard",
        5,
        "--size",
        64,
    ]
    assert run(*command, "--workers", 1, "-o", folder / "whole") == 0
    return command, contents(folder / "whole")


@pytest.mark.parametrize("workers", [2, 7])
def test_any_number_of_workers_writes_the_same_bytes(mixed, tmp_path, workers):
    command, whole = mixed
    assert run(*command, "--workers", workers, "-o", tmp_path / "s") == 0
    assert contents(tmp_path / "s") == whole
    assert run("verify", tmp_path / "s") == 0, "indices too"
    assert run(*command, "--workers", workers, "--seed", 1, "-o", tmp_path / "t") == 0
    assert contents(tmp_path / "t") != whole, "the control"


def killed(command, at):
    """Runs ``svco data`` in a child that SIGKILL ends at its ``at``-th operation on files of its own; how many there were, and
    whether it was killed."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        out, count = str(command[-1]), 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)

        def watch(event, values):
            nonlocal count
            if event in (
                "open",
                "os.rename",
                "os.link",
                "os.remove",
                "os.mkdir",
                "os.rmdir",
                "shutil.rmtree",
                "os.truncate",
            ) and any(out in os.fsdecode(value) for value in values if isinstance(value, (str, bytes, os.PathLike))):
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        code = run(*command)
        os.write(writer, f"{count} {code}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        told = said.read()
    _, status = os.waitpid(child, 0)
    return told, os.WIFSIGNALED(status)


def test_killed_anywhere_and_started_again_it_ends_with_the_same_bytes(mixed, tmp_path):
    command, whole = mixed
    told, died = killed([*command, "-o", tmp_path / "count"], 0)
    operations, code = map(int, told.split())
    assert (code, died) == (0, False)
    assert operations > 40

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(st.integers(1, operations), min_size=1, max_size=2))
    def holds(places):
        folder = tmp_path / hashlib.sha256(repr(places).encode()).hexdigest()[:12]
        build = [*command, "-o", folder / "s"]
        (folder).mkdir(exist_ok=True)
        dead = [killed(build, place)[1] for place in places]
        assert any(dead) or len(places) > 1, "the control: it really dies there"
        # What is whole already is refused, as of any build that is done.
        assert run(*build) == 0 or (contents(folder / "s") == whole and not any(folder.glob("*.unfinished")))
        assert contents(folder / "s") == whole
        assert sorted(path.name for path in folder.iterdir()) == ["s"], "nothing else is left"
        assert run("verify", folder / "s") == 0

    holds()


def test_what_is_left_over_of_other_records_is_not_taken_for_these(mixed, tmp_path, capsys):
    """After a kill: a picture is another one, a record is gone, a kept shard is damaged, a line is cut."""
    command, _ = mixed
    images, records = tmp_path / "i", tmp_path / "r.jsonl"
    images.mkdir()
    for path in sorted(command[3].iterdir()):
        (images / path.name).write_bytes(path.read_bytes())
    records.write_bytes(command[1].read_bytes())
    build = ["build", records, "--images", images, *command[4:], "-o", tmp_path / "s"]
    (tmp_path / "s").write_text("in the way")
    assert run(*build) == 2
    kept = tmp_path / "s.unfinished"
    assert len((kept / "pictures.jsonl").read_text().splitlines()) == 48
    (tmp_path / "s").unlink()
    save(photograph(1000, (40, 30)), images / "5b.jpg")
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:-1]))
    shard = kept / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with (kept / "pictures.jsonl").open("a") as stream:
        stream.write('[1,"half a line')
    assert run(*build) == 0
    assert "of an unfinished build were used: 45 pictures" in capsys.readouterr().out
    assert run(*build[:-1], tmp_path / "fresh") == 0
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")


def brute(looks, within):
    """Pairs of rows that look alike, one by one."""
    bits = lambda a, b: int(np.bitwise_count(np.uint64(a) ^ np.uint64(b)))  # noqa: E731
    for i in range(len(looks)):
        for j in range(i):
            a, b = looks[i], looks[j]
            for x, y in ((a[:2], b[:2]), (a[:2], b[2:]), (a[2:], b[:2])):
                if bits(x[0], y[0]) <= within and bits(x[1], y[1]) <= within:
                    yield i, j
                    break


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 15), st.integers(1, 12), st.integers(1, 12))
def test_the_quick_search_joins_what_every_distance_says(seed, within, families, each):
    """Hashes in families whose members differ in just about so many bits, some of them mirrored or equal."""
    rng = np.random.default_rng(seed)
    looks = rng.integers(1, 2**63, (families, 4), dtype=np.uint64).repeat(each, 0)
    for row in looks:
        for part in range(4):
            for bit in rng.choice(64, rng.integers(0, within // 2 + 2), replace=False):
                row[part] ^= np.uint64(1) << np.uint64(bit)
        if rng.random() < 0.3:
            row[:] = row[[2, 3, 0, 1]]
    looks = looks[rng.permutation(len(looks))]
    found = components(len(looks), near(looks, within))
    slow = components(len(looks), [np.array(list(brute(looks, within)), int).reshape(-1, 2)])
    assert (found == slow).all()


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(list(EDITS))), min_size=2, max_size=10), st.integers(0, 9))
def test_what_looks_alike_is_in_one_split(tmp_path_factory, drawn, seed):
    """Photographs and their edits as sides of many pairs, the other sides strangers: no photograph is in two splits."""
    folder = tmp_path_factory.mktemp("alike")
    drawn = [*((number, "as it is") for number in sorted({number for number, _ in drawn})), *drawn]
    pairs = []
    for n, (number, edit) in enumerate(drawn):
        save(EDITS[edit](photograph(number)), folder / "i" / f"{n}.jpg", quality=70 + n)
        save(photograph(100 + n), folder / "i" / f"other{n}.jpg")
        pairs.append((f"{n}.jpg", f"other{n}.jpg", "object", "x"))
    save(photograph(50), folder / "i" / "last.png")
    pairs.append(("last.png", "other0.jpg", "object", "x"))
    build = [
        "build",
        records_of(folder, pairs),
        "--images",
        folder / "i",
        "--val",
        0.3,
        "--heldout",
        0.3,
        "--seed",
        seed,
    ]
    assert run(*build, "-o", folder / "s") == 0
    home = {}
    for shard in expand(str(folder / "s")):
        opened = ShardSet.open(shard)
        for text in map(opened.read_text, range(len(opened))):
            n = int(text.query.split()[-1].rstrip("?"))
            home.setdefault(drawn[n][0] if n < len(drawn) else drawn[0][0], set()).add(split_of(shard))
    assert all(len(splits) == 1 for splits in home.values())
    assert run("verify", folder / "s") == 0


def test_pixels_alone_let_edits_leak_and_verify_says_so(tmp_path, capsys):
    """The control of the one above, and what verify finds: mirrors too."""
    edits = list(EDITS.values())
    pairs = []
    for n in range(28):
        save(edits[n % 7](photograph(n // 7)), tmp_path / "i" / f"{n}.jpg", quality=70 + n % 20)
        save(photograph(100 + n), tmp_path / "i" / f"other{n}.jpg")
        pairs.append((f"{n}.jpg", f"other{n}.jpg", "object", "x"))
    build = ["build", records_of(tmp_path, pairs), "--images", tmp_path / "i", "--val", 0.3, "--heldout", 0.3]
    assert run(*build, "--near-duplicates", "off", "-o", tmp_path / "s") == 0
    assert run("verify", tmp_path / "s") == 0, "as it was built"
    assert run("verify", tmp_path / "s", "--near-duplicates", 7) == 1
    said = capsys.readouterr().out
    assert "near-duplicate: image 0 of" in said
    assert "bits apart, mirrored)" in said
    assert run(*build, "-o", tmp_path / "t") == 0
    out = capsys.readouterr().out
    assert run("verify", tmp_path / "t") == 0
    assert "note:" not in out, "a quarter of few pairs is no giant"
    # A chain of them all is one component, and that is said.
    chain = [(f"{n}.jpg", f"{(n + 7) % 28}.jpg", "object", "x") for n in range(28)]
    build[1] = records_of(tmp_path, [*chain, *pairs])
    assert run(*build, "-o", tmp_path / "u") == 0
    assert "(100%) hang together and are in one split" in " ".join(capsys.readouterr().out.split())


def test_flat_pictures_look_like_nothing():
    """Their hashes are noise: a wall and another wall are no duplicates."""
    rng = np.random.default_rng(0)
    for level in (0, 90, 250):
        wall = np.clip(level + rng.normal(0, 4, (60, 80, 3)), 0, 255).astype(np.uint8)
        assert look_of(Image.fromarray(wall)) == UNKNOWN
    assert look_of(photograph(0)) != UNKNOWN


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
    st.integers(0, 2**16),
    st.integers(1, 9),
)
def test_every_stratum_has_its_share(counts, val, heldout, seed, largest):
    rng = np.random.default_rng(seed)
    strata = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    names = [hashlib.sha256(bytes([seed % 256]) + n.to_bytes(4)).digest()[:16] for n in range(len(strata))]
    shares = {"heldout": heldout, "val": val}
    wanted = quotas(np.array(counts), shares, seed)
    for split, share in shares.items():
        assert (np.abs(wanted[split] - share * np.array(counts)) < 1).all() or (
            wanted[split] <= share * np.array(counts)
        ).all()
        assert wanted[split].sum() <= round(share * sum(counts))
    assert (sum(wanted.values()) < np.array(counts)).all(), "one is left to train on"
    # Alone, each pair: just the quotas.
    alone = divided(np.arange(len(strata)), strata, names, shares, seed)
    for split in shares:
        had = np.bincount(strata[[of == split for of in alone]], minlength=len(counts))
        assert (had == wanted[split]).all()
    # In groups: none is torn, and none more would bring a split nearer.
    groups = rng.integers(0, max(1, len(strata) // largest), len(strata))
    of = divided(groups, strata, names, shares, seed)
    assert "train" in of
    assert of == divided(groups, strata, names, shares, seed)
    have = {split: np.bincount(strata[[o == split for o in of]], minlength=len(counts)) for split in shares}
    for group in set(groups.tolist()):
        inside = {of[n] for n in np.flatnonzero(groups == group)}
        assert len(inside) == 1
        if inside == {"train"} and (groups == group).sum() < of.count("train"):
            size = np.bincount(strata[groups == group], minlength=len(counts))
            for split in shares:
                before = np.abs(wanted[split] - have[split]).sum()
                assert np.abs(wanted[split] - have[split] - size).sum() >= before


def test_a_manifest_says_how_each_pair_came_to_be(mixed):
    command, _ = mixed
    folder = command[1].parent / "whole"
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["version"] == 2
    assert manifest["build"]["size"] == 64
    assert manifest["made_of"]["records"]["sha256"] == hashlib.sha256(command[1].read_bytes()).hexdigest()
    assert manifest["pictures"] == {"files": 48, "resized": 1}
    assert {(s["source"], s["type"]) for s in manifest["strata"]} == {
        (s, t) for s in "xyz" for t in ("object", "attribute")
    }
    for name, told in manifest["shards"].items():
        opened = ShardSet.open(str(folder / name))
        for number, recipe in zip(range(len(opened)), told["recipes"].split(), strict=True):
            assert manifest["recipes"][int(recipe)]["source"] == opened.read_text(number).source
    sizes = []
    for opened in map(ShardSet.open, sorted(map(str, folder.glob("*.tar")))):
        sizes += [size for number in range(len(opened)) for size in opened.image_sizes(number)]
    assert sorted(sizes)[-1] == (64, 32), "reduced, and none enlarged"
    recipes = Recipes()
    same = Record(images=("a", "b"), stages={"rewrite": {"asked": "m", "prompts_sha256": "0", "at": "1"}})
    other = Record(images=("a", "b"), stages={"rewrite": {"asked": "m", "prompts_sha256": "1", "at": "1"}})
    later = Record(images=("c", "d"), stages={"rewrite": {"asked": "m", "prompts_sha256": "0", "at": "2"}})
    assert [recipes.number(record) for record in (same, other, later)] == [0, 1, 0]
    many = [Record(images=("a", "b"), stages={"own": {"n": n}}) for n in range(1200)]
    assert max(recipes.number(record) for record in many) == 1000
    assert recipes.found[1000]["pairs"] == 202


def test_verify_names_absurd_sizes(tmp_path, capsys):
    """What is named is what was drawn, and nothing at the bounds."""
    sizes = [(8, 160), (7, 40), (40, 7), (10, 201), (40, 40)]
    pairs = []
    for n, size in enumerate(sizes):
        save(photograph(n, (200, 200)).resize(size), tmp_path / "i" / f"{n}.png")
        save(photograph(50 + n, (40, 40)), tmp_path / "i" / f"other{n}.png")
        pairs.append((f"{n}.png", f"other{n}.png", "object", "x"))
    build = ["build", records_of(tmp_path, pairs), "--images", tmp_path / "i", "--val", 0, "--heldout", 0]
    assert run(*build, "-o", tmp_path / "s") == 0
    assert run("verify", tmp_path / "s") == 1
    said = capsys.readouterr().out
    assert [shape in said for shape in ("8 × 160", "7 × 40", "40 × 7", "10 × 201", "40 × 40")] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert "3 problems" in said
