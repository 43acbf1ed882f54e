"""The arithmetic of the scaling table, on steps made up so that every figure is known."""

from argparse import Namespace

import pytest

from svco.basics.errors import UserError
from svco.commands.bench.scaling import Point, run_scaling, table

ARGUMENTS = Namespace(
    shape="tiny", layers=0, scale=1.0, vocab=0, objective="svco", tune="lora", ds="ds_configs/zero3.json", pairs=2,
    repetitions=3, launch="deepspeed --num_accelerators {n}", scaling="1,4",
)  # fmt: skip


def point(ranks, together, alone):
    spread = [-0.1, 0.0, 0.1]
    return Point(
        ranks, 1, 2 * ranks, [together + s for s in spread], [alone + s for s in spread], 8_000_000, 500_000, "here"
    )


def row(text, ranks):
    line = next(line for line in text.splitlines() if line.startswith(f"| {ranks} on"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures():
    text = table([point(1, 1.0, 0.8), point(4, 2.0, 1.1)], ARGUMENTS)
    # 2 pairs in 1 s; 8 pairs in 2 s on 4 ranks: half as many a rank. 0.9 s besides computing, 0.2 s of it bookkeeping.
    assert row(text, 1) == ["1 on 1", "1.000", "2.00", "100%", "0.800", "0.200", "0.000 (0%)", "8.0", "0.5"]
    assert row(text, 4) == ["4 on 1", "2.000", "4.00", "50%", "1.100", "0.900", "0.700 (35%)", "8.0", "0.5"]
    assert "here" in text


def test_without_one_rank_exposed_communication_is_a_bound():
    assert row(table([point(4, 2.0, 1.1)], ARGUMENTS), 4)[6] == "at most 0.900 (45%)"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scaling": "1,x"}, "write numbers"),
        ({"scaling": "0"}, "write numbers"),
        ({"ds": "none"}, "needs --ds"),
        ({"launch": "deepspeed"}, "must contain {n}"),
        ({"launch": "nothere {n}"}, "no program 'nothere'"),
    ],
)
def test_mistakes(changes, says):
    with pytest.raises(UserError, match=says):
        run_scaling(Namespace(**vars(ARGUMENTS) | changes))
