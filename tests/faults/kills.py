"""kill -9 of the only process at instants over the whole of a run, drawn by the seed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from faults.processes import At, Injected, kill
from faults.stage import Broken, Stage, World, contents, must, same_run, told
from faults.table import Row
from svco.basics.files import file_digest
from svco.basics.sealed import sealed, unsealed
from svco.record.manifest import MANIFEST, SEALED_SINCE

PHASES = {
    "load": ("loading the model", 4, "between two files, or while weights load"),
    "cache": ("computing the reference", 5, "while the reference is computed and kept"),
    "step": ("training", 6, "in a step, or between two"),
    "validation": ("scoring pairs", 4, "while pairs are scored"),
    "save": ("saving", 5, "while a checkpoint is written"),
    "export": ("exporting", 3, "while the adapter is written"),
}
"""Part of a run -> (what state.json calls it, instants, in words)."""
RENAMES = {
    "step": ("os.rename .*/step-000004.tmp -> .*", "before step-000004.tmp gets its name"),
    "latest": ("os.rename .* -> .*/latest$", "before `latest` is replaced"),
    "rotation": ("os.remove .*step-000002/", "while an old checkpoint is removed"),
    "manifest": ("os.rename .* -> .*step-000004.tmp/MANIFEST.json$", "before the MANIFEST gets its name"),
    "reference": ("os.rename .* -> .*/references/.*", "before a cached reference gets its name"),
    "adapter": ("os.rename .* -> .*/run/adapter$", "before the adapter gets its name"),
    "state": ("os.rename .* -> .*/state.json$", "before state.json is replaced"),
    "recipe": ("open .*recipe.yaml", "before recipe.yaml is written"),
}


def rows(seed: int) -> list[Row]:
    draw, found = random.Random(seed), []
    for part, (doing, count, words) in PHASES.items():
        for number in range(count):
            share = round((number + draw.random()) / count, 3)
            found.append(
                Row(
                    f"kill/{part}/{number}",
                    "kill -9",
                    f"{words}, at {share:.1%} of all time spent so",
                    "goes on with run.resume=auto: the same curve and weights, bit for bit",
                    lambda stage, doing=doing, share=share: killed(stage, instant(stage.world, doing, share)),
                    short=(part, number) in (("save", 2), ("step", 3)),
                )
            )
    for name, (pattern, words) in RENAMES.items():
        found.append(
            Row(
                f"kill/rename/{name}",
                "kill -9",
                words,
                "goes on with run.resume=auto: the same curve and weights, bit for bit",
                lambda stage, pattern=pattern: killed(stage, At(pattern)),
                short=name in ("step", "rotation"),
            )
        )
    return [
        *found,
        Row(
            "kill/again-and-again",
            "kill -9 at every start, ten of them, each a little later",
            "0.4 to 3 s after the start",
            "the eleventh start finishes: the same curve and weights, bit for bit",
            again_and_again,
        ),
        Row(
            "kill/command/export",
            "kill -9 of `svco export`",
            "before the export gets its name",
            "nothing bears its name; exported again it is the same as one that was not disturbed",
            export_killed,
        ),
        Row(
            "kill/control/moments",
            "control: killed and gone on with, from a checkpoint whose moments of Adam were set to 0 and whose digests were made "
            "to fit",
            "after step 4",
            "the check of the curve breaks",
            without_moments,
            control=True,
            short=True,
        ),
        Row(
            "kill/control/line",
            "control: a finished run with one line of metrics.jsonl twice, or left out",
            "afterwards",
            "the check of lost and doubled pairs breaks",
            doctored_lines,
            control=True,
            short=True,
        ),
    ]


def instant(world: World, doing: str, share: float) -> At:
    """The instant at ``share`` of the time that the uninterrupted run spends ``doing``, from the first to the last time."""
    events = world.finished("plain").started[0].events()
    marks = [(when, event) for when, event in events if event.startswith("doing ")]
    spans = [
        (began, ended - began)
        for (began, event), (ended, _) in zip(marks, marks[1:], strict=False)
        if event == f"doing {doing}"
    ]
    left = share * sum(length for _, length in spans)
    for number, (_, length) in enumerate(spans, start=1):
        if left <= length or number == len(spans):
            return At(f"^doing {doing}$", number, max(left, 1e-4))
        left -= length
    raise AssertionError(f"the run was never {doing}")


def killed(stage: Stage, at: At) -> None:
    """Kills it at ``at`` and lets it go on."""
    ended = stage.train(inject=(Injected(at, kill),))
    must(ended.code == -9, f"the fault was not delivered: exit code {ended.code}")
    stage.nothing_is_left()
    told(stage.train(), 0)
    stage.same_as("plain")
    left = [path.name for path in stage.run().rglob("*.tmp")]
    must(not left, f"what was begun lies there still: {left}")


def again_and_again(stage: Stage) -> None:
    for number in range(10):
        process = stage.start()
        if process.wait(0.4 + 0.26 * number) is None:
            process.send(9)
        process.wait(10)
    told(stage.train(), 0)
    stage.same_as("plain")


def export_killed(stage: Stage) -> None:
    target, sound = stage.folder / "out", stage.folder / "sound"
    arguments = ("export", stage.adopt("plain"), "--format", "merged", "--to")
    ended = stage.svco(*arguments, target, inject=(Injected(At("os.rename .* -> .*/out$"), kill),))
    must(ended.code == -9, f"the fault was not delivered: exit code {ended.code}")
    must(not target.exists(), "half an export has its name")
    for folder in (target, sound):
        told(stage.svco(*arguments, folder), 0)
    must(contents(target) == contents(sound), "another export")


def without_moments(stage: Stage) -> None:
    run = stage.halfway("plain", 4)
    with safe_open(run / "checkpoints" / "step-000004" / "trainable.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) * (name.startswith("value/")) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    save_file(tensors, run / "checkpoints" / "step-000004" / "trainable.safetensors", about)
    make_fit(run / "checkpoints" / "step-000004")
    told(stage.train(), 0)
    stage.same_as("plain")


def make_fit(checkpoint: Path) -> None:
    """Writes digests into MANIFEST.json that fit what lies there now."""
    manifest = unsealed((checkpoint / MANIFEST).read_text(), SEALED_SINCE)
    for name, file in manifest["files"].items():
        path = checkpoint / name
        file |= {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    (checkpoint / MANIFEST).write_text(sealed(manifest))


def doctored_lines(stage: Stage) -> None:
    run = stage.adopt("plain")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    whole = stage.world.finished("plain").run("run")
    same_run(run, whole)
    (run / "metrics.jsonl").write_text("".join([*lines[:2], lines[1], *lines[2:]]))
    try:
        same_run(run, whole)
    except Broken:
        (run / "metrics.jsonl").write_text("".join([*lines[:1], *lines[2:]]))
        same_run(run, whole)
    shutil.rmtree(run)
