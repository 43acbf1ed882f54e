"""What lmms-eval finds under the entry point ``lmms_eval.models``. The only door to it, with ``model.py``."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The ``ModelManifest`` of the model ``svco``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="svco", chat_class_path="svco.commands.harness.model.Svco")
