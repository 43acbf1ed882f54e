"""Writes the harness's command line, runs it in its own environment, and collects its figures."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...basics.errors import UserError
from ...basics.files import write_whole, writing
from ...basics.strict_json import json_text, parse_json
from ..evaluation.benchmarks.choices import read_lines

VERSION = "0.7.3"
"""The version of lmms-eval whose tasks and files are known here."""
RESULT = "harness.json"
COMMAND, LOG = "command.sh", "log.txt"
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""What of our environment would point its Python at our packages."""


@dataclass(frozen=True)
class Task:
    """One benchmark as lmms-eval knows it."""

    name: str
    """Its ``--tasks`` name."""
    metric: str
    """The figure that stands for the benchmark."""
    scale: float = 1.0
    """What its figure is multiplied by to be on svco's scale."""
    deviates: str = ""
    """In what its figure is another than svco's own, or the paper's."""


TASKS: Mapping[str, Task] = {
    "mmvp": Task(
        "mmvp", "mmvp_pair_accuracy", deviates="its copy corrects the answers of two pairs; options are written A., B."
    ),
    "cv_bench": Task("cv_bench", "cv_bench_acc", deviates="share of all questions, not ½[(ADE20K + COCO)/2 + Omni3D]"),
    "textvqa": Task("textvqa_val", "exact_match", deviates="no OCR tokens in the question"),
    "scienceqa": Task("scienceqa_img", "exact_match"),
    "realworldqa": Task("realworldqa", "exact_match"),
    "mm_vet": Task(
        "mmvet", "gpt_eval_score", 0.01, "judged in the harness, by the model that OPENAI_API_KEY and its settings name"
    ),
    "llava_bench_w": Task("llava_in_the_wild", "gpt_eval_llava_all", 1.0, "judged in the harness"),
    "pope": Task("pope", "pope_accuracy"),
    "hallusionbench": Task("hallusion_bench_image", "aAcc", deviates="questions with an image alone, graded by GPT"),
}
"""svco's benchmark -> the harness's. NaturalBench is none: 0.7.3 gives ``naturalbench_Acc`` where its own task file asks for
``naturalbench_ACC``."""


@dataclass(frozen=True)
class Harness:
    """How the harness is run."""

    environment: Path
    """Folder that ``launchers/install/lmms_eval.sh`` made."""
    data: Path | None = None
    """Folder that holds the data sets under their hub names (``lmms-lab-eval/MMVP/data/*.parquet``); None: those in the hub's
    cache."""
    online: bool = False
    """Whether it may fetch data sets."""
    ranks: int = 1
    """Processes, a GPU each."""
    batch_size: int = 16
    """Questions side by side."""
    limit: int = 0
    """Questions of a task at most; 0: all."""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    """More of the model's own: ``dtype``, ``attention``, ``max_text_tokens``, ``paper_compat``."""

    def command(self, base: str, adapter: str | None, benchmarks: Sequence[str], out: Path) -> list[str]:
        """The command line, to the letter."""
        python = str(self.environment / "bin" / "python")
        start = ["-m", "accelerate.commands.launch", "--num_processes", str(self.ranks)] if self.ranks > 1 else []
        given = {"base": base} | ({"adapter": adapter} if adapter else {}) | dict(self.model_args)
        if bad := next((value for value in map(str, given.values()) if "," in value), None):
            raise UserError(f"lmms-eval takes no comma in a model argument, and there is one in {bad}.")
        line = [python, *start, "-m", "lmms_eval", "--model", "svco"]
        line += ["--model_args", ",".join(f"{name}={value}" for name, value in given.items())]
        line += ["--tasks", ",".join(TASKS[name].name for name in benchmarks), "--batch_size", str(self.batch_size)]
        line += ["--log_samples", "--output_path", str(out.absolute())]
        return line + (["--limit", str(self.limit)] if self.limit else [])


def run(harness: Harness, base: str, adapter: str | None, benchmarks: Sequence[str], out: Path) -> dict[str, Any]:
    """Runs the harness on ``benchmarks``, keys of ``TASKS``: :func:`prepare`, its command, :func:`finish`."""
    line = prepare(harness, base, adapter, benchmarks, out)
    with writing(out / LOG):
        stream = (out / LOG).open("w", encoding="utf-8")
    with stream:
        done = subprocess.run(line, stdout=stream, stderr=stream, check=False)
    return finish(out, benchmarks, done.returncode)


def prepare(harness: Harness, base: str, adapter: str | None, benchmarks: Sequence[str], out: Path) -> list[str]:
    """Writes ``out/command.sh`` and returns the words that run it, whose output belongs into ``out/log.txt``. UserError where
    there is no such task, or no harness."""
    if unknown := [name for name in benchmarks if name not in TASKS]:
        raise UserError(f"lmms-eval has no task here for {', '.join(unknown)}; it has one for {', '.join(TASKS)}.")
    if not (harness.environment / "bin" / "python").exists():
        raise UserError(
            f"There is no environment of lmms-eval in {harness.environment}: bash launchers/install/lmms_eval.sh "
            f"{harness.environment} makes one. It cannot share svco's."
        )
    out.mkdir(parents=True, exist_ok=True)
    line = harness.command(_whole(base), _whole(adapter) if adapter else None, benchmarks, out)
    told = ["env", *(word for name in _OURS for word in ("-u", name))]
    told += [] if harness.online else ["HF_HUB_OFFLINE=1", "HF_DATASETS_OFFLINE=1"]
    folder = _linked(harness.data, out / "datasets")
    write_whole(out / COMMAND, f"cd {shlex.quote(str(folder))}\nexec {shlex.join([*told, *line])}\n")
    return ["bash", str((out / COMMAND).absolute())]


def finish(out: Path, benchmarks: Sequence[str], code: int) -> dict[str, Any]:
    """What ``harness.json`` holds once the command has ended with ``code``: version, command, and what :func:`collect` found.
    UserError if it failed."""
    if code:
        text = (out / LOG).read_text(encoding="utf-8", errors="replace")
        last = [line for line in text.splitlines() if line.strip()][-1:]
        raise UserError(f"lmms-eval ended with exit code {code}: {''.join(last)[:300]} All it said is in {out / LOG}.")
    result = {"harness": f"lmms-eval {VERSION}", "command": (out / COMMAND).read_text(encoding="utf-8")}
    result |= collect(out, benchmarks)
    write_whole(out / RESULT, json_text(result, indent=2, ascii_only=False) + "\n")
    return result


def _linked(data: Path | None, folder: Path) -> Path:
    """``folder``, made with a link to each folder of ``data`` that no task is called like: the harness takes a folder of a
    task's name where it is started for that task's definition."""
    folder.mkdir(exist_ok=True)
    names = {task.name for task in TASKS.values()}
    for place in sorted(data.absolute().iterdir()) if data else ():
        link = folder / place.name
        if place.is_dir() and place.name not in names and not link.is_symlink():
            link.symlink_to(place)
    return folder.absolute()


def _whole(place: str) -> str:
    """A folder by its whole path, since the harness runs in another one; a hub id as it is."""
    return str(Path(place).absolute()) if Path(place).exists() else place


def collect(out: Path, benchmarks: Sequence[str]) -> dict[str, Any]:
    """{"benchmarks": {name: score, its error as the harness has it, questions, empty answers, in what it deviates}} of the newest
    results below ``out``. UserError where a figure is missing."""
    files = sorted(out.rglob("*_results.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UserError(f"lmms-eval left no results in {out}; all it said is in {out / LOG}.")
    try:
        told = parse_json(files[-1].read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{files[-1]} is not what lmms-eval {VERSION} writes ({problem}).") from None
    found = {}
    for name in benchmarks:
        task = TASKS[name]
        figures = told.get(task.name) or {}
        key = next((key for key in (f"{task.metric},none", *figures) if key.partition(",")[0] == task.metric), None)
        value = figures.get(key) if key else None
        if not isinstance(value, (int, float)):
            raise UserError(
                f"lmms-eval gave no {task.metric} for {task.name}: {files[-1]} has {', '.join(figures) or 'nothing'}."
            )
        error = figures.get(f"{task.metric}_stderr,{str(key).partition(',')[2]}")
        questions, empty = _answers(files[-1], task.name)
        found[name] = {
            "score": value * task.scale,
            "se": error * task.scale if isinstance(error, (int, float)) else None,
            "questions": questions,
            "empty": empty,
            "deviates": task.deviates,
            "task": task.name,
            "metric": task.metric,
        }
    return {"benchmarks": found}


def _answers(results: Path, task: str) -> tuple[int, int]:
    """(questions, empty answers) of the samples beside ``results``: the harness makes an empty answer of a failed generation."""
    file = results.with_name(results.name.replace("_results.json", f"_samples_{task}.jsonl"))
    said = [_first(sample.get("filtered_resps", sample.get("resps"))) for sample in read_lines(file)]
    return len(said), sum(not answer.strip() for answer in said)


def _first(responses: Any) -> str:
    """The answer of a sample, which the harness nests in lists."""
    while isinstance(responses, list):
        responses = responses[0] if responses else ""
    return str(responses.get("text", "") if isinstance(responses, dict) else responses or "")
