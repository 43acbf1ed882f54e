"""Trackers of experiments beside TensorBoard: the only door to wandb and to trackio.

They are guests: what one of them raises is told once, and the run goes on without it. Nothing leaves the machine unless their own
environment variables ask for it, and they are given no command line, host, or address with credentials.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from ..basics.errors import first_line
from ..basics.files import write_whole
from ..basics.secrets import redacted
from ..basics.strict_json import json_text

PROJECT = "svco"
"""What their projects are called."""
KNOWN_AS = "trackers.json"
"""In a run's folder: the name by which a tracker knows the run, so that a run that goes on is the same one there."""
Say = Callable[[str], None]


class Tracker(Protocol):
    """What numbers are told to."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Tag -> value of one step."""

    def picture(self, tag: str, data: bytes, step: int) -> None:
        """An image, as a file holds it."""

    def finish(self, recipe: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
        """What the run came to, at its end."""

    def close(self) -> None:
        """Nothing more comes."""


class Wandb:
    """A run of wandb, in ``wandb/`` of the run's folder; its step is a number like others, as a resumed run goes back."""

    def __init__(self, folder: Path, start: int, recipe: Mapping[str, Any]):
        # Before it is imported: what it sets up for itself goes by these.
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        with redirect_stdout(io.StringIO()):
            import wandb

            quiet = {"console": "off", "silent": True, "disable_git": True, "disable_code": True}
            unwatched = {"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True}
            self._image = wandb.Image
            self._run = wandb.init(
                project=PROJECT,
                name=folder.name,
                id=_known_as(folder, "wandb", start),
                resume="allow",
                dir=str(folder),
                config=dict(recipe),
                settings=wandb.Settings(**quiet, **unwatched),
            )
        self._run.define_metric("*", step_metric="step")
        self.where = f"wandb sync {folder / 'wandb' / 'offline-run-*'}" if self._run.settings.mode == "offline" else ""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Tag -> value of one step."""
        self._run.log({**values, "step": step})

    def picture(self, tag: str, data: bytes, step: int) -> None:
        """An image, as a file holds it."""
        self._run.log({tag: self._image(drawn(data)), "step": step})

    def finish(self, recipe: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
        """The recipe is there from the start; the results stand for the run in its table."""
        self._run.summary.update(dict(results))

    def close(self) -> None:
        """Waits until all is written."""
        self._run.finish()


class Trackio:
    """A run of trackio, which keeps projects in a folder of its own (``TRACKIO_DIR``)."""

    def __init__(self, folder: Path, start: int, recipe: Mapping[str, Any]):
        with redirect_stdout(io.StringIO()):
            import trackio

            self._image, self._finish = trackio.Image, trackio.finish
            self._run = trackio.init(
                project=PROJECT,
                name=_known_as(folder, "trackio", start),
                resume="allow",
                config=dict(recipe),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.where = f"trackio show --project {PROJECT}"

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Tag -> value of one step."""
        self._run.log(dict(values), step=step)

    def picture(self, tag: str, data: bytes, step: int) -> None:
        """An image, as a file holds it."""
        self._run.log({tag: self._image(drawn(data))}, step=step)

    def finish(self, recipe: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
        """Recipe and results are there already."""

    def close(self) -> None:
        """Waits until all is written."""
        with redirect_stdout(io.StringIO()):
            self._finish()


_KNOWN: dict[str, Callable[[Path, int, Mapping[str, Any]], Any]] = {"wandb": Wandb, "trackio": Trackio}


class _Guest:
    """A tracker whose failures are told once and end nothing but itself."""

    def __init__(self, name: str, tracker: Tracker, say: Say):
        self.name, self.tracker, self.say = name, tracker, say
        self.has_left = False

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._do(lambda: self.tracker.scalars(values, step))

    def picture(self, tag: str, data: bytes, step: int) -> None:
        self._do(lambda: self.tracker.picture(tag, data, step))

    def finish(self, recipe: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
        self._do(lambda: self.tracker.finish(recipe, results, step))

    def close(self) -> None:
        self._do(self.tracker.close)
        self.has_left = True

    def _do(self, what: Callable[[], None]) -> None:
        if self.has_left:
            return
        try:
            what()
        except Exception as error:  # whatever a package of somebody else's raises
            self.has_left = True
            self.say(
                f"warning: {self.name} failed and gets no more numbers ({_told(error)}); metrics.jsonl has them all"
            )


def trackers(names: Sequence[str], folder: Path, start: int, recipe: Mapping[str, Any], say: Say) -> list[Tracker]:
    """Those of ``names`` that are known here and can be begun, for the run in ``folder``, which goes on after step ``start``;
    ``say`` hears what is to be said of each."""
    found: list[Tracker] = []
    for name in dict.fromkeys(name for name in names if name in _KNOWN):
        try:
            tracker = _KNOWN[name](folder, start, recipe)
        except ImportError as error:
            say(
                f"warning: run.report_to names {name}, which cannot be imported ({_told(error)}); the run goes on without it. "
                f"To have it: pip install {name}"
            )
        except Exception as error:  # likewise
            say(f"warning: {name} could not be begun ({_told(error)}); the run goes on without it")
        else:
            if tracker.where:
                say(f"{name}: {tracker.where}")
            found.append(_Guest(name, tracker, say))
    return found


def _told(error: Exception) -> str:
    return redacted(first_line(error))


def _known_as(folder: Path, tracker: str, start: int) -> str:
    """The name by which ``tracker`` knows the run: of a run that goes on the one that it had."""
    path = folder / KNOWN_AS
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError, RecursionError):
        known = {}
    if not start or not isinstance(known.get(tracker), str):
        # A run of the same name may have been there before, in another folder or in one that was deleted.
        known[tracker] = f"{folder.name}-{secrets.token_hex(4)}"
        write_whole(path, json_text(known))
    return str(known[tracker])


def drawn(data: bytes) -> Any:
    """The RGB image of a PNG that svco itself has drawn."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")
