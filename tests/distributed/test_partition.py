"""Weights are loaded partitioned; policy and reference share them; bfloat16 works."""

import json

import launch
import pytest
from places import BASE

CASES = {
    "float32": [],
    "bfloat16": ["model.dtype=bfloat16"],
    "projector": ["model.train_projector=true"],
    "full": ["model.tune=full"],
}


@pytest.fixture(scope="module")
def reports(zero3, tmp_path_factory):
    """Case -> every rank's report, all of one launch."""
    out = tmp_path_factory.mktemp("reports") / "rank"
    cases = [[f"model.base={BASE}", "optim.recompute=all", *overrides] for overrides in CASES.values()]
    launch.output(2, "tests/distributed/partition.py", zero3, out, json.dumps(cases))
    ranks = [json.loads(out.with_name(f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    return dict(zip(CASES, zip(*ranks, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_each_rank_holds_its_share(reports, case):
    ranks = reports[case]
    for rank in ranks:
        assert rank["resident"] == 0, "no rank holds a whole weight"
        assert rank["whole"] / 2 <= rank["share"] <= rank["whole"] / 2 + 200, "half, padded"
        assert rank["equal"], "before the first step the policy is the reference, to the bit"
        assert rank["moved"]
        assert rank["still"], "the reference does not learn"
        assert rank["norm"] > 0
        assert rank["logps"] == "torch.float32"
        assert rank["dtype"] == ("torch.bfloat16" if case == "bfloat16" else "torch.float32")
    assert ranks[0]["norm"] == ranks[1]["norm"]
