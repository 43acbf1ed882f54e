"""The stage of a row: a folder of its own with data, a base and foreign files, the processes started on it, and what must hold.

Checks raise :class:`Broken`. They are functions of what lies on disk and of what was said, so a control can hand them a
doctored run and see them fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import launch
from forked import worlds
from places import BASE, ROOT

from faults.processes import BEFORE_IT_COUNTS, Injected, Process, of_session, start, with_mark

STEPS, PAIRS_A_STEP = 6, 4
RECIPE = (
    f"optim.steps={STEPS}",
    f"optim.global_batch={PAIRS_A_STEP}",
    "optim.lr=1e-3",
    "optim.warmup_fraction=0",
    "lora.rank=4",
    "lora.alpha=8",
    "model.reference=cached",
    "checkpoint.every=2",
    "evaluate.every=3",
    "evaluate.pictures=1",
    "data.workers=0",
)
"""Six steps of 4 of 20 pairs, so that the second epoch has begun; three checkpoints of which two are kept."""
WEIGHTS = "adapter/adapter_model.safetensors"


class Broken(AssertionError):
    """Something that must hold after a fault does not."""


class NotHere(Exception):
    """A row that this machine cannot play, and what it lacks."""


def must(holds: object, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


@dataclass
class Ended:
    """What became of a process."""

    code: int | None
    said: str
    process: Process | None = None

    @property
    def text(self) -> str:
        """What it said, in one line: messages are folded."""
        return " ".join(self.said.split())


@dataclass
class Stage:
    """One row's own. ``world``: what all rows share."""

    folder: Path
    world: World
    disk: str = ""
    """Size of a disk of its own (a tmpfs); empty: none."""
    started: list[Process] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    mounts: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is worth telling of a row beside that it held."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.told.mkdir()
        if self.disk:
            self.mount("-t", "tmpfs", "-o", f"size={self.disk}", "svco-faults", at=self.folder)
        shutil.copytree(self.world.data, self.data)
        self.root.mkdir()
        # Foreign files, under names that a careless rule would take for its own.
        run = self.root / "other"
        for name in ("notes.txt", "adapter.tmp/precious", "checkpoints/step-000002/mine", ".state.json.host-1.tmp"):
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(f"foreign {name}")
        (self.root / "export.tmp").mkdir()
        (self.root / "export.tmp" / "precious").write_text("foreign")
        (self.data / "train-000000.tar.txt").write_text("foreign")
        self._foreign = {path: path.read_text() for path in self.foreign()}

    @property
    def told(self) -> Path:
        """Where what processes say goes: beside the folder, whose disk may be full."""
        return self.folder.with_name(f"{self.folder.name}.told")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def root(self) -> Path:
        return self.folder / "runs"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def run(self, name: str = "run") -> Path:
        return self.root / name

    @cached_property
    def base(self) -> Path:
        """A copy of the base model, to be changed."""
        return shutil.copytree(BASE, self.folder / "base")

    def foreign(self) -> list[Path]:
        inside = [
            *(self.root / "other").rglob("*"),
            *(self.root / "export.tmp").rglob("*"),
            self.data / "train-000000.tar.txt",
        ]
        return [path for path in inside if path.is_file()]

    def adopt(self, kind: str, name: str = "run") -> Path:
        """A copy of the world's finished run of ``kind``, with the references and caches that it made."""
        given = self.world.finished(kind)
        shutil.copytree(given.run("run"), self.run(name))
        for source, target in ((given.root / "references", self.root / "references"), (given.cache, self.cache)):
            if source.exists() and not target.exists():
                shutil.copytree(source, target)
        return self.run(name)

    def halfway(self, kind: str = "plain", step: int = 4) -> Path:
        """A copy of it as it was when it had just saved ``step`` and was killed."""
        run = self.adopt(kind)
        for later in run.glob("checkpoints/step-*"):
            if int(later.name[5:]) > step:
                shutil.rmtree(later)
        (run / "checkpoints" / "latest").write_text(f"step-{step:06d}")
        for name in ("adapter", "heldout.json", "samples.png"):
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        lines = [
            line for line in (run / "metrics.jsonl").read_text().splitlines(True) if json.loads(line)["step"] <= step
        ]
        (run / "metrics.jsonl").write_text("".join(lines))
        state = json.loads((run / "state.json").read_text()) | {"state": "running", "doing": "saving", "step": step}
        (run / "state.json").write_text(json.dumps(state | {"exit_code": None, "ticks": 1}, indent=1))
        return run

    def options(self, name: str, resume: str, *changes: str) -> list[str]:
        return [
            *RECIPE,
            f"data.train=[{self.data}/train-000000.tar,{self.data}/train-000001.tar]",
            f"data.validation={self.data}/val-000000.tar",
            f"data.heldout={self.data}/heldout-000000.tar",
            f"data.cache_dir={self.cache}",
            f"run.root={self.root}",
            f"run.name={name}",
            f"run.resume={resume}",
            *changes,
        ]

    def start(
        self,
        *changes: str,
        name: str = "run",
        resume: str = "auto",
        inject: tuple[Injected, ...] = (),
        ds: str | Path = "none",
        environment: dict[str, str] | None = None,
    ) -> Process:
        """A training process."""
        arguments = [str(ROOT / "launchers" / "train.py"), "--ds", str(ds), *self.options(name, resume, *changes)]
        return self.fork(arguments, inject, environment)

    def fork(
        self, arguments: list[str], inject: tuple[Injected, ...] = (), environment: dict[str, str] | None = None
    ) -> Process:
        output = self.told / f"said-{len(self.started)}.txt"
        self.started.append(start(arguments, output, self.folder, inject, environment))
        return self.started[-1]

    def end(self, process: Process, seconds: float = 300) -> Ended:
        code = process.wait(seconds)
        must(code is not None, f"it did not end within {seconds:.0f} s: {process.said()[-800:]}")
        return Ended(code, process.said(), process)

    def waits(self, process: Process) -> None:
        """Returns once it waits for the run's owner; Broken when it takes the run over."""
        deadline = time.monotonic() + 300
        while "waiting for process" not in process.said():
            taken = process.wait(0.1) is not None or "attention:" in process.said()
            must(not taken and time.monotonic() < deadline, "the second start took the folder over")
        must(process.wait(3) is None, "the second start did not go on waiting")

    def train(self, *changes: str, seconds: float = 300, **how) -> Ended:
        """A training process to its end."""
        return self.end(self.start(*changes, **how), seconds)

    def svco(self, *arguments: object, inject: tuple[Injected, ...] = ()) -> Ended:
        """``svco ARGUMENTS`` to its end."""
        return self.end(self.fork([str(ROOT / "svco" / "__main__.py"), *map(str, arguments)], inject))

    def ranks(
        self, *changes: str, count: int = 2, inject: dict[int, tuple[Injected, ...]] | None = None, **how
    ) -> list[Process]:
        """``count`` ranks under ZeRO-3, whose launcher is the fork server."""
        port = launch.free_port()
        self.ports.append(port)
        return [
            self.start(
                *changes,
                inject=(inject or {}).get(rank, ()),
                environment=place,
                **{"ds": self.world.zero3, **how},
            )
            for rank, place in enumerate(worlds(count, port))
        ]

    def anew(self, command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen:
        """A process started as a user does, imports and all."""
        output = (self.told / f"anew-{len(list(self.told.glob('anew-*')))}.txt").open("w")
        environment = launch.ENVIRONMENT | {"SVCO_FAULTS": self.mark} | (environment or {})
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def said_anew(self, number: int = -1) -> str:
        return sorted(self.told.glob("anew-*"))[number].read_text(errors="replace")

    @property
    def mark(self) -> str:
        return f"row-{self.folder}"

    # ------------------------------------------------------------------ what must hold

    def same_as(self, kind: str, name: str = "run", tolerance: float = 0.0) -> None:
        """The run is the uninterrupted one: every step once, as many pairs, the same numbers and the same weights."""
        same_run(self.run(name), self.world.finished(kind).run("run"), tolerance)

    def nothing_foreign_is_gone(self) -> None:
        for path, text in self._foreign.items():
            must(
                path.is_file() and path.read_text() == text,
                f"{path.relative_to(self.folder)} is foreign, and changed or gone",
            )

    def nothing_is_left(self) -> None:
        """No process of this row, and no shared memory of one."""
        deadline = time.monotonic() + BEFORE_IT_COUNTS
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        must(not left, f"processes are left: {left}")
        must(not (shared := self.shared_memory()), f"shared memory is left: {', '.join(shared)}")

    def processes(self) -> list[int]:
        return [pid for process in self.started for pid in of_session(process.pid)] + with_mark(self.mark)

    def shared_memory(self) -> list[str]:
        """What lies in /dev/shm under a name of this row's ports or processes."""
        names = os.listdir("/dev/shm")
        pids = {str(process.pid) for process in self.started}
        ours = [name for name in names if any(f"_{port}_" in name for port in self.ports)]
        return ours + [name for name in names if name.startswith("torch_") and name.split("_")[1] in pids]

    def end_all(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.worker.join(10)

    def close(self) -> None:
        """Ends and removes all that is left."""
        self.end_all()
        for name in self.shared_memory():
            Path("/dev/shm", name).unlink(missing_ok=True)
        for mount in reversed(self.mounts):
            subprocess.run(["umount", "-l", str(mount)], check=False)

    # ------------------------------------------------------------------ storage

    def mount(self, *arguments: str, at: Path) -> None:
        """Mounts there; NotHere for who may not."""
        at.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotHere(f"mount: {done.stderr.strip()} (needs root)")
        self.mounts.append(at)


def same_run(ours: Path, theirs: Path, tolerance: float = 0.0) -> None:
    """Broken unless ``ours`` has the numbers and the weights of ``theirs``."""
    mine, whole = (launch.metrics(run) for run in (ours, theirs))
    steps = [line["step"] for line in mine if "loss" in line]
    must(steps == list(range(1, STEPS + 1)), f"steps lost or doubled: {steps}")
    counted = [line["pairs"] for line in mine if "loss" in line]
    must(counted == [PAIRS_A_STEP * step for step in steps], f"pairs lost or doubled: {counted}")
    if not tolerance:
        differ = [(a, b) for a, b in zip(mine, whole, strict=False) if a != b]
        must(len(mine) == len(whole), f"{len(mine)} lines of metrics instead of {len(whole)}")
        must(not differ, f"another curve, first: {_first_difference(*differ[0]) if differ else ''}")
        for name in (WEIGHTS, "heldout.json"):
            must((ours / name).is_file(), f"there is no {name}")
            must((ours / name).read_bytes() == (theirs / name).read_bytes(), f"another {name}")
        return
    for one, other in zip(mine, whole, strict=True):
        for key in ("loss", "grad_norm", "validation/loss"):
            if key in other:
                must(
                    abs(one[key] / other[key] - 1) < tolerance,
                    f"step {one['step']}: {key} {one[key]} is not {other[key]}",
                )


def _first_difference(ours: dict, theirs: dict) -> str:
    for key in {**ours, **theirs}:
        if ours.get(key) != theirs.get(key):
            return f"step {ours['step']}: {key} {ours.get(key)} instead of {theirs.get(key)}"
    return ""


def told(ended: Ended, code: int, *words: str) -> None:
    """Broken unless it ended with ``code`` and said ``words``, without a traceback."""
    must(ended.code == code, f"exit code {ended.code} instead of {code}: {ended.text[-600:]}")
    for word in words:
        must(word in ended.text, f"it did not say {word!r}: {ended.text[-600:]}")
    must("Traceback" not in ended.said, f"a traceback: {ended.text[-600:]}")


def contents(folder: Path) -> dict[str, str]:
    """File -> digest, of everything in ``folder`` but what every start touches."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in ("lock", "state.json"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class World:
    """What all rows share: the data, and finished runs to compare with, each made when it is first asked for."""

    def __init__(self, folder: Path, seed: int = 0):
        self.folder, self.seed = folder, seed
        self._finished: dict[str, Stage] = {}

    @cached_property
    def data(self) -> Path:
        from svco.data.shards import write_shards
        from svco.tiny_world.contrast import world_pairs

        folder = self.folder / "data"
        if not folder.exists():
            for split, count in (("train", 20), ("val", 6), ("heldout", 6)):
                write_shards(list(world_pairs(split, 0, count)), folder, split, 10)
        return folder

    @cached_property
    def zero3(self) -> Path:
        """With its defaults a small model is gathered once and never let go."""
        ds = json.loads((ROOT / "ds_configs" / "zero3.json").read_text())
        few = {"stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 100_000}
        ds["zero_optimization"] |= few | {"stage3_max_reuse_distance": 100_000, "stage3_prefetch_bucket_size": 50_000}
        path = self.folder / "zero3.json"
        path.write_text(json.dumps(ds))
        return path

    KINDS = {"plain": (), "live": ("model.reference=lockstep",), "ranks": ("model.reference=lockstep",)}
    """Uninterrupted runs by name, and what they have beside the recipe."""

    def finished(self, kind: str) -> Stage:
        if kind not in self._finished:
            stage = Stage(self.folder / f"whole-{kind}", self)
            changes = ("checkpoint.keep=0", *self.KINDS[kind])
            processes = stage.ranks(*changes) if kind == "ranks" else [stage.start(*changes)]
            for process in processes:
                told(stage.end(process), 0)
            self._finished[kind] = stage
        return self._finished[kind]
