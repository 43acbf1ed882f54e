"""Small releases in the layouts of the real ones: what ``svco data import`` is tested on."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


def picture(number: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture of its own for each number; no two of its columns are equal."""
    image = Image.new("RGB", size)
    for x in range(size[0]):
        for y in range(size[1]):
            image.putpixel((x, y), (9 * x % 256, (13 * y + 40 * number) % 256, 37 * number % 256))
    return image


def encoded(number: int, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, form)
    return buffer.getvalue()


def put(path: Path, what: bytes | str | object) -> Path:
    """Writes bytes, a text, or JSON; the folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(what, bytes):
        path.write_bytes(what)
    else:
        path.write_text(what if isinstance(what, str) else json.dumps(what), encoding="utf-8")
    return path


def countercurate(folder: Path, pictures: int = 3) -> Path:
    """``train_data`` of CounterCurate with all four parts."""
    names = [str(1000 + number) for number in range(pictures)]
    drawn = [
        {"image_id": n, "phrases": ["a dog"], "coords": [[0, 1]], "pos": f"left {n}", "neg": f"right {n}"}
        for n in (0, 1)
    ]
    put(folder / "left_right.json", {name: drawn for name in names})
    put(folder / "up_down.json", {name: [drawn[0] | {"pos": "above", "neg": "below"}] for name in names})
    counting = {
        "pos": "two dogs",
        "neg": "one dog",
        "locations": [],
        "phrases": [],
        "prompt": "",
        "input_image": "/home/author/x.jpg",
    }
    put(folder / "counting.json", {name: [counting, counting] for name in names})
    put(
        folder / "dalle_gen_counterfactuals.json",
        {name: {"noun": "a cat", "adjective": "a big dog", "reverse": None} for name in names},
    )
    put(folder / "flickr30k_image_captions.json", {name: [f"a dog {name}", "other words"] for name in names})
    for place, name in enumerate(names):
        put(folder / f"flickr30k-images/{name}.jpg", encoded(place))
        for part in ("left_right", "up_down", "counting"):
            put(folder / f"{part}/pos/{name}.jpg", encoded(place))
        put(folder / f"up_down/neg/{name}.jpg", encoded(place + 50))
        put(folder / f"counting/neg/{name}_0.png", encoded(place + 60, "PNG"))
        put(folder / f"counting/neg/{name}_1.jpg", encoded(place + 70))
        for kind in ("noun", "adjective"):
            put(folder / f"dalle_gen_counterfactuals/{name}_{kind}.jpg", encoded(place + 80))
    return folder


def finecops(folder: Path) -> Path:
    """The plain annotations in two files, the COCO form beside them, and GQA's images."""

    def entry(number: int, **more: object) -> dict[str, object]:
        plain = {"objects_id": ["7"], "tuple": [["dog", "on", "mat"]], "tuple_type": "1_hop", "level": 1}
        return {
            "id": number,
            "image_id": f"23{number}",
            "expression": f"the dog {number}",
            "spatial": None,
            **plain,
            **more,
        }

    def negative(number: int, **more: object) -> dict[str, object]:
        other = {
            "positive_id": 1,
            "negative_level": 1,
            "shuffle_index": [],
            "ori_type": "1_hop",
            "negative_cate": "image",
        }
        return entry(
            number, image_id=f"n{number}", expression=f"the cat {number}", **other | {"negative_type": "object"} | more
        )

    put(folder / "train_positive.json", [entry(1), entry(2)])
    kinds = [{"negative_type": kind} for kind in ("object", "attribute", "relation", "Order", "odd")]
    others = [{"negative_cate": "text"}, {"positive_id": 99}, {"positive_id": 2}]
    put(folder / "train_negative.json", [negative(10 + place, **more) for place, more in enumerate([*kinds, *others])])
    put(folder / "expression_all_train_set_coco_format.json", {"images": [], "annotations": []})
    for number in (1, 2):
        put(folder / f"images/23{number}.jpg", encoded(number))
    for number in range(10, 18):
        ending = "png" if number == 11 else "jpg"
        put(folder / f"neg_images/n{number}.{ending}", encoded(number, "PNG" if ending == "png" else "JPEG"))
    return folder


def vismin_entries() -> list[dict[str, object]]:
    categories = ("object", "attribute", "counting", "relation(left of)", "mood")
    edits = [
        {
            "edited_image_path": f"/edited/coco/234136/{n}.png",
            "edited_caption": f"edit {n}",
            "category": kind,
            "edit_id": f"e{n}",
        }
        for n, kind in enumerate(categories)
    ]
    path = "/coco/images/train2017/000000234136.jpg"
    return [
        {"image_path": path, "caption": "Two men.", "image_id": "234136", "source": "coco", "negatives": edits},
        {"image_path": path, "caption": "Nobody.", "image_id": "9", "source": "coco", "negatives": []},
    ]


def vismin(folder: Path) -> Path:
    """The JSON form, with its images below the same folder."""
    put(folder / "coco/images/train2017/000000234136.jpg", encoded(1))
    for number in range(5):
        put(folder / f"edited/coco/234136/{number}.png", encoded(number + 2, "PNG"))
    return put(folder / "train.json", vismin_entries())


def vlfeedback(folder: Path) -> Path:
    """Two rows, of which the second is a tie, in JSON lines."""

    def answer(model: str, response: str, *ratings: str) -> dict[str, object]:
        notes = {aspect: {"Rating": rating, "Rationale": "…"} for aspect, rating in zip(ASPECTS, ratings)}
        return {"model": model, "response": response, "annotations": notes}

    rows = [
        {
            "id": "lrv-1",
            "prompt": "What is there?",
            "models": ["a", "b", "c", "d"],
            "completions": [
                answer("a", "A dog.", "4", "5", "3"),
                answer("b", "A cat.", "1", "5", "1"),
                answer("c", "A dog, black.", "5", "5", "5"),
                answer("d", "Odd.", "N/A", "5", "5"),
            ],
        },
        {
            "id": "lrv-2",
            "prompt": "And there?",
            "models": ["a", "b"],
            "completions": [answer("a", "x", "3", "5", "4"), answer("b", "y", "4", "5", "3")],
        },
    ]
    put(folder / "merged_images/lrv-1.jpg", encoded(1))
    put(folder / "merged_images/lrv-2.jpg", encoded(2))
    return put(folder / "vlfeedback_80k.jsonl", "\n".join(map(json.dumps, rows)) + "\n")


def magicbrush_rows() -> list[dict[str, object]]:
    """As the hub's parquet holds them: pictures are bytes with the path that they had."""

    def cell(number: int) -> dict[str, object]:
        return {"bytes": encoded(number, "PNG"), "path": f"{number}.png"}

    return [
        {
            "img_id": "327745",
            "turn_index": turn,
            "source_img": cell(turn),
            "mask_img": cell(9),
            "instruction": f"Make it {turn}.",
            "target_img": cell(turn + 1),
        }
        for turn in (1, 2)
    ]


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), str(path))
    return path


def saved_by_datasets(folder: Path, rows: list[dict[str, object]]) -> Path:
    """The layout of ``DatasetDict.save_to_disk``: an arrow stream a shard."""
    import pyarrow

    put(folder / "dataset_dict.json", {"splits": ["train"]})
    put(folder / "train/dataset_info.json", {"features": {}})
    put(folder / "train/state.json", {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    table = pyarrow.Table.from_pylist(rows)
    with (
        pyarrow.OSFile(str(folder / "train/data-00000-of-00001.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    return folder


def ic_vco(folder: Path) -> Path:
    """The data set's folder: pairs as parquet that names files of ``images``."""
    for number in range(4):
        put(folder / f"images/{number}.jpg", encoded(number))
    row = {
        "prompt": "What?",
        "chosen": "A dog.",
        "rejected": "A cat.",
        "chosen_response_spans": [[2, 5]],
        "rejected_response_spans": [[2, 5]],
    }
    rows = [
        {**row, "images_file_names": ["../../images/0.jpg", "../../images/1.jpg"]},
        {**row, "images_file_names": ["../../images/2.jpg", "../../images/3.jpg"], "rejected": " "},
        {**row, "images_file_names": ["../../images/2.jpg"]},
    ]
    parquet(folder / "preference/train/metadata.parquet", rows)
    parquet(folder / "sft/train/metadata.parquet", [{"prompt": "x"}])
    return folder


def mvc(folder: Path) -> Path:
    """The S-VCO authors' release with one pair of CounterCurate's."""
    paths = ("flickr30k/1.jpg", "Flickr30k-Counterfactuals/left_right/neg/1.jpg")
    for number, path in enumerate(paths):
        put(folder / path, encoded(number))
    item = {
        "system_prompt": "You see.",
        "instruction_prompt": "Where?",
        "chosen_images": [paths[0]],
        "rejected_images": [paths[1]],
        "chosen_response": "Left.",
        "rejected_response": "Right.",
        "more": {"a": [1]},
    }
    return put(folder / "mvc.json", [item, item])


def ic_vco_json(folder: Path) -> Path:
    """IC-VCO's columns as JSON."""
    for number in range(2):
        put(folder / f"{number}.jpg", encoded(number))
    row = {
        "prompt": "What?",
        "chosen": "A.",
        "rejected": "B.",
        "images": ["0.jpg", "1.jpg"],
        "chosen_response_spans": [[0, 1]],
    }
    return put(folder / "pairs.json", [row])


def edits_json(folder: Path) -> Path:
    """An editing set as JSON."""
    for number in range(3):
        put(folder / f"{number}.png", encoded(number, "PNG"))
    row = {
        "source_img": "0.png",
        "target_img": "1.png",
        "mask_img": "2.png",
        "instruction": "Night.",
        "type": "scene",
        "n": 1,
    }
    return put(folder / "edits.json", [row])
