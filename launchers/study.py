"""Runs a study: ``python launchers/study.py --recipe launchers/recipes/study_tiny.yaml [--quick] [--jobs N]``."""

from svco.cli import script

if __name__ == "__main__":
    script("study", "python launchers/study.py")
