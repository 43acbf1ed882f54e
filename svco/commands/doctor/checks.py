"""What the ranks' facts say together. Pure: a list of facts, one a rank, in; checks out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .facts import Facts

OK, WARN, FAIL = "OK", "WARN", "FAIL"
GB = 10**9

MUST_AGREE = ("python", "svco", "torch", "transformers", "deepspeed", "peft")
"""Versions that decide what ranks send each other; the others only warn."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    verdict: str
    """``OK``, ``WARN``: works but look at it, ``FAIL``: a run would not."""
    name: str
    """What was looked at."""
    found: str
    """What was found, and where."""
    remedy: str = ""
    """What to do about it."""

    def __str__(self) -> str:
        line = f"{self.verdict:<5} {self.name:<18} {self.found}"
        return f"{line}\n{'':<24} -> {self.remedy}" if self.remedy and self.verdict != OK else line


@dataclass(frozen=True)
class Wanted:
    """What the run will need, by recipe, DeepSpeed JSON and command line."""

    base: str = ""
    """``model.base``."""
    nvme: bool = False
    """The DeepSpeed JSON offloads to NVMe."""
    compiles: bool = False
    """It offloads or quantises, for which DeepSpeed compiles operators on GPUs too."""
    quantised: bool = False
    """The base is held in 4 bits."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that every rank must have, with their values."""
    written: Mapping[str, str] = field(default_factory=dict)
    """What the .deepspeed_env files on rank 0's host say."""


def by_value(facts: Sequence[Facts], value: Callable[[Facts], Any]) -> dict[Any, list[str]]:
    """{value: where it was found}: hosts, or ranks where the ranks of one host differ."""
    values_of_host = defaultdict(set)
    for fact in facts:
        values_of_host[fact.host].add(value(fact))
    places: dict[Any, list[str]] = defaultdict(list)
    for fact in facts:
        alike = len(values_of_host[fact.host]) == 1
        place = fact.host if alike else f"{fact.host} (rank {fact.rank})"
        if place not in places[value(fact)]:
            places[value(fact)].append(place)
    return dict(places)


def entry(what: str, name: str) -> Callable[[Facts], Any]:
    """What a rank's facts have under ``name`` in their mapping ``what``; None: nothing."""
    return lambda fact: getattr(fact, what).get(name)


def apart_by(facts: Sequence[Facts], what: str, names: Iterable[str]) -> dict[str, dict[Any, list[str]]]:
    """Name -> {value: where}, of the ``names`` in mapping ``what`` of the facts whose values are not all alike."""
    found = {name: by_value(facts, entry(what, name)) for name in names}
    return {name: values for name, values in found.items() if len(values) > 1}


def differing(found: Mapping[Any, list[str]]) -> str:
    """``value on hosts; value on hosts``."""
    return "; ".join(f"{'none' if value is None else value} on {', '.join(where)}" for value, where in found.items())


def ranks(facts: Sequence[Facts]) -> Check:
    hosts = Counter(fact.host for fact in facts)
    each = ", ".join(f"{host} ({count})" for host, count in hosts.items())
    return Check(OK, "ranks", f"{len(facts)} on {len(hosts)} host{'s' if len(hosts) > 1 else ''}: {each}")


def versions(facts: Sequence[Facts]) -> Check:
    apart = apart_by(facts, "versions", facts[0].versions)
    if not apart:
        return Check(OK, "versions", ", ".join(f"{name} {v}" for name, v in facts[0].versions.items() if v))
    verdict = FAIL if apart.keys() & set(MUST_AGREE) else WARN
    text = "; ".join(f"{name}: {differing(found)}" for name, found in apart.items())
    return Check(verdict, "versions", text, "install the same environment on every node, or one on shared storage")


def four_bits(facts: Sequence[Facts]) -> Check:
    """Of a run whose base is held in 4 bits."""
    found = by_value(facts, entry("versions", "bitsandbytes"))
    if len(found) == 1 and None not in found:
        return Check(OK, "4-bit base", f"bitsandbytes {next(iter(found))}")
    remedy = "pip install 'svco[quantised]' on every node, in the same version: ranks quantise the base each for itself"
    return Check(FAIL, "4-bit base", f"bitsandbytes: {differing(found)}", remedy)


def commits(facts: Sequence[Facts]) -> Check:
    found = by_value(facts, lambda f: f.commit)
    if len(found) > 1:
        return Check(
            FAIL, "svco's commit", differing(found), "check the same commit out on every node, or share one tree"
        )
    commit = facts[0].commit
    if commit and commit.endswith("-dirty"):
        return Check(WARN, "svco's commit", commit, "commit the changes, so that the run can be told from others")
    return Check(OK, "svco's commit", commit or "none: installed without a repository")


def gpus(facts: Sequence[Facts]) -> Check:
    found = by_value(facts, lambda f: (len(f.gpus), tuple(sorted(set(f.gpus))), f.cuda, f.driver))
    texts = {_device(*value): where for value, where in found.items()}
    if len({bool(f.gpus) for f in facts}) > 1:
        return Check(
            FAIL, "devices", differing(texts), "some hosts see no GPU: nvidia-smi and CUDA_VISIBLE_DEVICES there"
        )
    short = [f for f in facts if f.gpus and f.local_rank >= len(f.gpus)]
    if short:
        where = ", ".join(f"{f.host} has {len(f.gpus)} for rank {f.rank} (local {f.local_rank})" for f in short)
        return Check(FAIL, "devices", where, "fewer slots in the hostfile, or fewer tasks a node")
    if len(found) > 1:
        return Check(WARN, "devices", differing(texts), "the slowest sets the pace; drivers should be alike")
    if facts[0].cuda and not facts[0].gpus:
        return Check(
            WARN, "devices", next(iter(texts)), "a CUDA build of torch without a GPU: is the driver installed?"
        )
    return Check(OK, "devices", next(iter(texts)))


def _device(count: int, names: tuple[str, ...], cuda: str | None, driver: str | None) -> str:
    if not count:
        return "no GPU: gloo on the CPU" + (f" (torch for CUDA {cuda})" if cuda else "")
    return f"{count} × {', '.join(names)}, CUDA {cuda}, driver {driver or 'unknown'}"


def attention(facts: Sequence[Facts]) -> Check:
    found = by_value(facts, lambda f: next((kernel for kernel, why in f.attention.items() if not why), "sdpa"))
    why = "; ".join(f"no {kernel}: {reason}" for kernel, reason in facts[0].attention.items() if reason)
    if len(found) > 1:
        remedy = "install flash-attn on every node, or set model.attention: kernels differ in their last digits"
        return Check(FAIL, "attention", differing(found), remedy)
    kernel = next(iter(found))
    if facts[0].gpus and kernel == "sdpa":
        return Check(
            WARN, "attention", f"sdpa ({why})", "slow on GPUs: build flash-attn as launchers/install/README.md says"
        )
    return Check(OK, "attention", f"{kernel} ({why})" if why else kernel)


def operators(facts: Sequence[Facts], wanted: Wanted) -> Check:
    """DeepSpeed compiles small operators at first use: for the ranks of one CPU host, for offloading and for quantising."""
    needed = wanted.compiles or not facts[0].gpus
    lacking = by_value(facts, lambda f: ", ".join(name for name, there in f.compilers.items() if not there))
    lacking.pop("", None)
    if needed and lacking:
        text = "; ".join(f"no {names} in PATH on {', '.join(where)}" for names, where in lacking.items())
        remedy = (
            "DeepSpeed compiles operators with them: put the environment's bin folder into PATH of ~/.deepspeed_env, "
            "apt-get install g++"
        )
        return Check(FAIL, "operators", text, remedy)
    without = by_value([f for f in facts if not f.async_io], lambda f: f.async_io).get(False, [])
    if wanted.nvme and without:
        remedy = "apt-get install libaio-dev (or CFLAGS and LDFLAGS that lead to libaio)"
        return Check(FAIL, "operators", f"async_io cannot be built on {', '.join(without)}", remedy)
    text = "async_io cannot be built" if without else "async_io can be built"
    return Check(OK, "operators", text if wanted.nvme else f"{text}; not needed")


def addresses(facts: Sequence[Facts]) -> Check:
    """gloo listens at the address of the host's own name, which on Debian is a loopback one."""
    hosts = {f.host: f for f in facts}
    variable = "NCCL_SOCKET_IFNAME" if facts[0].gpus else "GLOO_SOCKET_IFNAME"
    text = ", ".join(f"{h} is {_interface(f, variable)}" for h, f in hosts.items())
    if len(hosts) == 1:
        return Check(OK, "addresses", text)
    trapped = [h for h, f in hosts.items() if "GLOO_SOCKET_IFNAME" not in f.environment and _loopback(f.resolved)]
    unknown = [f"{h} has no {f.environment['GLOO_SOCKET_IFNAME']}" for h, f in hosts.items() if _lacks_chosen(f)]
    if unknown:
        return Check(
            FAIL, "addresses", "; ".join(unknown), "set GLOO_SOCKET_IFNAME to an interface that every host has"
        )
    if trapped:
        remedy = (
            "gloo would listen where no other host can reach it: GLOO_SOCKET_IFNAME=eth0 (the interface's name) in "
            "~/.deepspeed_env, or the host's real address for its name in /etc/hosts"
        )
        # NCCL finds an interface itself; nothing else is sent between GPUs' ranks.
        verdict = WARN if facts[0].gpus else FAIL
        return Check(
            verdict, "addresses", f"{text}: its own name leads to the loopback on {', '.join(trapped)}", remedy
        )
    return Check(OK, "addresses", text)


def _interface(fact: Facts, variable: str) -> str:
    chosen = fact.environment.get(variable) or fact.environment.get("GLOO_SOCKET_IFNAME")
    if chosen:
        return f"{fact.addresses.get(chosen, 'unknown')} ({chosen}, chosen)"
    name = next((n for n, address in fact.addresses.items() if address == fact.resolved), "no interface")
    return f"{fact.resolved or 'unknown'} ({name})"


def _lacks_chosen(fact: Facts) -> bool:
    """Whether GLOO_SOCKET_IFNAME names interfaces and the host has none of them; after ``^`` come those not to be used."""
    chosen = fact.environment.get("GLOO_SOCKET_IFNAME", "")
    return bool(chosen) and not chosen.startswith("^") and not set(chosen.split(",")) & fact.addresses.keys()


def _loopback(address: str) -> bool:
    return not address or address.startswith("127.")


def clocks(seen: Sequence[tuple[str, float]]) -> Check:
    """``seen``: (host, its clock) of all ranks at one moment."""
    times = dict(seen)
    spread = max(times.values()) - min(times.values())
    text = f"within {spread:.2g} s"
    if spread <= 1:
        return Check(OK, "clocks", text)
    ahead, behind = max(times, key=lambda host: times[host]), min(times, key=lambda host: times[host])
    remedy = "synchronise the clocks (chrony, ntp): run names, logs and the age of files are compared between hosts"
    return Check(FAIL if spread > 60 else WARN, "clocks", f"{ahead} is {spread:.3g} s ahead of {behind}", remedy)
