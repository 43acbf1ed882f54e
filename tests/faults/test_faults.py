"""The short form of the fault suite: the rows that are marked so, each a test; ``make faults`` plays them all."""

import pytest

from faults.harness import play
from faults.stage import World
from faults.table import table

SHORT = [row for row in table(seed=0) if row.short]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("row", SHORT, ids=lambda row: row.name)
def test_fault(row, world):
    result = play(row, world)
    if result.verdict == "not here":
        pytest.skip(f"NOT TESTED: {result.said}")
    assert result.verdict == "held", result.said
