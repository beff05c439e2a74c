"""Tables with a picture, a question and an answer in every row: JSONL by ranges of bytes, Parquet by row groups, CSV.

Own readers: what ``datasets`` reads at once it also gives up at once, and here a damaged line costs only itself.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.errors import ConfigError
from data_prep.common.pipeline import describe_inputs
from data_prep.images.sources.base import Found, Lost, Row, RowRejected, SourceOptions, Span, one_line, row_ranges

NAME = "table"
_ENDINGS = (".jsonl", ".ndjson", ".parquet", ".csv")
# As in ``datasets``' ImageFolder.
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FORM = (
    f"a table ({', '.join(_ENDINGS)}), a folder of tables, or one of pictures with {' or '.join(_METADATA)} (columns "
    "file_name, question, answer)"
)
_PART_BYTES = 64 << 20
_LOOKED_AT = 100
_CHUNK = 1 << 20
_BATCH = 16
_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, TypeError, csv.Error)
# First row, byte (of Parquet: row group) where it begins, number of rows.
Piece = tuple[int, int, int]
Load = Callable[[], dict[str, Any]]


def is_table(path: Path) -> bool:
    """Whether the name says a table that is read here."""
    return path.suffix.lower() in _ENDINGS


def claims(spec: str) -> bool:
    path = Path(spec)
    return path.is_file() or (path.is_dir() and bool(_tables(path)))


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ConfigError for a file that is no readable table, or a folder of pictures with several tables."""
    path = Path(spec)
    if path.is_file():
        if not is_table(path):
            raise ConfigError(f"{spec} is no table that is read here. Fix: convert it to one of {', '.join(_ENDINGS)}.")
        return find_tables(path, [path], options)
    described = [path / name for name in _METADATA if (path / name).is_file()]
    if len(described) > 1:
        names = [table.name for table in described]
        raise ConfigError(f"{spec} has several tables: {names}. Fix: give the path of one of them.")
    return find_tables(path, described or _tables(path), options)


def find_tables(path: Path, tables: list[Path], options: SourceOptions) -> Found:
    """Plan these tables; pictures by path lie in ``options.root``, or in the folder of ``path``."""
    folder = path.parent if path.is_file() else path
    spans: list[Span] = []
    columns: dict[str, None] = {}
    for table in tables:
        name = table.relative_to(folder).as_posix()
        try:
            names, pieces = _planned(table, options)
        except _DAMAGE as error:
            form = "UTF-8 text with one header line" if table.suffix.lower() == ".csv" else "the file"
            raise ConfigError(
                f"{table}: cannot be read ({type(error).__name__}: {one_line(error)}). Fix: copy or write {form} again."
            ) from None
        columns.update(dict.fromkeys(names))
        common = {"file": name, "prefix": f"{name}:" if len(tables) > 1 else "", "path": str(table.resolve()),
                  "max_record_bytes": options.max_record_bytes}  # fmt: skip
        spans += [{**common, "row": row, "offset": at, "count": count} for row, at, count in pieces if count]
    if not spans:
        raise ConfigError(f"{path} holds no row. Fix: give a table with a header and rows.")
    return Found(
        name=path.resolve().name,
        columns=tuple(columns),
        spans=spans,
        keys=lambda: chain.from_iterable(map(_keys, spans)),
        root=str(Path(options.root or folder).resolve()),
        inputs=describe_inputs(tables),
    )


def rows(span: Span) -> Iterator[Row | Lost]:
    """The rows of a span, numbered within the file from 0."""
    path, given = Path(span["path"]), 0
    read = {".parquet": _parquet_rows, ".csv": _csv_rows}.get(path.suffix.lower(), _line_rows)
    trouble = "fewer rows than when it was first read"
    try:
        for key, load in zip(_keys(span), read(path, span), strict=False):
            yield Row(key, {"file": span["file"], "row": span["row"] + given}, load)
            given += 1
    except _DAMAGE as error:
        trouble = one_line(error)
    if given < span["count"]:
        yield Lost(span["count"] - given, "damaged file", f"{span['file']}: {trouble}")


def _keys(span: Span) -> Iterator[str]:
    return (f"{span['prefix']}{row}" for row in range(span["row"], span["row"] + span["count"]))


def _tables(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and is_table(path) and path.name[0] != "."]


def _planned(path: Path, options: SourceOptions) -> tuple[list[str], list[Piece]]:
    """Names of the columns (of JSONL, those of its first rows), and the file in pieces."""
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path, pre_buffer=False) as file:
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            return file.schema_arrow.names, list(
                zip(accumulate([0, *counts[:-1]]), range(len(counts)), counts, strict=True)
            )
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names, count = list(reader.fieldnames or ()), sum(1 for _ in reader)
        return names, [(part["start"], 0, part["stop"] - part["start"]) for part in row_ranges(count, options)]
    names, pieces, row, start_row, start = {}, [], 0, 0, 0
    for offset, size, line in _lines(path, 0, options.max_record_bytes):
        if row < _LOOKED_AT:
            with suppress(RowRejected):
                names.update(dict.fromkeys(_record(line, size, options.max_record_bytes)))
        if row - start_row >= options.part_rows or offset - start >= _PART_BYTES:
            pieces.append((start_row, start, row - start_row))
            start_row, start = row, offset
        row += 1
    return list(names), [*pieces, (start_row, start, row - start_row)]


def _line_rows(path: Path, span: Span) -> Iterator[Load]:
    limit = span["max_record_bytes"]
    return (partial(_record, line, size, limit) for _, size, line in _lines(path, span["offset"], limit))


def _lines(path: Path, offset: int, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """Offset, size and bytes of the lines that are not blank; of one over the limit only the beginning."""
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(limit + 1):
            size, rest = len(line), line
            while size > limit and rest and not rest.endswith(b"\n"):
                rest = file.readline(_CHUNK)
                size += len(rest)
            if line.strip():
                yield offset, size, line
            offset += size


def _record(line: bytes, size: int, limit: int) -> dict[str, Any]:
    if size > limit:
        raise RowRejected("record too large", f"{size:,} bytes, the limit is {limit:,} (max_record_bytes)")
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RowRejected("not JSON", f"{type(error).__name__}: {one_line(error)}") from None
    if not isinstance(record, dict):
        raise RowRejected("not JSON", f"a {type(record).__name__}, not an object")
    return record


def _csv_rows(path: Path, span: Span) -> Iterator[Load]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        # A line end may stand inside quotes, so rows are counted from the start.
        for row in islice(csv.DictReader(stream), span["row"], None):
            row.pop(None, None)  # type: ignore[call-overload]
            yield partial(dict, row)


def _parquet_rows(path: Path, span: Span) -> Iterator[Load]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        # Files of one folder may differ in what they have.
        wanted = [name for name in span["columns"] if name in file.schema_arrow.names]
        how = {"row_groups": [span["offset"]], "columns": wanted, "use_threads": False}
        for batch in file.iter_batches(batch_size=_BATCH, **how):
            yield from (partial(_table_row, batch, index) for index in range(batch.num_rows))


def _table_row(batch: pa.RecordBatch, index: int) -> dict[str, Any]:
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except _DAMAGE as error:
        reason = "undecodable text" if isinstance(error, UnicodeDecodeError) else "unreadable row"
        raise RowRejected(reason, one_line(error)) from None
