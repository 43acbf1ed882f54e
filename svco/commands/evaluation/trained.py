"""That no set of an evaluation is what the model was trained on, as far as the folder of its run tells."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ...basics.errors import UserError
from ...basics.secrets import redacted
from ...batches.split import cache_dir
from ...data.remote import is_remote
from ...data.shard_cache import copy_of
from ...data.shards import ShardSet, expand
from ...data.splits import check_apart
from ...recipe.read import load_recipe


def check_untrained(
    base: str, adapter: str | None, sets: Mapping[str, tuple[str, ...]], cache: Path, allow: str
) -> None:
    """UserError when a set (name -> shard specs) shares keys or pictures with the training shards of the run that made
    ``adapter``, or else ``base``. Where these are not here any more, that is said on stderr."""
    recipe = Path(adapter or base).parent / "recipe.yaml"
    if allow == "all" or not sets or not recipe.is_file():
        return  # a base, or weights that were taken out of their run's folder
    try:
        trained = _training_shards(recipe)
    except UserError as error:
        print(f"The sets are not compared with what the model was trained on: {error}", file=sys.stderr)
        return
    for name, specs in sets.items():
        shards = ShardSet.open(specs, cache, split="heldout")
        named = {f"The training shards of {recipe.parent}": trained.indices, f"--set {name}": shards.indices}
        check_apart(named, allow, "--allow-overlap ")


def _training_shards(recipe: Path) -> ShardSet:
    config = load_recipe(recipe)
    cache = cache_dir(config)
    shards = expand(config.data.train, "train")
    # They may be many and large, and nothing else here needs them.
    if absent := [shard for shard in shards if is_remote(shard) and not copy_of(shard, cache / "shards").exists()]:
        raise UserError(f"{redacted(absent[0])} was not fetched to this host.")
    return ShardSet.open(config.data.train, cache, split="train")
