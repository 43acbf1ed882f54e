"""Evaluates a model: ``python launchers/eval.py --base B [--adapter A] --out DIR --set NAME=SHARDS``, or several ranks of it."""

from svco.cli import script

if __name__ == "__main__":
    script("eval", "launchers/eval.py")
