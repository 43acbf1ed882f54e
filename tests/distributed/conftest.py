"""Tight ZeRO settings: with the defaults a small model is gathered once and never released, which proves nothing."""

import json

import pytest
from places import ROOT


def tight(tmp, stage):
    ds = json.loads((ROOT / "ds_configs" / f"zero{stage}.json").read_text())
    if stage == 3:
        ds["zero_optimization"] |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_max_live_parameters": 100_000,
            "stage3_max_reuse_distance": 100_000,
            "stage3_prefetch_bucket_size": 50_000,
        }
    path = tmp / f"zero{stage}.json"
    path.write_text(json.dumps(ds))
    return path


@pytest.fixture(scope="session")
def zero3(tmp_path_factory):
    return tight(tmp_path_factory.mktemp("ds"), 3)


@pytest.fixture(scope="session")
def zero2(tmp_path_factory):
    return tight(tmp_path_factory.mktemp("ds"), 2)
