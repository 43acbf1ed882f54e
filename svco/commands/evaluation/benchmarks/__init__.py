"""Benchmarks from their official files: one file each, named here, gathered in ``table.py``."""

NAMES = (
    "mmvp",
    "cv_bench",
    "scienceqa",
    "realworldqa",
    "textvqa",
    "textvqa_ocr",
    "pope",
    "hallusionbench",
    "winoground",
    "vismin_bench",
    "naturalbench",
    "naturalbench_generated",
    "mmhal",
    "mm_vet",
    "llava_bench_w",
)
"""The benchmarks, in the order of tables: each is the file of that name, and its ``BENCHMARK``."""
