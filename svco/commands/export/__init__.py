"""``svco export``: what a run trained, for plain transformers and peft. The work is done in ``svco/export/``."""
