"""Rows of table files: JSONL by ranges of bytes, Parquet by row groups, CSV whole."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.images.errors import ImagePairError
from data_prep.images.sources.types import Lost, Row, RowRejected, Span
from data_prep.trajectories.readers.json_text import loads
from data_prep.trajectories.readers.types import UnusableError

ENDINGS = (".jsonl", ".ndjson", ".parquet", ".csv")
_PART_BYTES = 64 << 20
_LOOKED_AT = 100
_CHUNK = 1 << 20
_BATCH = 16
_DAMAGED = "damaged file"


def is_table(path: Path) -> bool:
    """Whether the name says a table that is read here."""
    return path.suffix.lower() in ENDINGS


def columns_of(path: Path, max_record_bytes: int) -> list[str]:
    """Names of the columns; of JSONL, those of its first rows. Raises ImagePairError for an unreadable file."""
    with _mendable(path):
        if path.suffix.lower() == ".parquet":
            return list(_parquet(path).schema_arrow.names)
        if path.suffix.lower() == ".csv":
            with _open_csv(path) as stream:
                return list(next(csv.reader(stream), []))
        names: dict[str, None] = {}
        for line in islice(_lines(path, 0, 0, max_record_bytes), _LOOKED_AT):
            try:
                names.update(dict.fromkeys(_object(line[2])))
            except RowRejected:
                continue
        return list(names)


def spans_of(path: Path, file: str, prefix: str, part_rows: int, max_record_bytes: int) -> list[Span]:
    """The file in pieces, each ``{"file", "prefix", "path", "row", "offset", "count"}``; raises ImagePairError.

    ``prefix`` stands before a row's number in its key; ``row`` is the first one's number, ``offset`` its byte in JSONL
    and its row group in Parquet.
    """
    with _mendable(path):
        pieces = {".parquet": _parquet_pieces, ".csv": _csv_pieces}.get(path.suffix.lower(), _line_pieces)
        cut = pieces(path, part_rows, max_record_bytes)
        return [
            {"file": file, "prefix": prefix, "path": str(path), "row": row, "offset": offset, "count": count}
            for row, offset, count in cut
            if count > 0
        ]


def keys_of(span: Span) -> Iterator[str]:
    """The keys of the rows of a span."""
    return (f"{span['prefix']}{row}" for row in range(span["row"], span["row"] + span["count"]))


def file_rows(span: Span, max_record_bytes: int) -> Iterator[Row | Lost]:
    """The rows of a span, numbered within the file from 0."""
    path = Path(span["path"])
    read = {".parquet": _parquet_rows, ".csv": _csv_rows}.get(path.suffix.lower(), _line_rows)
    given = 0
    try:
        for number, load in islice(read(path, span, max_record_bytes), span["count"]):
            yield Row(f"{span['prefix']}{number}", {"file": span["file"], "row": number}, load)
            given += 1
    except _damage() as error:
        yield Lost(span["count"] - given, _DAMAGED, f"{span['file']}: {_one_line(error)}")
        return
    if given < span["count"]:
        yield Lost(span["count"] - given, _DAMAGED, f"{span['file']}: fewer rows than when it was first read")


# JSONL


def _line_pieces(path: Path, part_rows: int, max_record_bytes: int) -> Iterator[tuple[int, int, int]]:
    row = start_row = start = 0
    for offset, _, _ in _lines(path, 0, 0, max_record_bytes):
        if row - start_row >= part_rows or offset - start >= _PART_BYTES:
            yield start_row, start, row - start_row
            start_row, start = row, offset
        row += 1
    yield start_row, start, row - start_row


def _line_rows(path: Path, span: Span, max_record_bytes: int) -> Iterator[tuple[int, Any]]:
    lines = _lines(path, span["offset"], span["row"], max_record_bytes)
    for number, (_, size, line) in enumerate(islice(lines, span["count"]), span["row"]):
        yield number, partial(_record, line, size, max_record_bytes)


def _lines(path: Path, offset: int, row: int, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """Offset, size and bytes of the lines that are not blank; of one over the limit only the beginning."""
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(limit + 1):
            size = len(line)
            if size > limit:
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = file.readline(_CHUNK)
                    size += len(rest)
            if line.strip():
                yield offset, size, line
            offset += size


def _record(line: bytes, size: int, limit: int) -> dict[str, Any]:
    if size > limit:
        raise RowRejected("record too large", f"{size:,} bytes, the limit is {limit:,} (max_record_bytes)")
    return _object(line)


def _object(line: bytes) -> dict[str, Any]:
    try:
        record = loads(line)
    except UnusableError as error:
        raise RowRejected("not JSON", f"{error.reason}: {error.detail}"[:200]) from None
    if not isinstance(record, dict):
        raise RowRejected("not JSON", f"a {type(record).__name__}, not an object")
    return record


# CSV


def _open_csv(path: Path) -> io.TextIOWrapper:
    return path.open(encoding="utf-8-sig", newline="")


def _csv_pieces(path: Path, part_rows: int, max_record_bytes: int) -> Iterator[tuple[int, int, int]]:
    with _open_csv(path) as stream:
        rows = sum(1 for _ in _records(stream))
    for start in range(0, rows, part_rows):
        yield start, 0, min(part_rows, rows - start)


def _csv_rows(path: Path, span: Span, max_record_bytes: int) -> Iterator[tuple[int, Any]]:
    with _open_csv(path) as stream:
        rows = _records(stream)
        # A line end may stand inside quotes, so rows are counted from the start.
        for number, row in enumerate(islice(rows, span["row"], span["row"] + span["count"]), span["row"]):
            yield number, partial(dict, row)


def _records(stream: io.TextIOWrapper) -> Iterator[dict[str, Any]]:
    for row in csv.DictReader(stream):
        row.pop(None, None)  # type: ignore[call-overload]
        yield row


# Parquet


def _parquet(path: Path):
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, pre_buffer=False)


def _parquet_pieces(path: Path, part_rows: int, max_record_bytes: int) -> Iterator[tuple[int, int, int]]:
    row = 0
    with _parquet(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            yield row, group, count
            row += count


def _parquet_rows(path: Path, span: Span, max_record_bytes: int) -> Iterator[tuple[int, Any]]:
    number = span["row"]
    with _parquet(path) as file:
        how = {"row_groups": [span["offset"]], "columns": _there(file, span["columns"]), "use_threads": False}
        for batch in file.iter_batches(batch_size=_BATCH, **how):
            for index in range(batch.num_rows):
                yield number, partial(_table_row, batch, index)
                number += 1


def _there(file: Any, wanted: list[str]) -> list[str]:
    """Files of one folder may differ in what they have."""
    names = file.schema_arrow.names
    return [name for name in wanted if name in names]


def _table_row(batch: Any, index: int) -> dict[str, Any]:
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        raise RowRejected("undecodable text", _one_line(error)) from None
    except _damage() as error:
        raise RowRejected("unreadable row", _one_line(error)) from None


# Trouble


def _damage() -> tuple[type[BaseException], ...]:
    import pyarrow as pa

    return (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, TypeError, csv.Error)


class _mendable:
    """Turns trouble with a whole file into an ImagePairError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ImagePairError) or not isinstance(error, _damage()):
            return
        form = "UTF-8 text with one header line" if self.path.suffix.lower() == ".csv" else "the file"
        what = f"{type(error).__name__}: {_one_line(error)}"
        raise ImagePairError(f"{self.path}: cannot be read ({what}). Fix: copy or write {form} again.") from None


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]
