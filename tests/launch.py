"""Starts real runs, as a user does or as forks of a process with the imports done, and reads what they leave behind."""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from contextlib import chdir, contextmanager
from pathlib import Path

from forked import run_forked, worlds
from places import ROOT

ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}
TIMINGS = ("seconds/", "memory_", "tokens_per_second", "pairs_per_second")
"""Metrics that differ from run to run."""


@contextmanager
def default_port():
    """DeepSpeed's own port, for one test at a time: those that launch as a user does run in several workers."""
    with (Path(tempfile.gettempdir()) / f"svco-tests-{os.getuid()}-port-29500").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launched(ranks: int, script: str, *arguments: object) -> list[str]:
    """The command line of ``script`` on ``ranks``: 0 stands for the bare command, which finds one device without GPUs."""
    port = free_port()
    count = ["--num_accelerators", str(ranks)] if ranks else []
    return ["deepspeed", *count, "--master_port", str(port), str(ROOT / script), *map(str, arguments)]


def command(ranks: int | None, ds: Path | str, *arguments: str) -> list[str]:
    """The command line of a run: ``ranks`` None is one process without the launcher."""
    script = "launchers/train.py"
    if ranks is None:
        return [sys.executable, str(ROOT / script), "--ds", str(ds), *arguments]
    return launched(ranks, script, "--ds", ds, *arguments)


def ended(
    ranks: int | None, script: Path | str, *arguments: object, timeout: float = 400
) -> tuple[list[int | None], str]:
    """Runs ``script`` to its end on ``ranks``, forks of one process that has the imports done: (exit codes, what it says).
    ``ranks`` None is one process that no launcher has told of ranks."""
    places = worlds(ranks, free_port()) if ranks else [{}]
    return run_forked([str(ROOT / script), *map(str, arguments)], [ENVIRONMENT | place for place in places], timeout)


def output(ranks: int | None, script: Path | str, *arguments: object, timeout: float = 400) -> str:
    """The same; what it says. Fails with it when an exit code is not 0."""
    codes, said = ended(ranks, script, *arguments, timeout=timeout)
    assert not any(codes), f"exit codes {codes}\n{said[-6000:]}"
    return said


def start(ranks: int | None, ds: Path | str, *arguments: str, **how) -> subprocess.Popen:
    return _started(command(ranks, ds, *arguments), **how)


def start_svco(ranks: int, ds: Path | str, *arguments: str) -> subprocess.Popen:
    """`svco train`, which starts its ranks itself."""
    return _started([sys.executable, "-m", "svco", "train", "--ds", str(ds), "--ranks", str(ranks), *arguments])


def _started(line: list[str], **how) -> subprocess.Popen:
    return subprocess.Popen(
        line,
        cwd=ROOT,
        env=ENVIRONMENT,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **how,
    )


def run(ranks: int | None, ds: Path | str, *arguments: str, timeout: float = 400) -> str:
    """Trains to the end, as :func:`output` runs a script."""
    return output(ranks, "launchers/train.py", "--ds", ds, *arguments, timeout=timeout)


def run_anew(ranks: int | None, ds: Path | str, *arguments: str, timeout: float = 400) -> str:
    """The same as a user starts it: interpreter, imports and launcher."""
    process = start(ranks, ds, *arguments)
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, said[-6000:]
    return said


def runs(ranks: int, *those: tuple[Path, list[str]]) -> None:
    """Several runs (DeepSpeed JSON, arguments) in the same ranks, one after another: most of a short run is its start."""
    told = json.dumps([(str(ds), arguments) for ds, arguments in those])
    output(ranks, "tests/distributed/runs.py", told)


def here(script: Path | str, *arguments: object) -> int:
    """The exit code of ``script`` (of ``launchers/``), run in this process: a new one imports for seconds what this one has."""
    before = sys.argv
    sys.argv = [str(script), *map(str, arguments)]
    try:
        with chdir(ROOT):
            runpy.run_path(str(ROOT / "launchers" / script), run_name="__main__")
    except SystemExit as done:
        return done.code
    finally:
        sys.argv = before
    return 0


def alone(*arguments: object) -> None:
    """A run without DeepSpeed to its end, in this process."""
    assert here("train.py", "--ds", "none", "data.workers=0", *arguments) == 0


def metrics(folder: Path, timings: bool = False) -> list[dict]:
    """The lines of metrics.jsonl, without timings and memory unless asked for."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return lines if timings else [{k: v for k, v in line.items() if not k.startswith(TIMINGS)} for line in lines]


def strictly_json(folder: Path) -> set[str]:
    """Names of the JSON files in ``folder``, each of which parses as the standard says: NaN is none."""
    from svco.basics.strict_json import parse_json

    files = [path for kind in ("*.json", "*.jsonl") for path in folder.rglob(kind)]
    for file in files:
        text = file.read_text()
        for part in text.splitlines() if file.suffix == ".jsonl" else [text]:
            try:
                parse_json(part)
            except ValueError as error:
                raise AssertionError(f"{file}: {error}") from None
    return {file.name for file in files}


def training(folder: Path) -> dict[int, dict]:
    """Step -> its training metrics, without timings."""
    return {line["step"]: line for line in metrics(folder) if "loss" in line}
