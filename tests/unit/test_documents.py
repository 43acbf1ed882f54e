"""Documents lead where they say: every relative link, and every path of the repository named in code font or in a command."""

import re
import subprocess

import pytest
from places import ROOT

TOP = ("svco/", "launchers/", "ds_configs/", "data_shards/", "tests/")
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
)
MADE = re.compile(r"[<>*{}$…]|NAME|FILE|STEM|DATE|\.venv|runs/")
"""Patterns and places that a reader fills in or a run makes."""


def places(text: str):
    """Paths in code: of a code block's words, and of code font."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S) + re.findall(r"(?:^ {4}.*\n)+", text, re.M)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    words = [word for code in [*fenced, *re.findall(r"`([^`\n]+)`", prose)] for word in code.split()]
    for word in words:
        word = word.strip("'\"`,;:()[]").partition("=")[2] if "=" in word else word.strip("'\"`,;:()[]")
        word = word.partition("::")[0].partition("#")[0].rstrip(".,")
        if "/" in word and not word.startswith(("/", "~", "-", "http")) and not MADE.search(word):
            yield word


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page}: ({target})"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_that_are_named_exist(page):
    for place in places(page.read_text()):
        if place.startswith(TOP):
            assert (ROOT / place).exists(), f"{page}: {place}"


def test_the_map_names_files_that_exist():
    """In svco/README.md paths count from svco/ too."""
    page = ROOT / "svco" / "README.md"
    for name in re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?)`", page.read_text()):
        assert (ROOT / "svco" / name).exists() or (ROOT / name).exists(), name
    rooms = {f"{path.name}/" for path in (ROOT / "svco").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(re.findall(r"^\| `([a-z_]+/)`", page.read_text(), re.M)), "a line a folder"


def test_modules_that_docstrings_name_exist():
    """``:mod:``, ``:func:`` and ``:class:`` roles, and paths named in comments and messages."""
    for path in sorted(
        [*(ROOT / "svco").rglob("*.py"), *(ROOT / "launchers").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    ):
        text = path.read_text()
        for name in re.findall(r":(?:mod|func|class|meth):`~?(svco[\w.]*)`", text):
            parts = name.split(".")
            files = [ROOT.joinpath(*parts[:n]) for n in range(len(parts), 0, -1)]
            assert any(f.with_suffix(".py").exists() for f in files[:-1]) or files[0].is_dir(), f"{path}: {name}"
        for place in re.findall(
            r"\b((?:svco|launchers|ds_configs|tests)/[\w/]+\.(?:py|md|sh|slurm|yaml|json))\b", text
        ):
            assert (ROOT / place).exists() or "tests" in path.parts, f"{path}: {place}"
