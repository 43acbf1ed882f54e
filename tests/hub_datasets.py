"""Data sets as they lie on the hub, in folders that `datasets` opens offline: what lmms-eval's tasks read."""

import json

from benchmarks import cv_records, picture, scienceqa_problems


def on_hub(folder, name, split, rows, config="default"):
    """One parquet file of ``rows`` under the hub's ``name``, its pictures in the column ``image``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds, columns = {}, {}
    for column, value in rows[0].items():
        values = [row[column] for row in rows]
        if column == "image":
            pictures = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(values)]
            columns[column] = pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
            kinds[column] = {"_type": "Image"}
        elif isinstance(value, list):
            columns[column] = pa.array(values, pa.list_(pa.string()))
            kinds[column] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
        else:
            columns[column] = pa.array(values, pa.int64() if isinstance(value, int) else pa.string())
            kinds[column] = {"dtype": "int64" if isinstance(value, int) else "string", "_type": "Value"}
    home = folder / name
    (home / "data").mkdir(parents=True)
    about = {"huggingface": json.dumps({"info": {"features": kinds}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(about), home / "data" / f"{split}-00000-of-00001.parquet")
    files = f"  - split: {split}\n    path: data/{split}-*"
    (home / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}\n---\n")


def make_hub(folder):
    """Those of MMVP, CV-Bench, RealWorldQA, ScienceQA-IMG, TextVQA and POPE, a few questions each; {benchmark: its rows}."""
    letter = "Please answer directly with only the letter of the correct option and nothing else."
    asked = [
        (f"Which?\nA. Left\nB. Right\n{letter}", "B"),
        ("Is it green?\nAnswer with a word.", "Yes"),
        ("How many?", "3"),
    ]
    found = {
        "mmvp": [
            {"Index": n, "Question": f"Is door {(n + 1) // 2} open?", "Options": "(a) Open (b) Closed"}
            | {"Correct Answer": "(a)" if n % 2 else "(b)", "image": picture(n)}
            for n in range(1, 5)
        ],
        "cv_bench": [{**record, "image": picture(record["idx"])} for record in cv_records()],
        "realworldqa": [
            {"image": picture(n), "question": question, "answer": right} for n, (question, right) in enumerate(asked)
        ],
        "scienceqa": [
            {name: problem[name] for name in ("question", "choices", "answer", "hint")} | {"image": picture(int(key))}
            for key, problem in scienceqa_problems().items()
            if problem["image"] and problem["split"] == "test"
        ],
        "textvqa": [
            {"question_id": n, "question": "what is the brand?", "answers": [right] * 7 + ["other", "the other", "no"]}
            | {"image": picture(n), "image_id": f"p{n}", "ocr_tokens": ["A"]}
            for n, right in enumerate(("dakota", "red", "2"))
        ],
        "pope": [
            {
                "question_id": str(n),
                "question": f"Is there a {what} in the image?",
                "answer": right,
                "image": picture(1),
            }
            | {"image_source": "COCO_val2014_1", "category": "random", "id": str(n)}
            for n, (what, right) in enumerate((("wall", "yes"), ("zebra", "no")))
        ],
    }
    on_hub(folder, "lmms-lab-eval/MMVP", "train", found["mmvp"])
    on_hub(folder, "nyu-visionx/CV-Bench", "test", found["cv_bench"])
    on_hub(folder, "lmms-lab-encoder/RealWorldQA", "test", found["realworldqa"])
    on_hub(folder, "lmms-lab-encoder/ScienceQA", "test", found["scienceqa"], "ScienceQA-IMG")
    on_hub(folder, "lmms-lab-encoder/textvqa", "validation", found["textvqa"])
    on_hub(folder, "lmms-lab-encoder/POPE", "test", found["pope"])
    return found
