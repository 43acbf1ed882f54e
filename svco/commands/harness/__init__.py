"""lmms-eval: svco as one of its models, and its figures beside svco's own. It runs in an environment of its own.

``plugin.py`` and ``model.py`` are read by the harness there; ``running.py`` writes its command here, runs it and collects its
figures.
"""
