"""Where things are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARDS = ROOT / "data_shards"
BASE = SHARDS / "tiny_llava"
STUDIES = sorted((ROOT / "launchers" / "recipes").glob("study_*.yaml"))
RECIPES = sorted(set((ROOT / "launchers" / "recipes").glob("*.yaml")) - set(STUDIES))
