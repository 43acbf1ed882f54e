"""What svco asks of lmms-eval, and what it makes of the files that it leaves. The harness itself: end_to_end/test_harness.py."""

import json
import sys

import pytest

from svco.basics.errors import UserError
from svco.commands.harness.running import TASKS, Harness, collect, run


def leave(folder, stamp="20261128_120000", score=0.5, answers=("A", "", "B"), metric="mmvp_pair_accuracy", task="mmvp"):
    """Files as lmms-eval 0.7.3 writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"alias": task, f"{metric},none": score, f"{metric}_stderr,none": "N/A"}
    (folder / f"{stamp}_results.json").write_text(json.dumps({"results": {task: figures}}))
    lines = (json.dumps({"doc_id": n, "filtered_resps": answer}) for n, answer in enumerate(answers))
    (folder / f"{stamp}_samples_{task}.jsonl").write_text("\n".join(lines))


def test_figures_are_collected_with_the_empty_answers(tmp_path):
    leave(tmp_path / "model")
    found = collect(tmp_path, ["mmvp"])["benchmarks"]["mmvp"]
    assert (found["score"], found["se"], found["questions"], found["empty"]) == (0.5, None, 3, 1)
    assert "corrects the answers of two pairs" in found["deviates"]
    leave(tmp_path, score=37.5, metric="gpt_eval_score", task="mmvet", answers=([["said"]], [[""]]))
    assert collect(tmp_path, ["mm_vet"])["benchmarks"]["mm_vet"]["score"] == 0.375, "percent there, a share here"
    assert collect(tmp_path, ["mm_vet"])["benchmarks"]["mm_vet"]["empty"] == 1, "answers nested in lists"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: next(f.glob("*_results.json")).unlink(), "left no results"),
        (lambda f: next(f.glob("*_results.json")).write_text("{"), "is not what lmms-eval"),
        (
            lambda f: next(f.glob("*_results.json")).write_text('{"results": {"mmvp": {"other,none": 1}}}'),
            "gave no mmvp_pair",
        ),
        (lambda f: next(f.glob("*_samples_*")).unlink(), "samples"),
        (lambda f: next(f.glob("*_samples_*")).write_text('{"doc'), "samples"),
    ],
)
def test_what_is_missing_is_said(tmp_path, spoil, said):
    leave(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=said):
        collect(tmp_path, ["mmvp"])


def test_the_command_is_written_and_run_where_no_folder_is_taken_for_a_task(tmp_path):
    """A stand-in for the environment's Python notes what it is given; a release there is called like a task."""
    environment, data, out = tmp_path / "env", tmp_path / "data", tmp_path / "out"
    (environment / "bin").mkdir(parents=True)
    for name in ("mmvp", "lmms-lab-eval"):
        (data / name).mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nfrom pathlib import Path\n"
        "told = {'words': sys.argv[1:], 'here': sorted(os.listdir()), 'offline': os.environ['HF_DATASETS_OFFLINE']}\n"
        f"Path({str(tmp_path / 'told.json')!r}).write_text(json.dumps(told))\n"
        "print('something is wrong at the end')\nsys.exit(3)\n"
    )
    python.chmod(0o755)
    harness = Harness(environment, data, ranks=2, model_args={"dtype": "float32"})
    with pytest.raises(UserError, match="exit code 3: something is wrong at the end"):
        run(harness, "some/base", None, ["mmvp", "cv_bench"], out)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["here"] == ["lmms-lab-eval"] and told["offline"] == "1"
    assert (
        "some/base" in (out / "command.sh").read_text() and " ".join(told["words"]) in (out / "command.sh").read_text()
    )
    assert "base=some/base,dtype=float32" in told["words"] and "mmvp,cv_bench" in told["words"]
    for wrong, names, said in (
        (Harness(tmp_path / "none"), ["mmvp"], "lmms_eval.sh"),
        (harness, ["naturalbench"], "has no task here for naturalbench"),
    ):
        with pytest.raises(UserError, match=said):
            run(wrong, "some/base", None, names, out)
    with pytest.raises(UserError, match="no comma"):
        run(harness, "some,base", None, ["mmvp"], out)
    assert "naturalbench" not in TASKS
