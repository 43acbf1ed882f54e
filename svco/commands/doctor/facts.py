"""What one rank finds where it runs: plain values, to be compared with every other rank's."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.secrets import redacted_tree
from ...basics.versions import PACKAGES, commit, package_version
from ...batches.split import cache_dir
from ...data.remote import is_remote
from ...data.shard_index import index_places
from ...data.shards import expand
from ...recipe.config import Config

WATCHED = (
    "OMP_",
    "HF_",
    "NCCL_",
    "GLOO_",
    "TORCH_",
    "CUDA_",
    "DEEPSPEED_",
    "DS_",
    "PYTHON",
    "SVCO_",
    "LD_LIBRARY_PATH",
)
"""Beginnings of the environment variables that a run depends on and that should be alike everywhere."""
OWN = ("CUDA_VISIBLE_DEVICES", "TORCHELASTIC_", "PYTHONUNBUFFERED", "OMPI_")
"""Beginnings of those that a launcher sets for each rank."""


@dataclass(frozen=True)
class Facts:
    """One rank's. Sizes are bytes."""

    rank: int
    """The rank."""
    local_rank: int
    """Its number on its host."""
    host: str
    """Its host's name."""
    resolved: str = ""
    """The address its host's name resolves to there; empty: none."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Interface -> IPv4 address, loopback included."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """python and packages."""
    commit: str | None = None
    """Of svco's source tree."""
    cuda: str | None = None
    """The CUDA version torch was built for; None for a CPU build."""
    driver: str | None = None
    """The NVIDIA driver."""
    gpus: tuple[str, ...] = ()
    """Names of the GPUs torch sees."""
    attention: Mapping[str, str] = field(default_factory=dict)
    """Kernel of attention -> why it cannot run here; empty: it can."""
    compilers: Mapping[str, bool] = field(default_factory=dict)
    """Program that DeepSpeed compiles its operators with -> whether it is in PATH."""
    async_io: bool = False
    """DeepSpeed's operator for NVMe can be built here."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The watched variables."""
    disk: Mapping[str, int] = field(default_factory=dict)
    """What it is for -> free space."""
    shm: int = 0
    """Size of /dev/shm."""
    memory: int = 0
    """Memory available on the host."""
    base: Mapping[str, int] = field(default_factory=dict)
    """File of the base model -> size."""
    base_problem: str = ""
    """Why the base model cannot be read here."""
    shards: Mapping[str, int] = field(default_factory=dict)
    """Shard -> size; remote ones are fetched when a run begins and are not looked at."""
    unindexed: int = 0
    """Local shards without an index."""
    shards_problem: str = ""
    """Why shards cannot be read here."""

    @classmethod
    def heard(cls, told: Any) -> Facts:
        """What another rank told of itself; UserError where that is something else."""
        try:
            facts = cls(**told)
            return replace(facts, gpus=tuple(facts.gpus))
        except TypeError as error:
            raise UserError(
                f"A rank told something else than its facts ({error}). Is it another version of svco?"
            ) from None


def collect(config: Config, rank: int, local_rank: int, named: Collection[str] = ()) -> Facts:
    """Everything about this rank, except what takes several to find out; the variables ``named`` are watched too."""
    import psutil

    shm = Path("/dev/shm")
    return Facts(
        rank=rank,
        local_rank=local_rank,
        host=socket.gethostname(),
        resolved=_resolved(socket.gethostname()),
        addresses=_addresses(psutil.net_if_addrs()),
        versions={"python": platform.python_version()} | {name: package_version(name) for name in PACKAGES},
        commit=commit(),
        compilers={name: shutil.which(name) is not None for name in ("ninja", "g++")},
        async_io=_async_io(),
        environment=redacted_tree({k: v for k, v in sorted(os.environ.items()) if k in named or _watched(k)}),
        disk={what: _free(where) for what, where in _places(config).items()},
        shm=shutil.disk_usage(shm).total if shm.is_dir() else 0,
        memory=psutil.virtual_memory().available,
        **_hardware(),
        **_base(config.model.base),
        **_shards(config),
    )


def _watched(name: str) -> bool:
    return name.startswith(WATCHED) and not name.startswith(OWN)


def _hardware() -> dict[str, Any]:
    import torch

    from ...model.attention import obstacles

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = Path("/sys/module/nvidia/version")
    return {
        "cuda": torch.version.cuda,
        "driver": module.read_text().strip() if module.exists() else None,
        "gpus": tuple(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())),
        "attention": obstacles(device, torch.bfloat16),
    }


def _async_io() -> bool:
    from ...engine import can_build_async_io

    return find_spec("deepspeed") is not None and can_build_async_io()


def _resolved(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:
        return ""


def _addresses(found: Mapping[str, list[Any]]) -> dict[str, str]:
    return {name: a.address for name, several in found.items() for a in several if a.family == socket.AF_INET}


def _places(config: Config) -> dict[str, Path]:
    found = {"run.root": Path(config.run.root), "data.cache_dir": cache_dir(config), "/tmp": Path("/tmp")}
    if config.run.swap:
        found["run.swap"] = Path(config.run.swap)
    return found


def _free(path: Path) -> int:
    """Free space where ``path`` is, or where it would be made."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _base(base: str) -> dict[str, Any]:
    try:
        folder = _base_folder(base)
        files = {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()}
        weights = [name for name in files if name.endswith((".safetensors", ".bin"))]
        for name in ["config.json", *weights]:
            with (folder / name).open("rb") as stream:
                stream.read(1)
        if not weights:
            return {"base_problem": f"{folder} has no weights (*.safetensors)"}
    except (OSError, UserError) as error:
        return {"base_problem": str(error)}
    return {"base": files}


def _base_folder(base: str) -> Path:
    """Where the files of ``base`` are on this host; UserError for a hub id that is not in the host's cache."""
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise UserError(f"{base} is no folder, and no model in this host's Hugging Face cache") from None


def _shards(config: Config) -> dict[str, Any]:
    data = config.data
    sizes: dict[str, int] = {}
    unindexed = 0
    try:
        for split, spec in (("train", data.train), ("validation", data.validation), ("heldout", data.heldout)):
            for name in (n for n in expand(spec, split) if not is_remote(n)):
                with Path(name).open("rb") as stream:
                    stream.read(512)
                sizes[name] = Path(name).stat().st_size
                unindexed += not any(p.exists() for p in index_places(Path(name), cache_dir(config) / "indices"))
    except (OSError, UserError) as error:
        return {"shards_problem": str(error)}
    return {"shards": sizes, "unindexed": unindexed}
