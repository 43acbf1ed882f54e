"""Benchmarks from their official files: one file each, named here, gathered in ``table.py``."""

NAMES = ("mmvp", "cv_bench")
"""The benchmarks, in the order of tables: each is the file of that name, and its ``BENCHMARK``."""
