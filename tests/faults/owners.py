"""Two starts, another run's recipe on resume, and folders that are somebody else's."""

from __future__ import annotations

import re
import signal
import time
from functools import partial

from faults.processes import At, Injected, suspend
from faults.stage import Stage, contents, must, told
from faults.table import Row

OTHER = {
    "lora.alpha=16": "lora.alpha was 8.0 and is 16.0 now",
    "lora.rank=8": "lora.rank was 4 and is 8 now",
    "objective.beta=0.2": "objective.beta was 0.1 and is 0.2 now",
    "optim.lr=1e-4": "optim.lr was 0.001 and is 0.0001 now",
    "optim.global_batch=5": "optim.global_batch was 4 and is 5 now",
    "optim.steps=9": "the number of steps was 6 and is 9 now",
    "run.seed=7": "run.seed was 42 and is 7 now",
    "model.base=OTHER": "the base model's weights was",
    "data.train=OTHER": "the training shards (digest) was",
    "model.tune=full": "model.tune was lora and is full now",
}


def rows(_: int) -> list[Row]:
    found = [
        Row(
            f"resume/{change.partition('=')[0]}",
            f"{change.replace('OTHER', 'another of the same shapes')}",
            "on resume, after step 4",
            f"exit code 2, “{words}”, and no byte of the folder changed; set back, it goes on as the same run",
            partial(another, change=change, words=words),
            short=change.startswith(("lora.alpha", "model.base")),
        )
        for change, words in OTHER.items()
    ]
    return [
        *found,
        Row(
            "resume/control",
            "control: objective.beta=0.2 with run.allow_change=objective.beta",
            "on resume, after step 4",
            "it goes on, and the check of the curve breaks",
            allowed,
            control=True,
        ),
        Row(
            "resume/rolled-back",
            "run.resume=…/step-000002 of a finished run",
            "afterwards",
            "goes on from there: the same curve and weights; what was later is set aside and never counts again",
            rolled_back,
        ),
        Row(
            "two-starts/at-once",
            "two processes start with one run.name",
            "in the same moment",
            "one trains, the other ends with exit code 2 and who has the folder; the run is the same",
            two_at_once,
            short=True,
        ),
        Row(
            "two-starts/auto",
            "two processes start with one run.name and run.resume=auto",
            "in the same moment",
            "one trains, the other waits and then finds nothing left to do, or is refused; the run is the same",
            two_auto,
        ),
        Row(
            "two-starts/suspended",
            "the run is suspended (SIGSTOP) and started a second time, its last sign of life an hour old",
            "in mid-run",
            "the second start never touches the folder; the first goes on: the same run",
            suspended,
        ),
        Row(
            "two-starts/taken",
            "another run's mark is put into the lock (what storage without locks lets happen)",
            "in mid-run",
            "the run ends with exit code 2 before it writes a checkpoint",
            taken,
        ),
        Row(
            "two-starts/control",
            "control: the same, with the lock and state.json removed by hand before the second start",
            "in mid-run",
            "the second start takes the folder over, so that the check breaks",
            partial(suspended, guarded=False),
            control=True,
        ),
    ]


def other_data(stage: Stage) -> str:
    from svco.data.shards import write_shards
    from svco.tiny_world.contrast import world_pairs

    write_shards(list(world_pairs("train", 40, 20)), stage.folder / "other", "train", 10)
    return f"[{stage.folder}/other/train-000000.tar,{stage.folder}/other/train-000001.tar]"


def other_base(stage: Stage) -> str:
    from safetensors.torch import load_file, save_file

    file = stage.base / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[name] = weights[name] + 0.01
    save_file(weights, file, {"format": "pt"})
    return str(stage.base)


def another(stage: Stage, change: str, words: str) -> None:
    run = stage.halfway()
    if change.endswith("OTHER"):
        change = change.replace("OTHER", other_base(stage) if "base" in change else other_data(stage))
    before = contents(run)
    told(stage.train(change), 2, "Cannot resume from", words)
    must(contents(run) == before, "a refused start changed the run's folder")
    told(stage.train(), 0)
    stage.same_as("plain")


def allowed(stage: Stage) -> None:
    stage.halfway()
    told(stage.train("objective.beta=0.2", "run.allow_change=objective.beta"), 0, "changed deliberately")
    stage.same_as("plain")


def rolled_back(stage: Stage) -> None:
    run = stage.adopt("plain")
    told(
        stage.train(resume=str(run / "checkpoints" / "step-000002")), 0, "step-000004.abandoned, step-000006.abandoned"
    )
    stage.same_as("plain")
    must((run / "checkpoints" / "latest").read_text() == "step-000006", "latest is not the newest")
    told(stage.train(), 0)
    stage.same_as("plain")


def two_at_once(stage: Stage) -> None:
    processes = [stage.start(resume="none") for _ in range(2)]
    ended = sorted((stage.end(process) for process in processes), key=lambda one: one.code)
    must([one.code for one in ended] == [0, 2], f"exit codes {[one.code for one in ended]}: {ended[1].text[-300:]}")
    must(
        re.search("is running|is not empty", ended[1].text),
        f"it did not say who has the folder: {ended[1].text[-300:]}",
    )
    told(ended[1], 2)
    stage.same_as("plain")


def two_auto(stage: Stage) -> None:
    processes = [stage.start() for _ in range(2)]
    codes = sorted(stage.end(process).code for process in processes)
    must(codes in ([0, 0], [0, 2]), f"exit codes {codes}")
    stage.same_as("plain")


def suspended(stage: Stage, guarded: bool = True) -> None:
    first = stage.start(inject=(Injected(At("^doing scoring pairs$", after=0.05), suspend),))
    deadline = time.monotonic() + 300
    while not any("scoring pairs" in event for _, event in first.events()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    state = stage.run() / "state.json"
    state.write_text(re.sub(r'"beat": [\d.]+', f'"beat": {time.time() - 3600}', state.read_text()))
    before = contents(stage.run())
    if not guarded:
        state.unlink()
        (stage.run() / "lock").unlink()
    stage.waits(second := stage.start())
    must(contents(stage.run()) == before, "the second start changed the folder")
    second.send(signal.SIGKILL)
    first.send(signal.SIGCONT)
    told(stage.end(first), 0)
    stage.same_as("plain")


def steal(lock: str) -> None:
    with open(lock, "w") as file:  # noqa: PTH123 (inside of an audit hook: as little as can be)
        file.write("elsewhere 7 another\n")


def taken(stage: Stage) -> None:
    act = partial(steal, str(stage.run() / "lock"))
    ended = stage.train(inject=(Injected(At("^doing saving$", 2), act),))
    told(ended, 2, "belongs to another run now", "elsewhere 7")
    kept = sorted(path.name for path in (stage.run() / "checkpoints").glob("step-*"))
    must(kept == ["step-000002"], f"it wrote afterwards: {kept}")
    told(stage.train(), 0)
    stage.same_as("plain")
