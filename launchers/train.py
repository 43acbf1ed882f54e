"""Trains a recipe: ``deepspeed launchers/train.py --ds ds_configs/zero3.json [--recipe FILE] [section.key=value ...]``."""

from svco.cli import script

if __name__ == "__main__":
    script("train", "deepspeed launchers/train.py")
