"""``svco status``: how runs are, and what to do next. What it says is read in ``svco/record/status.py``."""
