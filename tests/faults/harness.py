"""Plays rows: each on a stage of its own, with what must hold after every fault looked at in one place."""

from __future__ import annotations

import shutil
import subprocess
import time
import traceback
from dataclasses import asdict, dataclass
from functools import cache

from places import ROOT

from faults.stage import Broken, NotHere, Stage, World
from faults.table import Row


@dataclass(frozen=True)
class Result:
    """What became of a row."""

    name: str
    verdict: str
    """``held``, ``broken``, ``waits`` (broken, and the row says what for), or ``not here`` (this machine cannot play it)."""
    seconds: float
    said: str = ""
    """What broke, or why it was not played, or what is worth telling."""
    commit: str = ""
    """Of the code that it was played with."""

    def as_json(self) -> dict:
        return asdict(self)


def play(row: Row, world: World, keep: bool = False) -> Result:
    """Plays ``row``. Whatever it injects: nothing foreign is changed or gone, no process and no shared memory is left."""
    began = time.monotonic()
    folder = world.folder / "rows" / row.name.replace("/", "-")
    stage = Stage.__new__(Stage)
    stage, verdict, said = None, "held", ""
    try:
        for old in (folder, folder.with_name(f"{folder.name}.told")):
            shutil.rmtree(old, ignore_errors=True)
        stage = Stage(folder, world, row.disk)
        try:
            row.play(stage)
            broke = ""
        except Broken as error:
            broke = str(error)
        if row.control:
            stage.end_all()  # where it broke, what it had started may still run
            verdict, said = ("held", f"the check says: {broke}") if broke else ("broken", "the check did not break")
        elif broke:
            verdict, said = "broken", broke
        stage.nothing_is_left()
        stage.nothing_foreign_is_gone()
        said = said or "; ".join(stage.notes)
    except Broken as error:
        verdict, said = "broken", str(error)
    except NotHere as error:
        verdict, said = "not here", str(error)
    except Exception as error:
        verdict, said = "broken", f"the suite itself: {error!r} {traceback.format_exc()[-600:]}"
    finally:
        if stage is not None:
            stage.close()
    if verdict in ("held", "not here") and not keep:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(f"{folder.name}.told"), ignore_errors=True)
    return Result(row.name, verdict, round(time.monotonic() - began, 1), said, commit())


@cache
def commit() -> str:
    """What git calls the code."""
    command = ("git", "describe", "--always", "--dirty")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
