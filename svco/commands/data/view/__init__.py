"""Pairs to look at and to decide about: a gallery in a folder, ``svco data view``."""
