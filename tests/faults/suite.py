"""``make faults``: plays the table of faults and writes what held (tests/README.md).

``PYTHONPATH=tests python -m faults.suite [--seed N] [--rows REGEX ...] [--again] [--minutes N] [--out FILE]``. Results are kept
row by row in the work folder: a second start plays what is missing, and rows that were broken again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path

from places import ROOT

from faults.harness import Result, play
from faults.stage import World
from faults.table import Row, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="draws instants and bits (default: %(default)s)")
    parser.add_argument(
        "--rows", nargs="*", default=[], metavar="REGEX", help="only rows whose name one of these matches"
    )
    parser.add_argument("--again", action="store_true", help="play rows that have a result too")
    parser.add_argument("--list", action="store_true", help="print the rows and play nothing")
    parser.add_argument("--minutes", type=float, default=0, help="begin no row after this long; 0: no limit")
    parser.add_argument(
        "--work", type=Path, help="work folder (default: one for the seed, in the system's temporary folder)"
    )
    parser.add_argument("--out", type=Path, help="the page to write (default: launchers/results/<date>_faults.md)")
    asked = parser.parse_args()
    rows = table(asked.seed)
    wanted = [row for row in rows if not asked.rows or any(re.search(word, row.name) for word in asked.rows)]
    if asked.list:
        for row in wanted:
            print(f"{row.name}: {row.what}; {row.when}")
        return 0
    work = asked.work or Path(tempfile.gettempdir()) / f"svco-faults-{os.getuid()}-{asked.seed}"
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "results.jsonl"
    results = read(kept)
    # What rows share is made anew each time: a run of other code is nothing to compare with.
    with tempfile.TemporaryDirectory(dir=work, prefix="world-", ignore_cleanup_errors=True) as folder:
        play_all(wanted, results, World(Path(folder)), kept, asked.again, asked.minutes)
    out = asked.out or ROOT / "launchers" / "results" / f"{time.strftime('%Y-%m-%d')}_faults.md"
    out.write_text(page(rows, results, asked.seed))
    broken = [results[row.name] for row in wanted if row.name in results and results[row.name].verdict == "broken"]
    print(f"\n{out}: {summary(rows, results)}")
    for result in broken:
        print(f"BROKEN {result.name}: {result.said}")
    return 1 if broken else 0


def play_all(
    wanted: list[Row], results: dict[str, Result], world: World, kept: Path, again: bool, minutes: float
) -> None:
    """Plays those that have no result yet, or a bad one, and keeps each result at once."""
    began = time.monotonic()
    for number, row in enumerate(wanted, start=1):
        if row.name in results and results[row.name].verdict == "held" and not again:
            continue
        if minutes and time.monotonic() - began > 60 * minutes:
            return
        result = results[row.name] = play(row, world)
        with kept.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(result.as_json()) + "\n")
        told = f": {result.said}" if result.verdict != "held" else ""
        print(f"{number}/{len(wanted)} {result.verdict:<8} {result.seconds:6.1f} s  {row.name}{told[:300]}", flush=True)


def read(kept: Path) -> dict[str, Result]:
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    return {found["name"]: Result(**found) for found in map(json.loads, lines)}


def summary(rows: list[Row], results: dict[str, Result]) -> str:
    verdicts = [results[row.name].verdict if row.name in results else "not run" for row in rows]
    return f"{len(rows)} rows: " + ", ".join(
        f"{verdicts.count(verdict)} {words}"
        for verdict, words in {
            "held": "held",
            "broken": "broken",
            "not here": "not playable on this machine",
            "not run": "not run",
        }.items()
        if verdict in verdicts
    )


def page(rows: list[Row], results: dict[str, Result], seed: int) -> str:
    """The results as Markdown."""
    seconds = sum(result.seconds for result in results.values())
    commits = ", ".join(sorted({result.commit for result in results.values()} - {""}))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    lines = [
        "# Faults, and what held",
        "",
        f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} CPU cores ({platform.machine()}), no GPU; Python "
        f"{platform.python_version()}, {packages}; commit {commits}. Times are of a machine that other work shared.",
        "",
        f"    make faults FAULTS_SEED={seed}",
        "",
        f"{summary(rows, results)}; {seconds / 60:.0f} minutes in all. Written by the suite "
        "([tests/faults/](../../tests/README.md)), which also says how a fault is injected. After every row, beside what "
        "the row says: nothing foreign is changed or gone, no process and no shared memory is left. *control*: without what "
        "would catch the fault, or with a doctored run; it holds when the check breaks.",
        "",
        "| row | injected | when | must hold | result | s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = results.get(row.name)
        if result is None:
            told, took = "not run", ""
        else:
            told = f"{result.verdict}: {short(result.said)}" if result.said else result.verdict
            took = f"{result.seconds:.0f}"
        cells = (f"`{row.name}`", row.what, row.when, row.holds, told, took)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def short(text: str) -> str:
    """What a row said, without the folders of this machine."""
    text = re.sub(r"/[^\s:'`]*/(?=[^/\s:'`]+)", "…/", " ".join(text.split()))
    return text if len(text) < 200 else text[:200] + " …"


def version(name: str) -> str:
    from importlib.metadata import version as found

    return found(name)


if __name__ == "__main__":
    sys.exit(main())
