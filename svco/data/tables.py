"""Tables that others wrote, a row at a time: JSON, JSON lines, CSV, parquet, arrow. The only door to pyarrow."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..basics.errors import BadSample, UserError
from ..basics.strict_json import MOST_ITEM, json_items, parse_json

_ROWS = 64
"""Rows of a table that are in memory at a time: they may hold pictures."""


@dataclass(frozen=True)
class Stored:
    """A picture that stands in a parquet or arrow file, and stays there until it is asked for."""

    path: Path
    """The file."""
    part: int
    """The row group, or record batch."""
    row: int
    """In that part."""
    column: str
    """Its name."""

    def read(self) -> bytes:
        """Its bytes; BadSample if the file cannot be read any more. Pictures are asked for in the file's order, more or less:
        the part that was read last is kept."""
        try:
            found = _column(self.path, self.part, self.column)[self.row].as_py()
        except (OSError, ValueError, LookupError) as error:  # pyarrow's own errors are ValueErrors
            raise BadSample("undecodable-image", f"{self.path} cannot be read: {error}") from None
        return found["bytes"] if isinstance(found, dict) else found


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


def rows(path: Path, *, by_reference: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of a table: a file of JSON lines, a JSON list, CSV, TSV, parquet or arrow, or all of those in a folder.

    A folder that ``datasets`` saved is read split by split. ``by_reference``: pictures of parquet and arrow come as
    :class:`Stored`. UserError for a file of another kind, a damaged one, and for a folder without any.
    """
    files = [path]
    if path.is_dir():
        files = tables(path)
        if not files:
            raise UserError(f"{path} holds no table: none of its files ends in {', '.join(READERS)}.")
    for file in files:
        if file.suffix not in READERS:
            raise UserError(f"{file} is no table that is read here; those end in {', '.join(READERS)}.")
        reader = partial(_arrow, by_reference=by_reference) if file.suffix in _ARROW else READERS[file.suffix]
        for number, row in reader(file):
            if not isinstance(row, dict):
                raise UserError(f"{file}, row {number} is not an object.")
            yield f"{file}, row {number}", row


def tables(folder: Path) -> list[Path]:
    """The files below ``folder`` that :func:`rows` reads, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix in READERS and file.name not in _NOT_ROWS)


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


def file_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, what it holds) of each line of JSON that is not blank, in the memory of one line. Only ``\\n`` ends a line,
    and a byte-order mark is none of it. UserError for what cannot be read or is no JSON."""
    try:
        with path.open("rb") as stream:
            read = 0
            for number, line in enumerate(iter(lambda: stream.readline(MOST_ITEM + 1), b""), 1):
                if len(line) > MOST_ITEM:
                    raise UserError(f"{path}, line {number} has more than {MOST_ITEM:,} bytes.")
                text = _decoded(path, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, read)
                read += len(line)
                if text.strip():
                    yield number, _parsed(path, number, text)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def _decoded(path: Path, line: bytes, read: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        place = read + error.start
        raise UserError(
            f"{path} is not UTF-8 text: byte {place} is {error.object[error.start]:#04x}. Save it as UTF-8."
        ) from None


def _parsed(path: Path, number: int, text: str) -> Any:
    if number == 1 and text.lstrip().startswith("["):
        raise UserError(
            f"{path} holds a JSON list; records are JSON lines, one object a line. If it is the S-VCO authors' release, its "
            "format is mvc-json; of a list of records, jq -c '.[]' makes lines."
        )
    try:
        return parse_json(text)
    except ValueError as error:
        several = " (an object that runs over several lines? jq -c . makes one of it)" if text.strip() == "{" else ""
        raise UserError(f"{path}, line {number} is not JSON: {error}{several}") from None


def _arrow(path: Path, by_reference: bool = False) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        for part, start, batch in _batches(path):
            found = _referring(path, part, start, batch) if by_reference else batch.to_pylist()
            yield from enumerate(found, number)
            number += len(found)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UserError(f"{path} cannot be read: {error} Fetch it again (a clone needs Git LFS).") from None


def _batches(path: Path) -> Iterator[tuple[int, int, Any]]:
    """(row group or record batch, row in it, record batch of at most ``_ROWS`` rows from there on)."""
    pyarrow = _pyarrow(path)
    if path.suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(str(path)) as table:
            for part in range(table.num_row_groups):
                start = 0
                for batch in table.iter_batches(batch_size=_ROWS, row_groups=[part]):
                    yield part, start, batch
                    start += batch.num_rows
        return
    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as table:
        for part, batch in enumerate(table):
            for start in range(0, batch.num_rows, _ROWS):
                yield part, start, batch.slice(start, _ROWS)


def _referring(path: Path, part: int, start: int, batch: Any) -> list[dict[str, Any]]:
    """The rows of ``batch`` with ``Stored`` for pictures: bytes, or the ``{bytes, path}`` of ``datasets``; of such a one without
    bytes its path, or None."""
    types = _pyarrow(path).types
    found: list[dict[str, Any]] = [{} for _ in range(batch.num_rows)]
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        inner = (
            {field.name: part for field, part in zip(column.type, column.flatten())}
            if types.is_struct(column.type)
            else {}
        )
        if "bytes" in inner:
            here = inner["bytes"].is_valid().to_pylist()
            beside = inner["path"].to_pylist() if "path" in inner else [None] * len(here)
        elif types.is_binary(column.type) or types.is_large_binary(column.type):
            here, beside = column.is_valid().to_pylist(), [None] * len(column)
        else:
            here, beside = [False] * len(column), column.to_pylist()
        for row, (stored, other) in enumerate(zip(here, beside, strict=True)):
            found[row][name] = Stored(path, part, start + row, name) if stored else other
    return found


@lru_cache(maxsize=2)
def _column(path: Path, part: int, column: str) -> Any:
    pyarrow = _pyarrow(path)
    if path.suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(str(path)) as table:
            return table.read_row_group(part, columns=[column]).column(0)
    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as table:
        return table.read_all().column(column).chunk(part)  # mapped: nothing is read but what is looked at


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow: pip install pyarrow.") from None
    return pyarrow


READERS: dict[str, Callable[..., Iterator[tuple[str | int, Any]]]] = {
    ".jsonl": file_lines,
    ".json": items,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": _arrow,
    ".arrow": _arrow,
}
"""Ending of a file's name -> what reads it."""
_ARROW = (".parquet", ".arrow")
_NOT_ROWS = ("dataset_dict.json", "dataset_info.json", "state.json")
"""What ``datasets`` writes beside its shards."""
