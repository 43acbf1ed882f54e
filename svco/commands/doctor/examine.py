"""The examination: the ranks meet, compare what they find, and try what they share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.files import hosts_apart
from ...basics.secrets import redacted_tree
from ...recipe.config import Config
from ...recipe.ds_config import COMPRESSED, fill, offloaded
from . import checks, surroundings
from .checks import FAIL, OK, WARN, Check, Wanted
from .facts import Facts, collect
from .meeting import Meeting, meet
from .network import check_network

OFFLOADS = ("param", "optimizer")
"""What can live elsewhere than on the device."""


def examine(
    config: Config,
    ds: Mapping[str, Any] | None,
    world: World,
    environment: Mapping[str, str],
    timeout: float,
    megabytes: float,
) -> int:
    """Prints a line a check on rank 0 as it is known; 1 when anything fails, else 0. A collective.

    ``environment``: variables every rank must have. ``timeout``: seconds to wait for ranks, and for the network.
    ``megabytes``: size of the largest collective that is timed.
    """
    meeting = meet(world, timeout)
    written = meeting.broadcast(deepspeed_env())
    filled, settings = deepspeed_json(config, ds, meeting)
    swap = swap_folder(filled)
    # The disk to look at is the one that is swapped to: the JSON may name it itself, or nothing be swapped.
    config = replace(config, run=replace(config.run, swap=swap))
    mine = collect(config, world.rank, world.local_rank, {*written, *environment})
    facts = [Facts.heard(told) for told in meeting.gather(asdict(mine))]
    quantised = config.model.quantise != "none"
    told = redacted_tree(environment), redacted_tree(written)
    wanted = Wanted(config.model.base, bool(swap), compiles(filled), quantised, *told)
    verdicts = []
    for check in chain(settings, _all(config, wanted, facts, meeting, timeout, megabytes)):
        verdicts.append(check.verdict)
        if meeting.is_main:
            print(check, flush=True)
    meeting.part()
    if meeting.is_main:
        count = {verdict: verdicts.count(verdict) for verdict in (OK, WARN, FAIL)}
        print(f"\n{count[OK]} fine, {count[WARN]} to look at, {count[FAIL]} failed", flush=True)
    return int(FAIL in verdicts)


def _all(
    config: Config, wanted: Wanted, facts: list[Facts], meeting: Meeting, timeout: float, megabytes: float
) -> Iterator[Check]:
    yield checks.ranks(facts)
    yield checks.versions(facts)
    if wanted.quantised:
        yield checks.four_bits(facts)
    yield checks.commits(facts)
    yield checks.gpus(facts)
    yield checks.attention(facts)
    yield checks.operators(facts, wanted)
    addresses = checks.addresses(facts)
    yield addresses
    yield from surroundings.environment(facts, wanted)
    meeting.barrier()
    yield checks.clocks(meeting.gather((facts[meeting.rank].host, time.time())))
    yield shared_storage(Path(config.run.root), meeting)
    yield surroundings.base_model(facts, wanted)
    yield surroundings.shards(facts)
    yield surroundings.disk(facts)
    yield surroundings.shared_memory(facts)
    yield surroundings.memory(facts, wanted)
    if addresses.verdict == FAIL:
        yield Check(FAIL, "network", "not tried", "mend the addresses first")
        return
    sizes = tuple(int(megabytes * 1e6 * share) for share in (1 / 64, 1 / 8, 1))
    # Ranks may fail at different times: half of what they then wait for each other.
    yield from check_network(meeting, timeout / 2, sizes, len({f.host for f in facts}) > 1)


def shared_storage(root: Path, meeting: Meeting) -> Check:
    """Whether ``run.root`` is one folder for all ranks and all of them may write there. A collective."""
    remedy = "set run.root to storage that all nodes share, under the same path, and where this user may write"

    def made() -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            _touch(root, "rank-0")
        except OSError as error:
            raise UserError(str(error)) from None

    try:
        meeting.on_main(made)
    except UserError as error:
        return Check(FAIL, "run.root", str(error), remedy)
    if apart := hosts_apart(root, meeting):
        text = f"{root} is another folder on {', '.join(apart)}: what rank 0 writes is not there"
        return Check(FAIL, "run.root", text, remedy)
    denied = [text for text in meeting.gather(_denied(root, meeting.rank)) if text]
    if denied:
        return Check(FAIL, "run.root", "; ".join(denied), remedy)
    return Check(OK, "run.root", f"{root} is one folder for all ranks, and all may write there")


def _denied(root: Path, rank: int) -> str:
    try:
        _touch(root, f"rank-{rank}")
    except OSError as error:
        return f"{os.uname().nodename} (rank {rank}): {error}"
    return ""


def _touch(root: Path, name: str) -> None:
    mark = root / f".doctor-{os.getpid()}-{name}"
    mark.touch()
    mark.unlink()


def deepspeed_json(
    config: Config, ds: Mapping[str, Any] | None, meeting: Meeting
) -> tuple[dict[str, Any] | None, list[Check]]:
    """(``ds`` filled as a run would, None without one or where a run would refuse it; what is to be said). A collective."""
    if ds is None:
        return None, []

    def made() -> dict[str, Any]:
        from ...model.load import resolve_dtype

        dtype = str(resolve_dtype(config.model, meeting.device)).removeprefix("torch.")
        return fill(dict(ds), config, meeting.size, dtype, local_size=meeting.local_size)

    try:
        filled = meeting.on_main(made)
    except UserError as error:
        return None, [Check(FAIL, "DeepSpeed JSON", str(error), "a run would end with this: change it or the recipe")]
    places = ", ".join(f"{what} on {offloaded(filled, what)}" for what in OFFLOADS if offloaded(filled, what) != "none")
    stage = filled["zero_optimization"]["stage"]
    return filled, [Check(OK, "DeepSpeed JSON", f"stage {stage}" + (f", {places}" if places else ""))]


def swap_folder(ds: Mapping[str, Any] | None) -> str:
    """The folder that the filled ``ds`` swaps to; empty when it swaps nothing."""
    if ds is None:
        return ""
    found = [what for what in OFFLOADS if offloaded(ds, what) == "nvme"]
    return ds["zero_optimization"][f"offload_{found[0]}"]["nvme_path"] if found else ""


def compiles(ds: Mapping[str, Any] | None) -> bool:
    """Whether DeepSpeed compiles operators for the filled ``ds``: Adam on the CPU, reads and writes of NVMe, quantising."""
    if ds is None:
        return False
    quantised = any(ds["zero_optimization"].get(key) for key in COMPRESSED)
    return quantised or any(offloaded(ds, what) != "none" for what in OFFLOADS)


def deepspeed_env() -> dict[str, str]:
    """What the ``.deepspeed_env`` of the home folder and of this one say, as DeepSpeed reads them."""
    found: dict[str, str] = {}
    for folder in (Path("~").expanduser(), Path()):
        file = folder / os.environ.get("DS_ENV_FILE", ".deepspeed_env")
        if file.is_file():
            pairs = (line.partition("=") for line in file.read_text().splitlines())
            found |= {name.strip(): value.strip() for name, equals, value in pairs if equals}
    return found
