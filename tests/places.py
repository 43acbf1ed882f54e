"""Where things are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARDS = ROOT / "data_shards"
BASE = SHARDS / "tiny_llava"
