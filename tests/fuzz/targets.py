"""The entrances that are fuzzed: what is given to each, and what must hold of it whatever it is given.

A check may end in UserError or BadSample, which are answers. Everything else that it raises is a find.
"""

import io
import json
import random
import re
import shutil
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import mutate

from svco.basics.errors import BadSample, UserError
from svco.data.shard_index import load_index
from svco.data.shards import ShardSet, write_shards

PAIR = re.compile(rb"(.*/)?[^./][^/]*\.([01]\.(jpg|png)|pair\.json)", re.I | re.S)


class Target:
    """One entrance."""

    cost = 1
    """So many times as long as the others' an input takes, about."""

    def __init__(self, folder: Path):
        """Makes in ``folder`` what the entrance stands in; ``seeds``: whole files to begin with."""
        self.folder = folder
        self.seeds: list[bytes] = []

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        raise NotImplementedError

    def check(self, data: bytes) -> None:
        """Gives ``data`` to the entrance. AssertionError where something changed without a word."""
        raise NotImplementedError


def pairs(count):
    from svco.tiny_world.contrast import world_pairs

    return world_pairs("train", 0, count)


class Tars(Target):
    """A shard. What opens must hold every pair's member that stands in it, and read back the same from its index."""

    def __init__(self, folder):
        super().__init__(folder)
        (written,) = write_shards(pairs(3), folder / "made", "train", 3)
        plain = written.read_bytes()
        with tarfile.open(written) as archive:
            files = [(m.name, archive.extractfile(m).read()) for m in archive]
        others = [
            self._tar(files, tarfile.PAX_FORMAT, "a long folder/" * 12),
            self._tar(files, tarfile.GNU_FORMAT, "./" + "b" * 150 + "/"),
            self._tar([*files[:3], ("._x", b"1"), ("README.md", b"2"), *files[3:]], tarfile.USTAR_FORMAT, ""),
            self._tar(files[:3], tarfile.PAX_FORMAT, "ü/", {"mtime": "1.5", "SCHILY.xattr.user.a": "x" * 700}),
        ]
        self.seeds = [plain, *others]

    @staticmethod
    def _tar(files, form, front, headers=None):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for name, data in files:
                info = tarfile.TarInfo(front + name)
                info.size, info.pax_headers = len(data), headers or {}
                archive.addfile(info, io.BytesIO(data))
        return stream.getvalue()

    def mutate(self, data, rng):
        return mutate.tar(data, rng)

    def check(self, data):
        tar = self.folder / "x.tar"
        tar.write_bytes(data)
        tar.with_name("x.tar.index.json").unlink(missing_ok=True)
        opened = ShardSet.open(str(tar), self.folder / "cache")
        again = ShardSet.open(str(tar), self.folder / "cache")
        assert again == opened, "from its index it reads otherwise"
        assert load_index(tar, self.folder / "cache", say=lambda fault: _fail(fault)) == opened.indices[0]
        for number in range(len(opened)):
            try:
                opened.read(number)
            except BadSample:
                continue
        index = opened.indices[0]
        places = [place for entry in index.entries for place in entry.members.values()]
        unseen = index.passed + len(places)
        assert self._standing(data, places) <= unseen, "a member that stands in the tar is not told of"

    @staticmethod
    def _standing(data, places):
        """How many headers of pairs' files stand in ``data`` outside of what is read."""
        count = 0
        for at in range(0, len(data) - 511, 512):
            head = data[at : at + 512]
            if any(offset <= at < offset + size for offset, size in places) or head[257:262] != b"ustar":
                continue
            told = re.match(rb"[ 0]*([0-7]+)", head[148:156])
            real = sum(head) - sum(head[148:156]) + 8 * 32
            name = head[:100].split(b"\0")[0]
            if told and int(told[1], 8) == real and head[156:157] in (b"0", b"\0") and PAIR.fullmatch(name):
                count += 1
        return count


class Indices(Target):
    """A shard's index. Whatever stands there, the shard is read as it is."""

    def __init__(self, folder):
        super().__init__(folder)
        (self.tar,) = write_shards(pairs(3), folder, "train", 3)
        self.file = self.tar.with_name("train-000000.tar.index.json")
        self.truth = load_index(self.tar, folder / "cache")
        self.seeds = [self.file.read_bytes()]

    def mutate(self, data, rng):
        return mutate.as_json(data, rng)

    def check(self, data):
        self.file.write_bytes(data)
        assert load_index(self.tar, self.folder / "cache") == self.truth


class Manifests(Target):
    """A MANIFEST.json beside shards. What it says otherwise of a shard is a problem that verify names."""

    def __init__(self, folder):
        super().__init__(folder)
        from svco.commands.data.manifest import described
        from svco.commands.data.target import MANIFEST

        written = write_shards(pairs(4), folder, "train", 2)
        self.indices = [load_index(tar, folder / "cache") for tar in written]
        self.told = described(written)
        self.file = folder / MANIFEST
        self.seeds = [json.dumps({"version": 1, "seed": 0, "shards": self.told}).encode()]

    def mutate(self, data, rng):
        return mutate.as_json(data, rng)

    def check(self, data):
        from svco.commands.data.manifest import compare

        self.file.write_bytes(data)
        found = compare(self.indices, [str(self.folder)], [index.path for index in self.indices])
        try:
            said = json.loads(data)["shards"]
            same = all(said[name] == told for name, told in self.told.items()) and len(said) == len(self.told)
        except (ValueError, KeyError, TypeError, RecursionError):
            same = False
        assert same or found.problems or found.shards < len(self.indices), "the manifest was changed without a word"


class Records(Target):
    """What the cache notes of a copy: it never ends a run, and a copy is never taken for another version unseen."""

    def __init__(self, folder):
        super().__init__(folder)
        from svco.basics.files import file_mark
        from svco.data import shard_cache

        self.cache = shard_cache
        (tar,) = write_shards(pairs(2), folder, "train", 2)
        self.copy = tar
        index = load_index(tar, folder)
        record = {
            "url": "http://x/train-000000.tar",
            "bytes": index.bytes,
            "sha256": index.sha256,
            "mark": file_mark(tar),
        }
        self.seeds = [
            json.dumps(record | {"version": {"size": index.bytes, "etag": "a", "last_modified": "b"}}).encode()
        ]

    def mutate(self, data, rng):
        return mutate.as_json(data, rng)

    def check(self, data):
        self.copy.with_name(self.copy.name + ".source.json").write_bytes(data)
        version = self.cache._version_of(self.copy)
        assert version is None or not version.differs(replace(version)), version


class Lengths(Target):
    """Measured lengths, as kept: what is read is what was measured, or it is measured again."""

    def __init__(self, folder):
        super().__init__(folder)
        import numpy as np

        from svco.batches.lengths import Lengths as Measured

        self.kind = Measured
        self.truth = Measured(
            np.arange(9, dtype=np.int32).reshape(3, 3),
            np.ones((3, 2), np.int32),
            np.zeros(3, np.int32),
            np.full(3, "", "U24"),
        )
        self.file = folder / "x.npz"
        self.truth.save(self.file)
        self.seeds = [self.file.read_bytes()]

    def mutate(self, data, rng):
        return mutate.damaged(data, rng)

    def check(self, data):
        self.file.write_bytes(data)
        try:
            found = self.kind.load(self.file)
        except (OSError, ValueError):
            return  # measured again
        for name in ("prefixes", "responses", "cut", "reasons"):
            assert (getattr(found, name) == getattr(self.truth, name)).all(), name


class References(Target):
    """A cached reference: what is read is what was written."""

    FACTS = {"weights": "a", "pairs": "b"}

    def __init__(self, folder):
        super().__init__(folder)
        import numpy as np

        from svco.run.cached_reference import ReferenceCache

        self.kind = ReferenceCache
        cache = ReferenceCache.open(folder, self.FACTS, 5)
        cache.put(np.arange(5), np.arange(5), np.arange(30, dtype=np.float32).reshape(5, 2, 3))
        cache.save(self.FACTS)
        self.file, self.truth = cache.path, cache.logps
        self.seeds = [cache.path.read_bytes()]

    def mutate(self, data, rng):
        return mutate.safetensors(data, rng)

    def check(self, data):
        self.file.write_bytes(data)
        found = self.kind.open(self.folder, self.FACTS, 5)
        assert (found.logps == self.truth).all()


class Adapters(Target):
    """An adapter folder: its config or its tensors damaged. What it gives has the form and the shapes that a model checks."""

    def __init__(self, folder):
        super().__init__(folder)
        import torch

        from svco.model.adapter_files import ADAPTER_CONFIG, ADAPTER_FILE, AdapterForm, write_adapter

        names = {
            f"model.layers.0.{m}.lora_{x}.weight": (2, 4) if x == "A" else (4, 2) for m in ("q", "v") for x in "AB"
        }
        values = {name: torch.ones(shape) for name, shape in names.items()}
        write_adapter(folder, values, AdapterForm(4.0, 0.0, ()), "base")
        self.files = folder / ADAPTER_CONFIG, folder / ADAPTER_FILE
        self.seeds = [b"0" + self.files[0].read_bytes(), b"1" + self.files[1].read_bytes()]

    def mutate(self, data, rng):
        which = data[:1]
        return which + (mutate.as_json if which == b"0" else mutate.safetensors)(data[1:], rng)

    def check(self, data):
        import torch

        from svco.export.source import open_source
        from svco.model.adapter_files import read_form, stored_tensors

        for seed, file in zip(self.seeds, self.files, strict=True):
            file.write_bytes(data[1:] if seed[:1] == data[:1] else seed[1:])
        form = read_form(self.folder)
        assert form.alpha > 0
        assert isinstance(form.dropout, float)
        assert all(isinstance(name, str) for name in form.whole)
        for value in stored_tensors(self.folder).values():
            assert value.dtype.is_floating_point, value.dtype
            assert torch.isfinite(value.float()).all() or data[:1] == b"1"
        source = open_source(self.folder, None, lambda items, *_, **__: items)
        for weight in source.values.values():
            weight.read()


class Models(Target):
    """A model folder's weights, as exports read them: the file's header, or the index of several files."""

    def __init__(self, folder):
        super().__init__(folder)
        import torch
        from safetensors.torch import save_file

        self.index, self.file = folder / "model.safetensors.index.json", folder / "model-00001-of-00001.safetensors"
        save_file({"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, self.file)
        index = {"metadata": {"total_size": 32}, "weight_map": {"a.weight": self.file.name, "b": self.file.name}}
        self.seeds = [b"0" + json.dumps(index).encode(), b"1" + self.file.read_bytes()]

    mutate = Adapters.mutate

    def check(self, data):
        from svco.export.stream import read_folder

        for seed, file in zip(self.seeds, (self.index, self.file), strict=True):
            file.write_bytes(data[1:] if seed[:1] == data[:1] else seed[1:])
        for weight in read_folder(self.folder).values():
            assert tuple(weight.read().shape) == weight.shape


class Checkpoints(Target):
    """A checkpoint of a run: its MANIFEST or its tensors damaged. It is whole, or said to be damaged."""

    def __init__(self, folder):
        super().__init__(folder)
        import torch

        from svco.basics.dist import World
        from svco.engine.optimizer import TrainableState
        from svco.record import manifest
        from svco.record.checkpoint import Checkpoints as Written

        self.record = manifest
        values, *moments = ({"w": torch.ones(2, 3)} for _ in range(3))
        state = TrainableState(values, dict(zip(("exp_avg", "exp_avg_sq"), moments)), 1)
        position = manifest.Position(2, 0, 8, 1, 4, 9, "data", 1, "lora", {"bad-json": 1})
        self.step = Written(folder, 0, World(), {"optim.lr": 0.1}).save(position, state.save)
        self.position = position
        self.files = self.step / manifest.MANIFEST, self.step / "trainable.safetensors"
        self.seeds = [b"0" + self.files[0].read_bytes(), b"1" + self.files[1].read_bytes()]

    mutate = Adapters.mutate

    def check(self, data):
        for seed, file in zip(self.seeds, self.files, strict=True):
            file.write_bytes(data[1:] if seed[:1] == data[:1] else seed[1:])
        if self.record.damage(self.step) is not None:
            return
        position = self.record.read_position(self.step)
        self.record.read_identity(self.step)
        self.record.save_seconds(self.step)
        sealed = b'"digest"' in self.seeds[0]
        assert (
            data in self.seeds
            or not sealed
            or (position == self.position and json.loads(data[1:]) == json.loads(self.seeds[0][1:]))
        )


class Bases(Target):
    """A base model whose weights are damaged: it loads whole, or the file is said to be damaged."""

    cost = 10

    def __init__(self, folder):
        super().__init__(folder)
        from places import BASE

        self.base = folder / "base"
        shutil.copytree(BASE, self.base)
        self.file = self.base / "model.safetensors"
        self.seeds = [self.file.read_bytes()]

    def mutate(self, data, rng):
        return mutate.safetensors(data, rng)

    def check(self, data):
        import torch

        from svco.families import load_family
        from svco.model.attention import register
        from svco.model.load import load_base

        self.file.write_bytes(data)
        register("sdpa")
        load_base(str(self.base), load_family(str(self.base), 128), torch.float32, "sdpa")


def _fail(fault):
    raise AssertionError(fault)


TARGETS = {
    target.__name__.lower(): target
    for target in (Tars, Indices, Manifests, Records, Lengths, References, Adapters, Models, Checkpoints, Bases)
}


def run(target: Target, data: bytes) -> str:
    """``data`` at ``target``: "read" or "refused"; what it raises else is a find."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.check(data)
        except (UserError, BadSample) as error:
            said = str(error)
            assert said.strip(), "an error without a word"
            said.encode("utf-8")  # it can be printed
            return "refused"
    return "read"
