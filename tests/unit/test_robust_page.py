"""data_shards/ROBUST.md: every row of its tables is owned by a test that exists."""

import re

import pytest
from places import ROOT

from svco.basics.errors import BadSample

PAGE = (ROOT / "data_shards" / "ROBUST.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
ROWS = [
    (section, line)
    for section, text in SECTIONS.items()
    for line in text.splitlines()
    if line.startswith("| ") and not line.startswith("| input")
]


@pytest.mark.parametrize(("section", "row"), ROWS, ids=[row[:40] for _, row in ROWS])
def test_a_row_is_owned_by_a_test(section, row):
    owners = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.rstrip("| ").rpartition(" | ")[2])
    assert owners, row
    for file, name in owners:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M), f"{file}::{name}"


def test_every_reason_has_a_row():
    told = set(re.findall(r"\*\*([\w-]+)\*\*", PAGE))
    assert all(SECTIONS) and {"Text and records", "Pictures", "Tar and caches"} <= SECTIONS.keys()
    assert told == set(BadSample.REASONS)
