"""More checks of the ranks' facts: environment variables, files that must be everywhere, and space."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .checks import FAIL, GB, OK, WARN, Check, Wanted, apart_by, by_value, differing, entry
from .facts import Facts

PLENTY = {"run.root": 20 * GB, "data.cache_dir": 2 * GB, "/tmp": 2 * GB, "run.swap": 20 * GB}
"""Free space below which a place is worth a look; below a twentieth of it a run would not get far."""
SHM = (128 * 10**6, 10**9)
"""Sizes of /dev/shm: below the first NCCL and loaders fail (Docker gives 64 MB), below the second they may."""
SECRET = re.compile("TOKEN|KEY|SECRET|PASSWORD")
"""What the names of variables say whose values nobody else should see."""
FORWARD = (
    "pdsh takes along only NCCL*, PYTHON*, UCX*, MV2* and MLFLOW*: write the others into ~/.deepspeed_env (example: "
    "launchers/deepspeed_env.example), or start with launchers/ssh.sh, srun or torchrun"
)


def environment(facts: Sequence[Facts], wanted: Wanted) -> list[Check]:
    checks = []
    for what, values, verdict in (("--env", wanted.environment, FAIL), (".deepspeed_env", wanted.written, WARN)):
        missed = []
        for name, value in values.items():
            wrong = by_value(facts, entry("environment", name))
            wrong.pop(value, None)
            if wrong:
                right = "what it should be" if SECRET.search(name) else value
                missed.append(f"{name} is {_shown(name, wrong)}, not {right}")
        if missed:
            checks.append(Check(verdict, f"environment, {what}", "; ".join(missed), FORWARD))
    names = sorted({name for f in facts for name in f.environment})
    apart = apart_by(facts, "environment", names)
    if apart:
        text = "; ".join(f"{name}: {_shown(name, found)}" for name, found in apart.items())
        checks.append(Check(WARN, "environment", f"differs between ranks: {text}", FORWARD))
    crowded = any(f.local_rank for f in facts)
    if crowded and any("OMP_NUM_THREADS" not in f.environment for f in facts):
        text = "OMP_NUM_THREADS is not set: each rank starts a thread for every core of its host"
        checks.append(Check(WARN, "threads", text, "OMP_NUM_THREADS = cores of a host / its ranks. " + FORWARD))
    if not checks:
        checks.append(Check(OK, "environment", f"alike on all ranks: {', '.join(names) or 'nothing of interest set'}"))
    return checks


def _shown(name: str, found: Mapping[str | None, list[str]]) -> str:
    """``differing``, without the values of a secret: reports end in logs that others read."""
    if not SECRET.search(name):
        return differing(found)
    return "; ".join(f"{'none' if value is None else 'set'} on {', '.join(where)}" for value, where in found.items())


def base_model(facts: Sequence[Facts], wanted: Wanted) -> Check:
    problems = by_value([f for f in facts if f.base_problem], lambda f: f.base_problem)
    if problems:
        offline = any(f.environment.get("HF_HUB_OFFLINE") == "1" for f in facts)
        every = all(f.base_problem and "Hugging Face cache" in f.base_problem for f in facts)
        remedy = (
            "put it on shared storage, or download it on every node (HF_HOME must be the same place for all): "
            f"'hf download {wanted.base}' where there is internet, and copy the folder"
        )
        verdict = WARN if every and not offline else FAIL
        text = differing(problems) + ("; the run would download it" if verdict == WARN else "")
        return Check(verdict, "base model", text, remedy)
    found = by_value(facts, lambda f: tuple(sorted(f.base.items())))
    if len(found) > 1:
        sizes = {f"{sum(size for _, size in files) / GB:.3g} GB in {len(files)} files": w for files, w in found.items()}
        return Check(FAIL, "base model", f"other files: {differing(sizes)}", "copy the same model to every node")
    files = facts[0].base
    return Check(
        OK, "base model", f"{wanted.base}, {sum(files.values()) / GB:.3g} GB in {len(files)} files, everywhere"
    )


def shards(facts: Sequence[Facts]) -> Check:
    problems = by_value([f for f in facts if f.shards_problem], lambda f: f.shards_problem)
    if problems:
        return Check(FAIL, "shards", differing(problems), "every node must read all shards, under the same path")
    found = by_value(facts, lambda f: tuple(sorted(f.shards.items())))
    if len(found) > 1:
        sizes = {f"{sum(size for _, size in files):,} bytes in {len(files)} shards": w for files, w in found.items()}
        return Check(FAIL, "shards", f"other files: {differing(sizes)}", "copy the same shards to every node")
    first = facts[0]
    text = f"{len(first.shards)} local, {sum(first.shards.values()) / GB:.3g} GB, readable everywhere"
    if first.unindexed:
        text += f"; {first.unindexed} without an index, which rank 0 makes when the run begins"
    return Check(OK, "shards", text)


def disk(facts: Sequence[Facts]) -> Check:
    low: dict[tuple[str, bool], list[str]] = {}
    places = {place: plenty for place, plenty in PLENTY.items() if place in facts[0].disk}
    for place, plenty in places.items():
        for host, free in {f.host: f.disk.get(place, 0) for f in facts}.items():
            if free < plenty:
                low.setdefault((place, free < plenty / 20), []).append(f"{host}: {free / GB:.2g} GB")
    if low:
        text = "; ".join(f"little space for {place}: {', '.join(where)}" for (place, _), where in low.items())
        verdict = FAIL if any(empty for _, empty in low) else WARN
        return Check(
            verdict, "disk", text, "free some, or point run.root, data.cache_dir, run.swap or TMPDIR elsewhere"
        )
    least = {place: min(f.disk.get(place, 0) for f in facts) for place in places}
    return Check(OK, "disk", ", ".join(f"{place} {free / GB:.3g} GB free" for place, free in least.items()))


def shared_memory(facts: Sequence[Facts]) -> Check:
    sizes = {f.host: f.shm for f in facts}
    low = {host: size for host, size in sizes.items() if size < SHM[1]}
    if low:
        text = ", ".join(f"{host} has {size / 1e6:.0f} MB" for host, size in low.items())
        verdict = FAIL if min(low.values()) < SHM[0] else WARN
        return Check(
            verdict, "/dev/shm", text, "give it more: docker run --shm-size=16g, mount -o remount,size=16g /dev/shm"
        )
    return Check(OK, "/dev/shm", f"{min(sizes.values()) / GB:.3g} GB or more")


def memory(facts: Sequence[Facts], wanted: Wanted) -> Check:
    hosts = {f.host: f for f in facts}
    main = next(f for f in facts if f.rank == 0)
    weights = sum(size for name, size in main.base.items() if name.endswith((".safetensors", ".bin")))
    if weights > main.memory and not wanted.quantised:  # what is quantised goes to the device matrix by matrix
        text = f"{main.host} has {main.memory / GB:.3g} GB available and rank 0 loads {weights / GB:.3g} GB of weights"
        return Check(
            FAIL, "host memory", text, "rank 0 reads the whole base model before it is shared out: a larger node first"
        )
    least = min(f.memory for f in hosts.values())
    if least < 4 * GB:
        where = ", ".join(h for h, f in hosts.items() if f.memory < 4 * GB)
        return Check(WARN, "host memory", f"{least / GB:.2g} GB available on {where}", "stop what else runs there")
    return Check(OK, "host memory", f"{least / GB:.3g} GB or more available; rank 0 loads {weights / GB:.3g} GB")
