"""The backend that asks nobody: a question by the type of contrast, and the captions as answers."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....basics.strict_json import json_text
from ....data.pairs import CONTRASTS
from ....endpoint.prompt import digest_of
from ..records import Record
from .checks import faults
from .prompts import TEMPLATE, make_rules, read_tree
from .stages import Outcome, captions_of, rewritten


class TemplateRewriter:
    """Rewrites records by the templates of that name or file. UserError for a file that has none."""

    def __init__(self, name: str = TEMPLATE):
        tree, where = read_tree(name)
        self.name, self.digest = name, digest_of(tree)
        self.questions: dict[str, list[str]] = tree.get("questions", {})
        self.answers: list[str] = tree.get("answers", [])
        lists = [self.answers, *(self.questions.values() if isinstance(self.questions, dict) else [None])]
        if not all(isinstance(one, list) and one and all(isinstance(t, str) for t in one) for one in lists):
            raise UserError(f"{where} must have questions (type -> list of texts) and answers (a list of texts).")
        if lacking := [kind for kind in CONTRASTS if kind not in self.questions and "unknown" not in self.questions]:
            raise UserError(f"{where} has no questions of type {lacking[0]!r}, and none of type 'unknown' to stand in.")
        if wrong := [text for text in self.answers if "$caption" not in text]:
            raise UserError(f"{where}: the answer {wrong[0]!r} lacks $caption.")
        self.rules = make_rules(tree["checks"], where)

    def __call__(self, record: Record) -> Outcome:
        """What becomes of ``record``."""
        captions = captions_of(record)
        if captions is None:
            return Outcome(record, None, (("lacks", "captions"),))
        question = _drawn(self.questions.get(record.type) or self.questions["unknown"], record, "question")
        frame = _drawn(self.answers, record, "answer")
        first, second = (_sentence(frame, caption) for caption in captions)
        reasons = faults(question, (first, second), captions, self.rules)
        if reasons:
            return Outcome(record, None, tuple(reasons))
        provenance: dict[str, Any] = {
            "backend": "template",
            "prompts": Path(self.name).name,
            "prompts_sha256": self.digest,
        }
        return Outcome(record, rewritten(record, question, (first, second), provenance))


def _drawn(texts: list[str], record: Record, what: str) -> str:
    """One of ``texts``: by the pair alone, so that it is the same in any order and number of pairs."""
    told = json_text([what, record.images, captions_of(record)], ascii_only=False)
    return texts[int(hashlib.sha256(told.encode()).hexdigest()[:8], 16) % len(texts)]


def _sentence(frame: str, caption: str) -> str:
    """``caption`` in its frame: no full stop of its own, and no capital at its start unless that word keeps it anywhere."""
    caption = " ".join(caption.split()).rstrip(" .")
    if re.match(r"(A|An|The|One|Two|Three|Four|Five|Some|Several|Many|Person|People|Man|Woman|Men|Women)\b", caption):
        caption = caption[0].lower() + caption[1:]
    return frame.replace("$caption", caption)
