"""Weights are loaded partitioned; policy and reference share them; bfloat16 works."""

import json
import subprocess

import launch
import pytest
from places import BASE, ROOT


@pytest.mark.parametrize(
    "overrides",
    [[], ["model.dtype=bfloat16"], ["model.train_projector=true"], ["model.tune=full"]],
    ids=["float32", "bfloat16", "projector", "full"],
)
def test_each_rank_holds_its_share(zero3, tmp_path, overrides):
    line = launch.command(2, zero3)
    line = [
        *line[: line.index(str(ROOT / "launchers" / "train.py"))],
        str(ROOT / "tests" / "distributed" / "partition.py"),
        str(zero3),
        str(tmp_path / "rank"),
        f"model.base={BASE}",
        "optim.recompute=all",
        *overrides,
    ]
    done = subprocess.run(line, cwd=ROOT, env=launch.ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for rank in ranks:
        assert rank["resident"] == 0, "no rank holds a whole weight"
        assert rank["whole"] / 2 <= rank["share"] <= rank["whole"] / 2 + 200, "half, padded"
        assert rank["equal"], "before the first step the policy is the reference, to the bit"
        assert rank["moved"]
        assert rank["still"], "the reference does not learn"
        assert rank["norm"] > 0
        assert rank["logps"] == "torch.float32"
        assert rank["dtype"] == ("torch.bfloat16" if "bfloat16" in str(overrides) else "torch.float32")
    assert ranks[0]["norm"] == ranks[1]["norm"]
