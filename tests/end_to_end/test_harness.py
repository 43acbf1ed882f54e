"""lmms-eval in its own environment, with svco as its model: it says what svco says, and its figure is ours on these answers."""

import csv
import json
import os
from functools import partial
from pathlib import Path

import oracle
import pytest
from benchmarks import make_mmvp
from places import BASE

from svco.basics.dist import World
from svco.basics.progress import silent
from svco.commands.evaluation.benchmarks import mmvp
from svco.commands.evaluation.benchmarks.choices import letter
from svco.commands.evaluation.generation import Question, ask
from svco.commands.harness.running import Harness, run
from svco.data.pictures import decode_image
from svco.model.subject import load_subject

ENVIRONMENT = os.environ.get("SVCO_LMMS_EVAL")
pytestmark = pytest.mark.skipif(
    not ENVIRONMENT,
    reason="NOT TESTED: needs lmms-eval's own environment: bash launchers/install/lmms_eval.sh ENV, and SVCO_LMMS_EVAL=ENV",
)


def as_on_the_hub(release, folder):
    """MMVP's release as the harness's copy of it lies on the hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(csv.DictReader((release / "Questions.csv").open()))
    images = [{"bytes": image.read_bytes(), "path": image.name} for image in pictures(release, len(rows))]
    columns = {name: pa.array([row[name] for row in rows]) for name in ("Question", "Options", "Correct Answer")}
    columns |= {"Index": pa.array([int(row["Index"]) for row in rows])}
    columns["image"] = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    kinds = {name: {"dtype": "int64" if name == "Index" else "string", "_type": "Value"} for name in columns}
    about = json.dumps({"info": {"features": kinds | {"image": {"_type": "Image"}}}})
    file = folder / "lmms-lab-eval" / "MMVP" / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": about}), file)


def pictures(release, count):
    return [release / "MMVP Images" / f"{number}.jpg" for number in range(1, count + 1)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_its_answers_and_its_figure_are_ours(tmp_path, ranks):
    pytest.importorskip("pyarrow", reason="NOT TESTED: needs pyarrow: pip install 'svco[test]'")
    release = make_mmvp(tmp_path / "mmvp", 3)
    as_on_the_hub(release, tmp_path)
    oracle.make_adapter(BASE, tmp_path / "adapter")
    harness = Harness(Path(ENVIRONMENT), tmp_path, batch_size=4, ranks=ranks)
    told = run(harness, str(BASE), str(tmp_path / "adapter"), ["mmvp"], tmp_path / "out")["benchmarks"]["mmvp"]
    samples = [json.loads(line) for line in next((tmp_path / "out").rglob("*_samples_*")).read_text().splitlines()]
    samples.sort(key=lambda sample: sample["doc_id"])

    subject = load_subject(str(BASE), str(tmp_path / "adapter"), device=World().device)
    images = [partial(decode_image, file.read_bytes(), file.name) for file in pictures(release, 6)]
    questions = [Question("q", sample["input"], image) for sample, image in zip(samples, images, strict=True)]
    ours = ask(subject, questions, World(), max_new_tokens=16, at_once=4, show=silent, what="asking")
    assert [sample["filtered_resps"] for sample in samples] == ours
    assert told["questions"] == 6 and told["empty"] == sum(not answer for answer in ours)

    items = mmvp.read(release)
    said = [sample["mmvp_accuracy"]["pred_letter"].lower() or None for sample in samples]
    lines = [
        {"key": item.name, "answer": answer, "right": item.right, "letter": mark, "authors_letter": mark}
        for item, answer, mark in zip(items, ours, said, strict=True)
    ]
    assert mmvp.summary(lines, False)["score"] == told["score"], "the figure, of the letters that the harness reads"
    for item, answer, mark in zip(items, ours, said, strict=True):
        mine = letter(answer, item.options)
        assert mine is None or mine == mark, "where our stricter rule reads a letter it is the harness's"
