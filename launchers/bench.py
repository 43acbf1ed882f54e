"""Benchmarks: ``deepspeed --num_accelerators 2 launchers/bench.py --ds ds_configs/zero3.json --shape …``, or alone."""

from svco.cli import script

if __name__ == "__main__":
    script("bench", "launchers/bench.py")
