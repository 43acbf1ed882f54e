"""Two real ranks hold and gather what the plan says: memory within a tenth, traffic within a fiftieth."""

import json

import launch
import pytest
from places import ROOT


@pytest.mark.slow
def test_two_ranks_hold_and_gather_what_is_planned(tmp_path):
    ds, out = ROOT / "ds_configs" / "zero3.json", tmp_path / "rows.json"
    # Reduction buffers of 100 MB would hide every other term of a small model.
    small = json.loads(ds.read_text())
    small["zero_optimization"]["reduce_bucket_size"] = 100_000
    file = tmp_path / "zero3.json"
    file.write_text(json.dumps(small))
    launch.output(2, "tests/distributed/plan_ranks.py", file, out)
    rows = json.loads(out.read_text())
    assert len(rows) == 16
    assert not [row for row in rows if not row["passed"]], rows
    moved = {row["case"]: row["counted"] for row in rows if row["quantity"] == "gathered in a step"}
    assert min(moved.values()) > 0
