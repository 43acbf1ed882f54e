"""The sources that ``svco data import`` knows."""

from __future__ import annotations

from collections.abc import Iterator

from ....basics.errors import BadSample
from ..records import Record, stream_records
from . import countercurate, finecops_ref, folder, ic_vco, magicbrush, mvc_json, vismin, vlfeedback
from .raw import Raw, Source


def _own(raw: Raw) -> Iterator[Record]:
    left_out = _Counted(raw)
    return stream_records(raw.path, left_out)


class _Counted(list[BadSample]):
    """Where records that are no contrast go: counted, the first of them named."""

    def __init__(self, raw: Raw):
        self.raw = raw

    def append(self, error: BadSample) -> None:
        self.raw.no_contrast(error)
        if not self:
            super().append(error)


_SOURCES = (
    mvc_json.SOURCE,
    Source("jsonl", "svco's own records", "a file of JSON lines", _own),
    countercurate.SOURCE,
    finecops_ref.SOURCE,
    vismin.SOURCE,
    vlfeedback.SOURCE,
    ic_vco.SOURCE,
    magicbrush.SOURCE,
    folder.SOURCE,
)
SOURCES = {source.name: source for source in _SOURCES}
"""Name on the command line -> source."""
