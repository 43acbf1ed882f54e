"""ZeRO-Infinity's disk: a folder of the run's own with room for it, and the memory that weights pass through."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..recipe.ds_config import check_swapped, offloaded
from .process import can_build_async_io

if TYPE_CHECKING:
    from torch import nn

_SMALLEST = 2**20
"""DeepSpeed keeps shares of fewer bytes in memory."""
_AHEAD = 3
"""Buffers beyond a layer's own: weights that are read ahead."""
_OPTIMIZER_BYTES = 16
"""float32 master, two moments and gradient of a trained weight."""
REMOTE = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "9p", "afs", "fuse", "tmpfs", "ramfs")
"""Starts of the names of file systems that are no disk of this node."""


def file_system(folder: Path) -> str:
    """Name of the file system that ``folder`` is on; empty where the kernel does not say."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    above = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, default=(0, ""))[1]


@dataclass(frozen=True)
class Node:
    """How this node is asked whether it can swap. Tests give answers of their own: not every machine has libaio."""

    can_build_async_io: Callable[[], bool] = can_build_async_io
    """Whether DeepSpeed's operator can be compiled."""
    file_system: Callable[[Path], str] = file_system
    """Name of the file system that a folder is on."""


@contextmanager
def swapping(
    ds: dict[str, Any] | None,
    outline: Callable[[], nn.Module],
    name: str,
    strategy: str,
    world: World,
    node: Node = Node(),
) -> Iterator[dict[str, Any] | None]:
    """Yields ``ds`` with all that swapping to NVMe needs filled in; ``ds`` itself when it does not swap. A collective.

    ``outline`` makes the run's model without weights, ``name`` is the run's, ``strategy`` the reference's. On leaving, this
    rank's files are removed. UserError if the node has no libaio, or the folder is not a local disk or has too little room.
    """
    swapped = [] if ds is None else [what for what in ("param", "optimizer") if offloaded(ds, what) == "nvme"]
    if ds is None or not swapped:
        yield ds
        return
    check_swapped(offloaded(ds, "param"), strategy)
    model = outline()
    sections = {what: dict(ds["zero_optimization"][f"offload_{what}"]) for what in swapped}
    for section in sections.values():
        section["nvme_path"] = str(Path(section["nvme_path"]) / name)
    if "param" in swapped:
        _fit_buffers(sections["param"], model, world)
    for section in sections.values():
        _remove(Path(section["nvme_path"]), world)  # of an earlier start of this run
    world.barrier()  # or a rank that still cleans up would take the empty folder away from one that has made it
    try:
        problems = [p for p in world.gather(_problem(sections, model, world, node)) if p]
        if problems:
            raise UserError(problems[0])
        yield ds | {"zero_optimization": ds["zero_optimization"] | {f"offload_{w}": s for w, s in sections.items()}}
    finally:
        for section in sections.values():
            _remove(Path(section["nvme_path"]), world)


def _fit_buffers(section: dict[str, Any], model: nn.Module, world: World) -> None:
    """Fills "auto" buffers: each takes the largest share of a weight, and there are enough for a layer and what follows."""
    from torch import nn

    def swapped(module: nn.Module) -> list[int]:
        """Lengths of the shares of ``module``'s weights that go to disk."""
        shares = [(p, math.ceil(p.numel() / world.size)) for p in module.parameters()]
        return [share for p, share in shares if share * p.element_size() >= _SMALLEST]

    blocks = [block for blocks in model.modules() if isinstance(blocks, nn.ModuleList) for block in blocks]
    fitting = {
        "buffer_size": max(swapped(model), default=_SMALLEST),
        "buffer_count": max((len(swapped(block)) for block in blocks), default=0) + _AHEAD,
    }
    for key, value in fitting.items():
        if section.get(key, "auto") == "auto":
            section[key] = value


def _problem(sections: dict[str, dict[str, Any]], model: nn.Module, world: World, node: Node) -> str | None:
    """Why this node cannot swap, or None."""
    if not node.can_build_async_io():
        return "Offloading to NVMe needs libaio and its headers (Debian: apt-get install libaio-dev) on every node."
    needs = {
        "param": sum(p.numel() * p.element_size() for p in model.parameters()),
        "optimizer": sum(p.numel() for p in model.parameters() if p.requires_grad) * _OPTIMIZER_BYTES,
    }
    wanted: dict[str, float] = {}
    for what, section in sections.items():
        path = section["nvme_path"]
        wanted[path] = wanted.get(path, 0) + needs[what] * world.local_size / world.size
    for path, bytes_needed in wanted.items():
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            return f"The folder {folder} for offloading to NVMe cannot be made: {error}. Set run.swap to another one."
        if (kind := node.file_system(folder)).startswith(REMOTE):
            return f"{folder} is on {kind}, which is no disk of this node's own. Set run.swap to a folder on a local NVMe disk."
        if free < bytes_needed:
            return (
                f"Offloading needs {bytes_needed / 1e9:.1f} GB in {folder} on each node and {free / 1e9:.1f} GB are free. Set "
                "run.swap to a larger disk, or use more nodes."
            )
    return None


def _remove(folder: Path, world: World) -> None:
    """Removes this rank's files under ``folder``, and every folder that this leaves empty. Other ranks do so meanwhile."""
    kinds: list[Path] = []
    with suppress(OSError):  # there are none, or another rank has just removed them
        kinds = list((folder / "zero_stage_3").iterdir())
    for kind in kinds:
        shutil.rmtree(kind / f"rank{world.rank}", ignore_errors=True)
    for empty in [*kinds, folder / "zero_stage_3", folder]:
        with suppress(OSError):  # another rank's files are still there
            empty.rmdir()
