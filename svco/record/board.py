"""Where a run's numbers go: metrics.jsonl, TensorBoard, other trackers, the line of progress. The only door to tensorboard.

On ranks above 0 a board is made with ``enabled=False`` and does nothing, so its callers never ask for their rank.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TextIO

from ..basics.files import append, write_whole, writing
from ..basics.progress import Shown
from ..basics.secrets import redacted_tree
from ..basics.strict_json import json_text
from .trackers import Tracker, drawn, trackers

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
"""Its name among ``run.report_to``, and of its folder."""


class Board:
    """The log of one run. ``start`` is the step the run begins after: lines of later steps are a dead run's and go.
    ``report_to``: ``run.report_to``; ``recipe``: its keys and their values, as trackers show them."""

    def __init__(
        self,
        folder: Path,
        enabled: bool,
        start: int = 0,
        report_to: Sequence[str] = (TENSORBOARD,),
        recipe: Mapping[str, Any] | None = None,
    ):
        self.enabled = enabled
        self._bar: Shown | None = None
        self._last: dict[str, Any] = {}
        if not enabled:
            return
        self._lines = folder / METRICS_FILE
        keep_up_to(self._lines, start)
        self._last = last_line(self._lines)
        if self._last.get("step", 0) < start:
            self.note(f"warning: {self._lines} lacks what was logged up to step {start}, where the run goes on")
        self._recipe = redacted_tree(dict(recipe or {}))
        self._trackers: list[Tracker] = []
        if TENSORBOARD in report_to:
            self._trackers.append(_Events(folder / TENSORBOARD, start))
        self._trackers += trackers(report_to, folder, start, self._recipe, self.note)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One JSON object with ``step`` on a line of its own, at once on disk; the same values as TensorBoard scalars.

        NaN and infinities become null: JSON has no word for them. CannotWrite when the disk says no.
        """
        if not self.enabled:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        append(self._lines, json_text({"step": step, **finite}) + "\n")
        self._last = {"step": step, **finite}
        named = {name if "/" in name else f"run/{name}": value for name, value in metrics.items()}
        for tracker in self._trackers:
            tracker.scalars(named, step)
        if self._bar is not None:
            shown = {"loss": "loss {:.4f}", "pairs_per_second": "{:.1f} pairs/s"}
            self._bar.note = ", ".join(form.format(metrics[key]) for key, form in shown.items() if key in metrics)

    def validated(self, step: int) -> bool:
        """Whether the log has the validation of ``step``, which is not after its last one."""
        return self._last.get("step") == step and any(name.startswith("validation/") for name in self._last)

    def lines(self) -> list[dict[str, Any]]:
        """What is logged so far."""
        return whole_lines(self._lines) if self.enabled else []

    def last_numbers(self) -> dict[str, float]:
        """The numbers of the last line, where there are no held-out pairs to sum a run up."""
        return {f"last/{name}": value for name, value in self._last.items() if isinstance(value, (int, float))}

    def progress(self, steps: Iterable[Any], done: int, total: int) -> Iterator[Any]:
        """``steps`` with a progress bar that shows loss and throughput."""
        if not self.enabled:
            yield from steps
            return
        self._bar = Shown(steps, "training", total, done)
        yield from self._bar
        self._bar = None

    def picture(self, tag: str, data: bytes, step: int) -> None:
        """An image, as a file holds it, for the trackers to show."""
        for tracker in self._trackers if self.enabled else ():
            tracker.picture(tag, data, step)

    def finish(self, step: int, results: Mapping[str, float]) -> None:
        """What the run came to, with its recipe: to the trackers, once, at its end."""
        finite = {name: value for name, value in results.items() if math.isfinite(value)}
        for tracker in self._trackers if self.enabled else ():
            tracker.scalars(finite, step)
            tracker.finish(self._recipe, finite, step)

    def close(self) -> None:
        """Trackers that keep something open let it go, however the run ended."""
        for tracker in self._trackers if self.enabled else ():
            tracker.close()

    def note(self, text: str, out: TextIO | None = None) -> None:
        """Text for the person at the terminal (stderr unless ``out`` is given); an empty one prints nothing."""
        if self.enabled and text:
            print(text, file=out or sys.stderr, flush=True)


class _Events:
    """TensorBoard's file in ``folder``; what it has of steps after ``start`` is void. Written in its own format, but at once:
    TensorBoard's own writer is a thread, and what a full disk tells a thread is a traceback."""

    def __init__(self, folder: Path, start: int):
        from tensorboard.compat.proto.event_pb2 import SessionLog

        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now % 10**9}"
        self.path = folder / name
        self._put(file_version="brain.Event:2")
        if start:
            self._put(session_log=SessionLog(status=SessionLog.START), step=start + 1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Tag -> value of one step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._put(summary=Summary(value=found), step=step)

    def picture(self, tag: str, data: bytes, step: int) -> None:
        """An image file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = drawn(data).size
        shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._put(summary=Summary(value=[Summary.Value(tag=tag, image=shown)]), step=step)

    def finish(self, recipe: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
        """The recipe as hyper-parameters beside the scalars of ``results``, for the HPARAMS tab."""
        from torch.utils.tensorboard.summary import hparams

        plain = {name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in recipe.items()}
        for summary in hparams(plain, dict(results)):
            self._put(summary=summary, step=step)

    def close(self) -> None:
        """Every event is on disk already."""

    def _put(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **event).SerializeToString())
        append(self.path, record.getvalue())


def last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics.jsonl; empty where there is none."""
    return next(reversed(whole_lines(path)), {})


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl; none where there is no such file."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return [record for line in lines if (record := _record(line)) is not None]


def keep_up_to(path: Path, step: int) -> int:
    """Drops the lines of steps after ``step``, and a last line that a crash left unfinished; how many are left. Lines that cannot
    be read are left out with a warning."""
    if not path.exists():
        return 0
    kept, lost = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        record = _record(line) if line.endswith("\n") else {"step": step + 1}
        if record is None:
            lost += 1
        elif record["step"] <= step:
            kept.append(line)
    if lost:
        warnings.warn(f"{path}: {lost} of its lines cannot be read and are left out", stacklevel=2)
    write_whole(path, "".join(kept))
    return len(kept)


def _record(line: str) -> dict[str, Any] | None:
    """What a line says; None unless it is a record with a step."""
    try:
        found = json.loads(line)
        return found if isinstance(found["step"], int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
