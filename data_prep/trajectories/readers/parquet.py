"""Rows of a parquet file, a few at a time; a damaged row group costs its own rows and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.trajectories.readers.types import Location, RawRecord, Reason, Rejected

# pyarrow's own errors derive from these or from ArrowException; a damaged page can also ask for absurd memory.
_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError, TypeError)
_ROWS = 16


def parquet_records(path: Path, name: str, limit: int, first: Location | None = None) -> Iterator[RawRecord]:
    """The rows as dictionaries, row group by row group."""
    start = Location(name, "parquet", "none", 0, 0)
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
    except _DAMAGE as error:
        yield _reject(start, "damaged file", f"{_one_line(error)}; copy the file again")
        return
    with file:
        if not file.metadata.num_rows:
            yield _reject(start, "empty file", "no row in it")
            return
        begin = first or start
        for group in range(begin.offset, file.num_row_groups):
            row = 0
            try:
                for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], use_threads=False):
                    for record in _rows(batch, start._replace(record=row, offset=group), limit):
                        if (group, record.location.record) >= (begin.offset, begin.record):
                            yield record
                    row += batch.num_rows
            except _DAMAGE as error:
                at = start._replace(record=row, offset=group)
                yield _reject(at, "damaged file", f"row group {group}: {_one_line(error)}; copy the file again")


def _rows(batch: pa.RecordBatch, at: Location, limit: int) -> Iterator[RawRecord]:
    try:
        rows = batch.to_pylist()
    except _DAMAGE:
        rows = None
    for index in range(batch.num_rows):
        here = at._replace(record=at.record + index)
        one = batch.slice(index, 1)
        if batch.nbytes > limit and one.nbytes > limit:
            yield _reject(here, "too large", f"{one.nbytes:,} bytes, the limit is {limit:,}; raise max_record_bytes")
            continue
        try:
            row: dict[str, Any] = rows[index] if rows is not None else one.to_pylist()[0]
        except UnicodeDecodeError as error:
            yield _reject(here, "undecodable bytes", f"{_one_line(error)}; write the column as UTF-8")
        except _DAMAGE as error:
            yield _reject(here, "wrong types", _one_line(error))
        else:
            yield RawRecord(here, row)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _reject(at: Location, reason: Reason, detail: str) -> RawRecord:
    return RawRecord(at, Rejected(at, reason, detail))
