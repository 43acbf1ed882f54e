"""What a run has learned, on disk: weights, card and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..basics.dist import World
from ..basics.errors import BadSample
from ..basics.progress import shown
from ..data.shards import ShardSet
from ..export import new_folder, public_base, read_facts, save_model, write_card
from ..model.adapter_files import AdapterForm, stored_name, write_adapter
from ..model.provenance import BASE_WEIGHTS, Provenance
from ..recipe.config import Config
from ..record.board import Board
from ..record.identity import Identity
from ..scores.kept import KeptScores
from ..scores.pair_scores import PairScores
from .folder import RunFolder

if TYPE_CHECKING:
    from ..engine import Engine
    from ..model.load import Tuned


def save_tuned(
    folder: RunFolder, tuned: Tuned, engine: Engine, config: Config, world: World, identity: Identity
) -> Path:
    """Writes ``adapter/`` (PEFT format) under LoRA, ``model/`` (Hugging Face layout) otherwise, each with the run's ``identity``
    beside it. A collective."""
    trainable = tuned.trainable
    made, base = "adapter" if tuned.wrapped else "full", public_base(config.model.base).name
    provenance = Provenance(made, base, identity.get(BASE_WEIGHTS, ""), identity)
    if tuned.wrapped is None:
        target = folder.path / "model"
        # Under ZeRO-3 a partitioned parameter has shape [0]; its true shape is ds_shape.
        shapes = {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in trainable.items()}
        progress = shown(world.is_main)
        save_model(target, config.model.base, shapes, engine.gather, tuned.policy.dtype, world, progress, provenance)
        return target
    target = folder.path / "adapter"
    values = {stored_name(name): engine.gather(name) for name in trainable}

    def write() -> None:
        form = AdapterForm.of(trainable, config.lora.alpha, config.lora.dropout)
        with new_folder(target, own=True) as temporary:
            write_adapter(temporary, values, form, base)
            provenance.write(temporary)

    world.on_main(write)
    return target


def describe_tuned(folder: RunFolder, weights: Path) -> None:
    """The model card in ``weights``, once the run has its held-out figures."""
    facts = read_facts(folder.path, None)
    write_card(weights, "adapter" if weights.name == "adapter" else "full", facts.base, facts, facts.dtype, "5")


def keep_scores(folder: RunFolder, shards: ShardSet, scores: PairScores) -> KeptScores:
    """``heldout.npz``: the held-out pairs' names with their log-probabilities before and after."""
    texts = (shards.read_text(index) for index in scores.index.tolist())
    kept = KeptScores.of(scores, [(text.key, text.contrast) for text in texts])
    kept.save(folder.path)
    return kept


def draw_samples(folder: RunFolder, shards: ShardSet, kept: KeptScores, count: int) -> Path:
    """``samples.png``: held-out pairs of every contrast type with their six log-probabilities before and after."""
    from ..scores.sheet import SheetRow, contact_sheet

    rows = []
    for row in kept.examples(count):
        try:
            pair = shards.read(int(kept.index[row]))
        except BadSample:
            continue
        rows.append(
            SheetRow(
                key=pair.text.key,
                query=pair.text.query,
                responses=pair.text.responses,
                images=pair.images,
                before=kept.before[row],
                after=kept.after[row],
                contrast=pair.text.contrast,
            )
        )
    path = folder.path / "samples.png"
    contact_sheet(rows, path, "Held-out pairs, before and after training")
    return path


def show_samples(board: Board, picture: Path, step: int) -> None:
    """``samples.png`` to the trackers, whole and pair by pair."""
    from ..scores.sheet import each_pair

    sheet = picture.read_bytes()
    board.picture("samples", sheet, step)
    for number, pair in enumerate(each_pair(sheet)):
        board.picture(f"pairs/{number}", pair, step)
