"""Looks at every rank's machine before a run does: ``deepspeed --hostfile H launchers/doctor.py --ds … --recipe …``."""

from svco.cli import script

if __name__ == "__main__":
    script("doctor", "deepspeed launchers/doctor.py")
