"""What svco asks of lmms-eval, and what it makes of the files that it leaves. The harness itself: end_to_end/test_harness.py."""

import json
import sys

import pytest

from svco.basics.errors import UserError
from svco.commands.harness.running import TASKS, Harness, collect, run
from svco.commands.study.run import Children
from svco.commands.table.by_harness import Beside, evaluate_by, rows_by, shown_by
from svco.commands.table.figures import Evaluated
from svco.commands.table.models import Model


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
    command = (out / "command.sh").read_text()
    assert " ".join(told["words"]) in command and "env -u PYTHONPATH" in command
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


def test_its_figures_stand_beside_the_tables(tmp_path):
    """One run of it a model and benchmark, by a stand-in that fails on one of them; the same again runs what is not there."""
    environment, said = tmp_path / "env", []
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, sys\nfrom pathlib import Path\n"
        "told = dict(zip(sys.argv, sys.argv[1:]))\n"
        f"with open({str(tmp_path / 'runs')!r}, 'a') as file: print(told['--model_args'], told['--tasks'], file=file)\n"
        "if 'adapter' in told['--model_args'] and told['--tasks'] == 'cv_bench': sys.exit('no such data set')\n"
        "metric = {'mmvp': 'mmvp_pair_accuracy', 'cv_bench': 'cv_bench_acc'}[told['--tasks']]\n"
        "out, task = Path(told['--output_path']), told['--tasks']\n"
        "figures = {f'{metric},none': 0.25, f'{metric}_stderr,none': 0.1}\n"
        "(out / 'x_results.json').write_text(json.dumps({'results': {task: figures}}))\n"
        '(out / f\'x_samples_{task}.jsonl\').write_text(\'{"filtered_resps": "A"}\\n{"filtered_resps": ""}\')\n'
    )
    python.chmod(0o755)
    models = [Model("BASE", "a/base"), Model("A", "a/base", tmp_path / "adapter")]
    found = [Evaluated(model.name, tmp_path / model.name) for model in models]
    beside = Beside(Harness(environment), ("mmvp", "cv_bench"))
    for runs in (4, 5):  # what failed is run again, and that alone
        evaluate_by(beside, models, found, Children(), 1, said.append)
        assert len((tmp_path / "runs").read_text().splitlines()) == runs
    assert any("failed: A: lmms-eval ended with exit code 1: no such data set" in line for line in said), said
    told = rows_by(found, beside)
    assert (
        told["rows"]["A"]["cv_bench"] is None and told["rows"]["BASE"]["cv_bench"]["source"]["by"] == "lmms-eval 0.7.3"
    )
    shown = shown_by(told)
    assert [cell["value"] for cell in shown["rows"][0]["cells"]] == ["25.0", "25.0"]
    assert [cell["value"] for cell in shown["rows"][1]["cells"]] == ["25.0", "–"]
    assert any("share of all questions" in note for note in shown["notes"]), "in what it deviates stands under it"
    assert "mmvp: 2 answers are empty, which count as wrong." in shown["notes"]
    assert rows_by(found, None) == {} == shown_by({})
