"""Where what somebody names is looked for: the working directory, then what comes with svco, by path or by name."""

import shutil
from pathlib import Path

import pytest
from places import RECIPES, ROOT, SHARDS

from svco.basics.errors import UserError
from svco.basics.shipped import lasting, located, typed
from svco.data.shards import expand
from svco.recipe.ds_config import read_ds_config
from svco.recipe.read import lasting_paths, load_recipe

TRAIN = "data_shards/train-{000000..000007}.tar"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_path_is_seen_from_here_before_it_is_a_shipped_one(elsewhere):
    assert located("data_shards/tiny_llava") == str(SHARDS / "tiny_llava")
    assert located("data_shards/val-*.tar") == str(SHARDS / "val-*.tar")
    (elsewhere / "data_shards" / "tiny_llava").mkdir(parents=True)
    for path in ("data_shards/tiny_llava", "llava-hf/llava-1.5-7b-hf", "", "../data_shards", "nowhere", "/nowhere"):
        assert located(path) == path


@pytest.mark.parametrize("name", [path.stem for path in RECIPES])
def test_a_recipe_has_a_name_from_any_folder(elsewhere, name):
    named = load_recipe(name)
    assert named == load_recipe(f"{name}.yaml") == load_recipe(f"launchers/recipes/{name}.yaml")
    assert named == load_recipe(ROOT / "launchers" / "recipes" / f"{name}.yaml")


def test_a_file_of_that_name_comes_first(elsewhere):
    (elsewhere / "tiny").write_text("optim: {lr: 0.5}")
    (elsewhere / "zero3.json").write_text('{"mine": 1}')
    assert load_recipe("tiny").optim.lr == 0.5
    assert read_ds_config("zero3.json") == {"mine": 1}
    assert read_ds_config("zero3") == read_ds_config("ds_configs/zero3.json") != {"mine": 1}


@pytest.mark.parametrize(
    ("read", "name", "said"),
    [
        (load_recipe, "llava15_7b_lorra", "There is no recipe file llava15_7b_lorra, .*Did you mean 'llava15_7b_lora'"),
        (load_recipe, "mine/tinny.yaml", "There is no recipe file mine/tinny.yaml, .*Did you mean 'tiny'"),
        (load_recipe, "zero3.json", "There is no recipe file zero3.json, .*Known: gemma3_4b_lora, "),
        (read_ds_config, "zero33", "There is no DeepSpeed config zero33, .*Did you mean 'zero3'"),
    ],
)
def test_what_is_found_nowhere_is_told_with_the_nearest_name(elsewhere, read, name, said):
    with pytest.raises(UserError, match=said) as error:
        read(name)
    assert str(elsewhere) in str(error.value), "where it was looked for"


def test_a_recipe_written_down_holds_from_any_folder(elsewhere, monkeypatch):
    """Shipped files keep their names, one's own get absolute paths, hub ids and URLs are left alone."""
    (elsewhere / "shards").mkdir()
    (elsewhere / "my_base").mkdir()
    own = [f"data.train=['{TRAIN}', 'shards/a-{{0..3}}.tar', 'https://x.org/b.tar']", "data.heldout=shards/*.tar"]
    config = load_recipe("tiny", own)
    assert len(expand(TRAIN)) == 8 and config.model.base == str(SHARDS / "tiny_llava")
    written = lasting_paths(config)
    assert written.model.base == "data_shards/tiny_llava"
    assert written.data.train == (TRAIN, f"{elsewhere}/shards/a-{{0..3}}.tar", "https://x.org/b.tar")
    assert written.data.heldout == (f"{elsewhere}/shards/*.tar",)
    assert lasting("my_base") == f"{elsewhere}/my_base" and lasting("llava-hf/x") == "llava-hf/x" and lasting("") == ""
    monkeypatch.chdir(ROOT)
    assert lasting_paths(load_recipe("tiny")) == load_recipe("tiny"), (
        "in the repository a recipe stays as it was written"
    )


PATHS = ("run.root", "run.resume", "run.swap", "model.base", "lora.init_from", "data.cache_dir")
PATTERNS = ("data.train", "data.validation", "data.heldout")


def test_home_wherever_a_recipe_names_a_path(elsewhere, monkeypatch):
    """The shell leaves ~ as it is behind an equals sign, and files hold it anyway."""
    monkeypatch.setenv("HOME", str(elsewhere))
    config = load_recipe(None, [f"{key}=~/x-{{0..1}}" for key in (*PATHS, *PATTERNS)])
    found = {key: getattr(getattr(config, key.partition(".")[0]), key.partition(".")[2]) for key in (*PATHS, *PATTERNS)}
    place = f"{elsewhere}/x-{{0..1}}"
    assert found == {key: place for key in PATHS} | {key: (place,) for key in PATTERNS}
    (elsewhere / "mine.yaml").write_text("run: {root: ~/runs}")
    assert load_recipe("~/mine.yaml").run.root == f"{elsewhere}/runs"


def test_home_wherever_a_command_takes_a_path(elsewhere, monkeypatch):
    monkeypatch.setenv("HOME", str(elsewhere))
    for file in sorted((ROOT / "svco").rglob("options.py")):
        assert "type=Path" not in file.read_text(), f"{file}: basics.shipped.typed is the type of a path"
    assert typed("~/x") == elsewhere / "x"
    assert typed("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    shutil.copy(SHARDS / "val-000000.tar", elsewhere)
    assert expand("~/val-*.tar") == (str(elsewhere / "val-000000.tar"),)
