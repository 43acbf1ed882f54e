"""Fuzzes the entrances: ``python tests/fuzz/run.py --minutes 60`` (make fuzz), or ``--inputs 200`` of each.

Each target runs in a process of its own that may take 2 GiB more than it has when it begins and SECONDS an input. What breaks is
kept under ``--finds``, and again at every start what ``tests/fuzz/corpus`` keeps. Exit code 1 when something broke.
"""

import argparse
import faulthandler
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
MEMORY = 2 << 30
SECONDS = 20


class TooSlow(BaseException):
    """An input took longer than SECONDS. Nobody catches it by accident."""


def _alarm(*_):
    raise TooSlow


def one_target(name: str, seed: int, inputs: int, seconds: float, finds: Path) -> dict:
    """Runs one target in this process."""
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
    import targets

    found = {"target": name, "inputs": 0, "read": 0, "refused": 0, "finds": [], "seconds": 0.0}
    with tempfile.TemporaryDirectory(prefix="svco-fuzz-") as folder:
        target = targets.TARGETS[name](Path(folder))
        for data in target.seeds:
            if (outcome := targets.run(target, data)) != "read":
                raise SystemExit(f"{name}: a whole file is {outcome}")
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        signal.signal(signal.SIGALRM, _alarm)
        rng, began = random.Random(f"{name} {seed}"), time.monotonic()
        kept = [file.read_bytes() for file in sorted((CORPUS / name).glob("*"))]
        pool = list(target.seeds)
        while found["inputs"] < len(kept) + -(-inputs // target.cost) if inputs else time.monotonic() - began < seconds:
            number = found["inputs"]
            data = kept[number] if number < len(kept) else target.mutate(rng.choice(pool), rng)
            found["inputs"] += 1
            signal.alarm(SECONDS)
            try:
                outcome = targets.run(target, data)
                found[outcome] += 1
                if (
                    outcome == "read" and len(data) < 1 << 20 and rng.random() < 0.02
                ):  # what still reads is damaged further
                    pool = [*target.seeds, *pool[len(target.seeds) :][-30:], data]
            except KeyboardInterrupt:
                raise
            except BaseException:
                signal.alarm(0)
                _keep(found, finds / name, data)
            finally:
                signal.alarm(0)
        found["seconds"] = round(time.monotonic() - began, 1)
    return found


def _keep(found: dict, folder: Path, data: bytes) -> None:
    said = traceback.format_exc()
    where = hashlib.sha256(
        "".join(line for line in said.splitlines(True) if line.startswith("  File")).encode()
    ).hexdigest()[:10]
    if where not in {find["where"] for find in found["finds"]}:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / where).write_bytes(data)
        (folder / f"{where}.txt").write_text(said, errors="backslashreplace")
        said = said.encode("ascii", "backslashreplace").decode()
        found["finds"].append({"where": where, "said": said.strip().splitlines()[-1], "file": str(folder / where)})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="of all targets together (default %(default)s)")
    parser.add_argument("--inputs", type=int, default=0, help="instead: so many of each target")
    parser.add_argument("--seed", type=int, default=None, help="(default: the time)")
    parser.add_argument(
        "--finds", type=Path, default=Path("fuzz-finds"), help="folder for what breaks (default %(default)s)"
    )
    parser.add_argument("--targets", default="", help="comma-separated (default: all)")
    parser.add_argument("--together", action="store_true", help="all targets in one process, which starts sooner")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = [name for name in arguments.targets.split(",") if name] or _all()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    each = arguments.minutes * 60 / len(names)
    if arguments.child:
        faulthandler.enable()
        for name in arguments.child.split(","):
            print(json.dumps(one_target(name, seed, arguments.inputs, each, arguments.finds.resolve())), flush=True)
        return 0
    broken = 0
    for name in [",".join(names)] if arguments.together else names:
        words = ["--minutes", str(arguments.minutes), "--inputs", str(arguments.inputs), "--seed", str(seed)]
        words += ["--finds", str(arguments.finds), "--targets", ",".join(names), "--child", name]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        child = subprocess.run([sys.executable, __file__, *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)
        for line in child.stdout.splitlines():
            if line.startswith('{"target"'):
                broken += _tell(json.loads(line))
        if child.returncode:
            print(f"{name:<12} the process ended with {child.returncode}\n{child.stderr[-2000:]}")
            broken += 1
    print(f"seed {seed}; {broken} finds")
    return 1 if broken else 0


def _tell(found: dict) -> int:
    """Prints what a target found; how much."""
    print(
        f"{found['target']:<12}{found['inputs']:>9} inputs in {found['seconds']:>7} s: {found['read']} read, "
        f"{found['refused']} refused, {len(found['finds'])} broke",
        flush=True,
    )
    for find in found["finds"]:
        print(f"  {find['said'][:150]}  {find['file']}")
    return len(found["finds"])


def _all() -> list[str]:
    quick = ["tars", "indices", "manifests", "records", "lengths", "references", "models", "checkpoints"]
    return [*quick, "adapters", "bases"]


if __name__ == "__main__":
    sys.exit(main())
