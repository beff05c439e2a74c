"""Tables with a picture, a question and an answer in every row: JSONL by ranges of bytes, Parquet by row groups, CSV.

Own readers: what ``datasets`` reads at once it also gives up at once, and here a damaged line costs only itself.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.errors import ConfigError
from data_prep.common.pipeline import describe_inputs
from data_prep.images.sources.base import Found, Row, SourceOptions, Span, row_ranges
from data_prep.images.store import one_line

NAME = "table"
_ENDINGS = (".jsonl", ".ndjson", ".parquet", ".csv")
# As in ``datasets``' ImageFolder.
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FORM = (
    f"a table ({', '.join(_ENDINGS)}), a folder of tables, or one of pictures with {' or '.join(_METADATA)} (columns "
    "file_name, question, answer)"
)
_LOOKED_AT = 100
_BATCH = 16
_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, TypeError, csv.Error)
# First row, byte (of Parquet: row group) where it begins, number of rows.
Piece = tuple[int, int, int]
Columns = Callable[[], dict[str, Any]]


def is_table(path: Path) -> bool:
    """Whether the name says a table that is read here."""
    return path.suffix.lower() in _ENDINGS


def claims(spec: str) -> bool:
    path = Path(spec)
    return path.is_file() or (path.is_dir() and bool(_tables(path)))


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ConfigError for a file that is no readable table, or a folder of pictures with several tables."""
    path = Path(spec)
    described = [path / name for name in _METADATA if (path / name).is_file()]
    if len(described) > 1:
        names = [table.name for table in described]
        raise ConfigError(f"{spec} has several tables: {names}. Fix: give the path of one of them.")
    if path.is_file() and not is_table(path):
        raise ConfigError(f"{spec} is no table that is read here. Fix: convert it to one of {', '.join(_ENDINGS)}.")
    return find_tables(path, [path] if path.is_file() else described or _tables(path), options)


def find_tables(path: Path, tables: list[Path], options: SourceOptions) -> Found:
    """Plan these tables; pictures by path lie in the folder of ``path``."""
    folder = path.parent if path.is_file() else path
    spans: list[Span] = []
    columns: dict[str, None] = {}
    for table in tables:
        name = table.relative_to(folder).as_posix()
        try:
            names, pieces = _planned(table, options)
        except _DAMAGE as error:
            raise ConfigError(
                f"{table}: cannot be read ({one_line(error)}). Fix: write it again; CSV as UTF-8 text with one header "
                "line."
            ) from None
        columns.update(dict.fromkeys(names))
        prefix, inputs = f"{name}:" if len(tables) > 1 else "", describe_inputs([table])
        common = {"file": name, "prefix": prefix, "path": str(table.resolve()), "inputs": inputs}
        spans += [{**common, "row": row, "offset": at, "count": count} for row, at, count in pieces if count]
    if not spans:
        raise ConfigError(f"{path} holds no row. Fix: give a table with a header and rows.")
    return Found(
        name=path.resolve().name,
        columns=tuple(columns),
        spans=spans,
        keys=lambda: (key for span in spans for _, key in _keys(span)),
        root=str(folder),
    )


def rows(span: Span) -> Iterator[Row]:
    """The rows of a span, numbered within the file from 0; those behind a damage cannot be loaded."""
    path = Path(span["path"])
    read = {".parquet": _parquet_rows, ".csv": _csv_rows}.get(path.suffix.lower(), _line_rows)(path, span)
    for row, key in _keys(span):
        try:
            columns = next(read)
        except (StopIteration, *_DAMAGE) as error:
            columns = partial(_missing, one_line(error))
        yield Row(key, {"file": span["file"], "row": row}, columns)


def _missing(why: str) -> dict[str, Any]:
    raise ValueError(f"the file is damaged: {why}")


def _keys(span: Span) -> Iterator[tuple[int, str]]:
    return ((row, f"{span['prefix']}{row}") for row in range(span["row"], span["row"] + span["count"]))


def _tables(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and is_table(path) and path.name[0] != "."]


def _planned(path: Path, options: SourceOptions) -> tuple[list[str], list[Piece]]:
    """Names of the columns (of JSONL, those of its first rows), and the file in pieces."""
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path, pre_buffer=False) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = accumulate([0, *counts[:-1]])
            return file.schema_arrow.names, list(zip(starts, range(len(counts)), counts, strict=True))
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names, offsets = list(reader.fieldnames or ()), [0 for _ in reader]
    else:
        offsets = [offset for offset, _ in _lines(path, 0)]
        names = {}
        for _, line in islice(_lines(path, 0), _LOOKED_AT):
            with suppress(ValueError, RecursionError):
                names.update(dict.fromkeys(_record(line)))
    ranges = (part.values() for part in row_ranges(len(offsets), options))
    return list(names), [(start, offsets[start], stop - start) for start, stop in ranges]


def _line_rows(path: Path, span: Span) -> Iterator[Columns]:
    return (partial(_record, line) for _, line in _lines(path, span["offset"]))


def _lines(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their offsets."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.strip():
                yield offset, line
            offset += len(line)


def _record(line: bytes) -> dict[str, Any]:
    record = json.loads(line.decode("utf-8-sig"))
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__}, not an object")
    return record


def _csv_rows(path: Path, span: Span) -> Iterator[Columns]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        # A line end may stand inside quotes, so rows are counted from the start.
        for row in islice(csv.DictReader(stream), span["row"], None):
            yield row.copy


def _parquet_rows(path: Path, span: Span) -> Iterator[Columns]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        # Files of one folder may differ in what they have.
        wanted = [name for name in span["columns"] if name in file.schema_arrow.names]
        how = {"row_groups": [span["offset"]], "columns": wanted, "use_threads": False}
        for batch in file.iter_batches(batch_size=_BATCH, **how):
            yield from (lambda at=at, batch=batch: batch.slice(at, 1).to_pylist()[0] for at in range(batch.num_rows))
