"""``svco export``: a PEFT adapter, an adapter merged into its base, or a fully tuned model, for everyone else to load.

Weights are read when their turn comes and written shard by shard; nothing is ever whole in memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import UserError
from ..basics.files import CannotWrite, replacing
from ..basics.progress import Progress
from ..model.adapter_files import AdapterForm, write_adapter
from ..model.provenance import Provenance, require_base, weights_digest
from ..model.weight_names import WeightNames
from .base import copy_beside, find_base, weight_names
from .card import write_card
from .facts import public_base, read_facts
from .merge import merged, replaced
from .push import destination, is_export, push
from .results import read_results
from .source import Source, memory_of, open_source
from .stream import Weight, plan_shards, read_folder, write_shards

if TYPE_CHECKING:
    import torch

__all__ = [
    "Wanted",
    "destination",
    "export",
    "is_export",
    "new_folder",
    "public_base",
    "push",
    "read_facts",
    "save_model",
    "write_card",
]

SHARD_SIZE = "5GB"


@dataclass(frozen=True)
class Wanted:
    """What the user asks of an export."""

    source: Path
    """A run, a checkpoint folder of one, a PEFT adapter folder or a model folder."""
    to: Path | None = None
    """Folder to write, new or empty; None: ``export/<format>`` in the run."""
    form: str | None = None
    """``adapter``, ``merged`` or ``full``; None: adapter of an adapter, else full."""
    checkpoint: str | None = None
    """``latest``, ``best`` or ``step-N`` of a run; None: its final weights, or the newest valid checkpoint."""
    names: str | None = None
    """``4`` or ``5``: names of transformers 4 or 5; None: the base's own, for an adapter 5."""
    shard_size: str = SHARD_SIZE
    """Largest file."""
    dtype: str | None = None
    """Of the exported weights; None: the run's."""
    base: str | None = None
    """Where the base model is now; None: where the run had it."""
    base_name: str | None = None
    """What to call the base in public."""
    other_base: bool = False
    """The base may be another than the one that was trained on."""
    evaluations: tuple[Path, ...] = ()
    """``--out`` folders of evaluations of these very weights, for the card."""


def export(wanted: Wanted, progress: Progress) -> Path:
    """Writes the export and returns its folder. UserError for whatever does not fit; then nothing is left behind."""
    import torch

    source = open_source(wanted.source, wanted.checkpoint, progress)
    form = wanted.form or ("adapter" if source.kind == "lora" else "full")
    if (form == "full") is (source.kind == "lora"):
        fitting = "adapter or merged" if source.kind == "lora" else "full"
        raise UserError(f"--format {form} does not fit {wanted.source}: it can be exported as {fitting}.")
    if source.kind == "model" and wanted.base:
        raise UserError(f"--base does not go with {wanted.source}, which is a whole model: its weights are its own.")
    target = _target(wanted, source, form)
    results = [result for folder in wanted.evaluations for result in read_results(folder, source, wanted.source)]
    dtype = getattr(torch, wanted.dtype) if wanted.dtype else source.dtype
    base = wanted.base or source.base
    if source.run is not None and wanted.base_name is None:
        public = source.run.base
    else:
        public = public_base(source.base or base, wanted.base_name)
    with new_folder(target) as folder:
        if form == "adapter" and source.form is not None:
            names = _write_adapter(folder, source, source.form, base, wanted, public.name, dtype)
            weights = source.provenance.base_weights if source.provenance else ""
        else:
            names = wanted.names or "base"
            weights = _fitting_base(source, find_base(base), wanted)
            _write_model(folder, source, find_base(base), wanted, dtype, progress)
        shown = wanted.dtype or (source.run.dtype if source.run else "auto")
        if source.kind != "model" or source.run is not None or results:
            write_card(folder, form, public, source.run, shown, names, results)
        Provenance(form, public.name, weights, source.provenance.run if source.provenance else None).write(folder)
    return target


def _fitting_base(source: Source, base: Path, wanted: Wanted) -> str:
    """The digest of the weights of ``base``; UserError where it is not what was trained on. Of a model: the base it came from."""
    known = source.provenance
    if source.kind == "model":
        return known.base_weights if known else ""
    now = weights_digest(str(base), memory_of(source.run))
    if known and not wanted.other_base:
        require_base(str(wanted.source), known.base_weights, known.base, f"the base {base}", now, "add --other-base")
    return now


def _target(wanted: Wanted, source: Source, form: str) -> Path:
    if wanted.to is None:
        run = next(
            (p for p in (wanted.source, *wanted.source.resolve().parents) if (p / "recipe.yaml").is_file()), None
        )
        if run is None:
            raise UserError(f"{wanted.source} belongs to no run folder: say where to write with --to FOLDER.")
        target = run / "export" / "-".join(filter(None, (form, source.label)))
    else:
        target = wanted.to.absolute()
        if target.is_symlink() or os.path.ismount(target) or target.resolve() == Path.cwd():
            raise UserError(
                f"The output folder {wanted.to} cannot be replaced by a finished one: it is a link, a mount point or the "
                "folder you are in. Name a new folder inside it with --to."
            )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"The output folder {target} is not empty. Choose another with --to.")
    return target


@contextmanager
def new_folder(target: Path, own: bool = False) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place once the block is done, and is gone if it fails. ``target`` must be new or
    empty, also by then; ``own``: it is the run's, and what it held goes."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.mkdir()
            yield temporary
            if own and target.is_dir():
                shutil.rmtree(target)
    except CannotWrite:
        raise
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error}.") from None


def _write_adapter(
    folder: Path,
    source: Source,
    form: AdapterForm,
    base: str,
    wanted: Wanted,
    public: str,
    dtype: torch.dtype | None,
) -> str:
    """Writes the adapter; the convention its names are in."""
    convention = wanted.names or "5"
    values = source.values
    if source.run is None or convention != "5":
        names = weight_names(find_base(base))
        values, form = _renamed(values, form, names, convention)
    write_adapter(folder, {name: value.to(dtype).read() for name, value in values.items()}, form, public)
    return convention


def _renamed(
    values: Mapping[str, Weight], form: AdapterForm, names: WeightNames, convention: str
) -> tuple[dict[str, Weight], AdapterForm]:
    """An adapter in another convention: its tensors and the modules it holds whole. Every name must be the base's."""
    known = set(names.weights)
    for name, five in names.convert(values, "5").items():
        if five.replace(".lora_A.", ".").replace(".lora_B.", ".") not in known:
            raise UserError(f"The adapter does not fit the base: it has {name}, which the base does not know.")
    into = names.convert(values, convention)
    whole = set()
    for name in values:
        if ".lora_" in name:
            continue
        module = next((m for m in form.whole if f".{m}." in f".{name}"), None)
        if module is None:
            raise UserError(f"The adapter has {name}, which is neither LoRA nor of a module trained whole.")
        name_inside = f".{name}".split(f".{module}.", 1)[1]
        whole.add(into[name].removesuffix(f".{name_inside}"))
    renamed = {into[name]: value for name, value in values.items()}
    return renamed, replace(form, whole=tuple(sorted(whole)))


def _write_model(
    folder: Path,
    source: Source,
    base: Path,
    wanted: Wanted,
    dtype: torch.dtype | None,
    progress: Progress,
) -> None:
    names = weight_names(base)
    if source.form is not None:
        into = names.convert(source.values, "5")
        values = {into[name]: value for name, value in source.values.items()}
        weights = merged(read_folder(base), names, values, source.form.scale, dtype)
    else:
        weights = replaced(read_folder(base), names, source.values, dtype)
    if wanted.names is not None:
        into = names.convert(weights, wanted.names)
        weights = {into[name]: weight for name, weight in weights.items()}
    copy_beside(base, folder, str(dtype).removeprefix("torch.") if dtype else None)
    write_shards(folder, weights, plan_shards(folder, weights, wanted.shard_size), progress)


def save_model(
    target: Path,
    base: str,
    shapes: Mapping[str, tuple[int, ...]],
    gather: Callable[[str], torch.Tensor],
    dtype: torch.dtype,
    world: World,
    progress: Progress,
    provenance: Provenance | None = None,
) -> None:
    """Writes a fully tuned model from the ranks that hold it, one parameter at a time, with ``provenance``. A collective.

    ``shapes``: every trained parameter by name; ``gather`` gives one on every rank, and the ranks that do not write let
    it go at once.
    """
    asked: list[str] = []
    writers: list[Callable[[], None]] = []  # rank 0's alone: what on_main returns goes to every rank

    def fetch(name: str) -> torch.Tensor:
        asked.append(name)
        return gather(name)

    def prepare() -> list[str]:
        folder = find_base(base)
        names = weight_names(folder)
        values = {name: Weight(shape, dtype, partial(fetch, name)) for name, shape in shapes.items()}
        weights = replaced(read_folder(folder), names, values, dtype)
        plan = plan_shards(target.parent, weights, SHARD_SIZE)

        def write() -> None:
            with new_folder(target, own=True) as temporary:
                copy_beside(folder, temporary, str(dtype).removeprefix("torch."))
                write_shards(temporary, weights, plan, progress)
                if provenance is not None:
                    provenance.write(temporary)

        writers.append(write)
        return [five for name in plan.order if (five := names.to5(name)) in values]

    order = world.on_main(prepare)
    problem: UserError | None = None
    try:
        for write in writers:
            write()
    except UserError as error:
        problem = error
    # The other ranks; and rank 0 after a full disk, or they would wait for it in a gather.
    for name in order[len(asked) :]:
        gather(name)

    def report() -> None:
        if problem is not None:
            raise problem

    world.on_main(report)
