"""The files of releases, an item at a time: JSON, JSON lines, CSV, parquet, arrow."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....basics.errors import UserError
from ....basics.strict_json import json_items
from ..records import file_lines

_ROWS = 64
"""Rows of a table that are in memory at a time: they may hold pictures."""


def items(path: Path) -> Iterator[tuple[str | int, Any]]:
    """(name or number, item) of a JSON object or list; UserError that names the file."""
    try:
        yield from json_items(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise UserError(f"{path} is not the JSON it should be: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of a table: a file of JSON lines, a JSON list, CSV, TSV, parquet or arrow, or all of those in a folder.

    A folder that ``datasets`` saved is read split by split. UserError for a file of another kind and for a folder without any.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _READERS and file.name not in _NOT_ROWS)
        if not files:
            raise UserError(f"{path} holds no table: none of its files ends in {', '.join(_READERS)}.")
    for file in files:
        if file.suffix not in _READERS:
            raise UserError(f"{file} is no table that is read here; those end in {', '.join(_READERS)}.")
        for number, row in _READERS[file.suffix](file):
            if not isinstance(row, dict):
                raise UserError(f"{file}, row {number} is not an object.")
            yield f"{file}, row {number}", row


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, {column: text}) of a CSV or TSV with a head; empty cells are left out. UserError for a row of another length."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"{path}, line {reader.line_num} has more or fewer cells than the head has names.")
                yield reader.line_num, {name: cell for name, cell in row.items() if cell.strip()}
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (csv.Error, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _arrow(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow: pip install pyarrow.") from None
    number = 0
    try:
        if path.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(str(path)) as table:
                for batch in table.iter_batches(batch_size=_ROWS):
                    yield from enumerate(batch.to_pylist(), number)
                    number += batch.num_rows
            return
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as table:
            for batch in table:
                for start in range(0, batch.num_rows, _ROWS):
                    part = batch.slice(start, _ROWS).to_pylist()
                    yield from enumerate(part, number)
                    number += len(part)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UserError(f"{path} cannot be read: {error} Fetch it again (a clone needs Git LFS).") from None


_READERS = {
    ".jsonl": file_lines,
    ".json": items,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": _arrow,
    ".arrow": _arrow,
}
_NOT_ROWS = ("dataset_dict.json", "dataset_info.json", "state.json")
"""What ``datasets`` writes beside its shards."""
