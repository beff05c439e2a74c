"""Cut files into records, one at a time, without looking into them. Memory holds one record, whatever the file's size.

What is read of a folder: files ending in .json, .jsonl, .ndjson, .traj (each also with .gz, .xz or .zst) and .parquet,
in the order of their paths; hidden files and folders and everything else (logs, settings, patches) are not records of
runs and are passed over. A file given by itself is read whatever its name.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.trajectories.readers.types import Location, RawRecord, Reason, Rejected
from data_prep.trajectories.run import TrajectoryError

_TEXT_ENDINGS = (".json", ".jsonl", ".ndjson", ".traj")
_MAGIC = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst", b"PAR1": "parquet"}
_ENDINGS = {".gz": "gz", ".xz": "xz", ".zst": "zst", ".parquet": "parquet"}
_CHUNK = 1 << 18
_ROWS = 16
# What reading a damaged or vanished file raises; a damaged page of a table can also ask for absurd memory.
_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, pa.ArrowException)
_TABLE_DAMAGE = (*_DAMAGE, ValueError, MemoryError, OverflowError, TypeError)


class Span(NamedTuple):
    """A piece of a file that can be read by itself; a list in JSON.

    Attributes:
        file: as in :class:`Location`.
        start, stop: bytes of a plain file of lines, row groups of a table; None is the end.
        record: number of the first record.
    """

    file: str
    start: int = 0
    stop: int | None = None
    record: int = 0


def list_files(source: str | Path) -> Iterator[tuple[Path, str]]:
    """The files of a source with the names that locations use, in a fixed order; raises TrajectoryError."""
    source = Path(source)
    if source.is_file():
        yield source, source.name
        return
    if not source.is_dir():
        raise TrajectoryError(f"{source} does not exist; give the path of a file or folder of runs")
    found = False
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if _is_known(name) and path.is_file():
                found = True
                yield path, path.relative_to(source).as_posix()
    if not found:
        raise TrajectoryError(
            f"{source} holds no file of runs; expected names ending in .json, .jsonl, .traj or .parquet, "
            "text also with .gz, .xz or .zst: rename the files, or give the folder that holds them"
        )


def _is_known(name: str) -> bool:
    stem, ending = os.path.splitext(name.lower())
    if ending in (".gz", ".xz", ".zst"):
        ending = os.path.splitext(stem)[1]
    return not name.startswith(".") and ending in (*_TEXT_ENDINGS, ".parquet")


def file_spans(path: Path, name: str, size: int) -> Iterator[Span]:
    """The file in pieces of about ``size`` bytes: plain lines and row groups; what cannot be cut is one piece."""
    whole = Span(name)
    try:
        packing = _packing(path)
        if packing == "parquet":
            yield from _group_spans(whole, pq.read_metadata(path), size)
        elif packing == "none" and path.stat().st_size > size and not _is_document(path, _first_line(path)):
            yield from _line_spans(path, whole, size)
        else:
            yield whole
    except _TABLE_DAMAGE:  # told when it is read
        yield whole


def _group_spans(span: Span, table: pq.FileMetaData, size: int) -> Iterator[Span]:
    held = rows = 0
    for group in range(table.num_row_groups):
        held += table.row_group(group).total_byte_size
        rows += table.row_group(group).num_rows
        if held >= size and group + 1 < table.num_row_groups:
            yield span._replace(stop=group + 1)
            span, held = span._replace(start=group + 1, record=rows), 0
    yield span


def _line_spans(path: Path, span: Span, size: int) -> Iterator[Span]:
    """Cut at the first line that starts at or after every multiple of ``size``; counts lines on the way."""
    line = offset = 0
    target = size
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            while target <= offset + len(block):
                end = block.find(b"\n", max(0, target - 1 - offset))
                if end < 0:
                    break
                cut = offset + end + 1
                yield span._replace(stop=cut)
                span = span._replace(start=cut, record=line + block.count(b"\n", 0, end + 1))
                target = (cut // size + 1) * size
            line += block.count(b"\n")
            offset += len(block)
    if offset > span.start:
        yield span


def span_records(path: Path, span: Span, limit: int) -> Iterator[RawRecord]:
    """The records of a piece of a file, ``Span(name)`` for all of it; bad data comes as :class:`Rejected`, never as an
    exception."""
    at = Location(span.file, span.record)
    try:
        packing = _packing(path)
        if packing == "parquet":
            yield from _table_records(path, span, limit)
            return
        with _open(path, packing) as file:
            yield from _text_records(file, path, span, limit)
    except PermissionError as error:
        yield _reject(at, "unreadable file", f"{error.strerror}; change its permissions")
    except _DAMAGE as error:
        yield _damaged(at, error)


def _packing(path: Path) -> str:
    """``gz``, ``xz``, ``zst``, ``parquet`` or ``none``, by the first bytes; a file whose name promises one and whose
    bytes do not is still taken at its name, so that its damage is reported as such."""
    with path.open("rb") as file:
        start = file.read(6)
    found = next((packing for magic, packing in _MAGIC.items() if start.startswith(magic)), None)
    return found or (_ENDINGS.get(path.suffix.lower(), "none") if start else "none")


def _open(path: Path, packing: str) -> IO[bytes]:
    if packing == "gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if packing == "xz":
        return cast("IO[bytes]", lzma.open(path, "rb"))
    if packing == "zst":
        return cast("IO[bytes]", io.BufferedReader(pa.input_stream(str(path), compression="zstd"), _CHUNK))
    return path.open("rb", buffering=_CHUNK)


def _text_records(file: IO[bytes], path: Path, span: Span, limit: int) -> Iterator[RawRecord]:
    names = _names_of(path, span.file)
    number, offset = span.record, span.start
    if offset:
        file.seek(offset)
    while span.stop is None or offset < span.stop:
        at = Location(span.file, number)
        try:
            line = file.readline(limit + 1)
            if offset == 0:
                if not line:
                    yield _reject(at, "empty file", "no byte in it; write the run again")
                    return
                if _is_document(path, line):
                    line += file.read(max(0, limit + 1 - len(line)))
                    large = len(line) > limit
                    yield _too_large(at, f"over {limit:,} bytes") if large else RawRecord(at, line, names)
                    return
            size, last = len(line), line
            while size > limit and last and not last.endswith(b"\n"):
                last = file.readline(_CHUNK)
                size += len(last)
        except _DAMAGE as error:
            yield _damaged(at, error)
            return
        if not size:
            return
        if size > limit:
            yield _too_large(at, f"{size:,} bytes, the limit is {limit:,}")
        elif line.strip():
            yield RawRecord(at, line, names)
        number += 1
        offset += size


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(1 << 20)


def _is_document(path: Path, first_line: bytes) -> bool:
    """Whether the whole file is one JSON value: its first line is not one by itself, and its name does not say lines.

    A file with a single line is the same either way.
    """
    endings = [ending.lower() for ending in path.suffixes if ending.lower() not in _ENDINGS]
    if endings and endings[-1] in (".jsonl", ".ndjson"):
        return False
    text = first_line.strip()
    return not (text.startswith(b"{") and text.endswith(b"}"))


def _names_of(path: Path, name: str) -> tuple[str, ...]:
    stem = path.name
    for ending in (".gz", ".xz", ".zst", *_TEXT_ENDINGS, ".traj"):
        stem = stem.removesuffix(ending)
    return stem, *reversed(Path(name).parts[:-1])


def _table_records(path: Path, span: Span, limit: int) -> Iterator[RawRecord]:
    """Rows as dictionaries, a few at a time; a damaged row group costs its own rows and no others."""
    number = span.record
    try:
        table = pq.ParquetFile(path, pre_buffer=False)
    except _TABLE_DAMAGE as error:
        yield _damaged(Location(span.file), error)
        return
    with table:
        if not table.metadata.num_rows:
            yield _reject(Location(span.file), "empty file", "no row in it")
        for group in range(span.start, table.num_row_groups if span.stop is None else span.stop):
            begin = number
            number += table.metadata.row_group(group).num_rows
            try:
                for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group], use_threads=False):
                    yield from _rows(batch, Location(span.file, begin), limit)
                    begin += batch.num_rows
            except _TABLE_DAMAGE as error:
                yield _damaged(Location(span.file, begin), error, f"row group {group}: ")


def _rows(batch: pa.RecordBatch, at: Location, limit: int) -> Iterator[RawRecord]:
    try:
        rows = batch.to_pylist()
    except _TABLE_DAMAGE:
        rows = None
    for index in range(batch.num_rows):
        here = at._replace(record=at.record + index)
        one = batch.slice(index, 1)
        if batch.nbytes > limit and one.nbytes > limit:
            yield _too_large(here, f"{one.nbytes:,} bytes, the limit is {limit:,}")
            continue
        try:
            row = rows[index] if rows is not None else one.to_pylist()[0]
        except UnicodeDecodeError as error:
            yield _reject(here, "undecodable bytes", f"{_one_line(error)}; write the column as UTF-8")
        except _TABLE_DAMAGE as error:
            yield _reject(here, "wrong types", _one_line(error))
        else:
            yield RawRecord(here, row)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _damaged(at: Location, error: BaseException, where: str = "") -> RawRecord:
    return _reject(at, "damaged file", f"{where}{type(error).__name__}: {_one_line(error)}; copy the file again")


def _too_large(at: Location, found: str) -> RawRecord:
    return _reject(at, "too large", f"{found}; raise max_record_bytes")


def _reject(at: Location, reason: Reason, detail: str) -> RawRecord:
    return RawRecord(at, Rejected(at, reason, detail))
