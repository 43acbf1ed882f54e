"""Run by launch.runs on every rank: several trainings one after another.

Argument: a JSON list of (DeepSpeed JSON, overrides of the tiny recipe).
"""

import json
import sys
from pathlib import Path

from svco import engine
from svco.basics.dist import world_from_environment
from svco.recipe.ds_config import read_ds_config
from svco.recipe.read import load_recipe
from svco.run.launch import Launch
from svco.run.train import run

sys.path.append(str(Path(__file__).parents[1]))
import odd_gradient  # noqa: E402, F401 (an objective by the name odd-gradient)


def main():
    (runs,) = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    world = world_from_environment()
    engine.start(world)
    for ds, overrides in json.loads(runs):
        config = load_recipe("launchers/recipes/tiny.yaml", overrides)
        run(Launch(config, "tiny", read_ds_config(ds), ds), world)
    engine.stop()


main()
