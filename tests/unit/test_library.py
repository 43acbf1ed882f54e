"""``import svco``: quick, typed, documented; and pairs made by hand."""

import ast
import inspect
import io
import subprocess
import sys
import typing

import numpy as np
import pytest
import torch
from PIL import Image
from places import ROOT

import svco
from svco.basics.errors import BadSample, UserError
from svco.data.pictures import decode_image


def test_import_is_quick_and_light():
    code = (
        "import time; began = time.perf_counter(); import svco, sys; took = time.perf_counter() - began; dir(svco);"
        "print(took, *({'torch', 'transformers', 'numpy', 'yaml', 'PIL'} & sys.modules.keys()))"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() for _ in range(3)
    ]
    assert [heavy for _, *heavy in told] == [[]] * 3
    assert min(float(took) for took, *_ in told) < 0.2


def test_type_checkers_see_the_names_that_are_there():
    tree = ast.parse((ROOT / "svco" / "__init__.py").read_text())
    (shown, *_) = (node.body for node in tree.body if isinstance(node, ast.If))
    homes = {alias.name: node.module for node in shown for alias in node.names}
    assert homes == svco._HOMES
    assert sorted(homes) == sorted(svco.__all__) and set(svco.__all__) <= set(dir(svco))
    assert (ROOT / "svco" / "py.typed").exists()


@pytest.mark.parametrize("name", svco.__all__)
def test_every_name_is_documented_and_annotated(name):
    value = getattr(svco, name)
    assert (value.__module__, value.__name__) == (f"svco.{svco._HOMES[name]}", name)
    assert len(inspect.getdoc(value).split()) > 5
    imported_for_types = {"torch": torch, "Image": Image.Image}
    functions = [value] if inspect.isfunction(value) else []
    if inspect.isclass(value):
        assert typing.get_type_hints(value, localns=imported_for_types).keys() == value.__dataclass_fields__.keys()
        members = (inspect.unwrap(getattr(member, "__func__", member)) for member in vars(value).values())
        functions = [f for f in members if inspect.isfunction(f) and not f.__name__.startswith("_")]
    for function in functions:
        hints = typing.get_type_hints(function, localns=imported_for_types)
        assert {*inspect.signature(function).parameters, "return"} - {"self", "cls"} == hints.keys(), function
        assert inspect.getdoc(function), function


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'; it shows Config, "):
        svco.nonsense  # noqa: B018
    done = subprocess.run([sys.executable, "-c", "import svco; svco.trian"], capture_output=True, text=True)
    assert "Did you mean: 'train'?" in done.stderr


PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def test_a_pair_is_made_of_pictures_paths_or_bytes(tmp_path):
    picture, file = Image.fromarray(PIXELS), io.BytesIO()
    picture.save(tmp_path / "a.bmp")
    picture.save(file, "PNG")
    for images in ((picture, tmp_path / "a.bmp"), [str(tmp_path / "a.bmp"), file.getvalue()]):
        pair = svco.Pair.of("What?", ["This.", "That."], images, key="mine", system="Be brief.")
        assert (pair.text.query, pair.text.responses, pair.text.key) == ("What?", ("This.", "That."), "mine")
        assert pair.text.system == "Be brief."
        for data in pair.images:
            assert np.array_equal(np.asarray(decode_image(data, "here")), PIXELS)


@pytest.mark.parametrize(
    ("query", "responses", "images", "error", "says"),
    [
        (" ", ("a", "b"), (b"", b""), BadSample, "sample 'mine'.*'query' must be a non-empty string"),
        ("q", ("a", ""), (b"", b""), BadSample, "response 1 is empty"),
        ("q", ("a",), (b"", b""), BadSample, "must be two strings"),
        ("q", ("a", "b"), (b"",), UserError, "'mine' has 1 images"),
        ("q", ("a", "b"), ("nowhere.png", b""), UserError, "nowhere.png cannot be read: No such file"),
    ],
)
def test_what_is_no_pair_is_said(query, responses, images, error, says):
    with pytest.raises(error, match=says):
        svco.Pair.of(query, responses, images, key="mine")
