"""Cut files into records, one at a time, without looking into them. Memory holds one record, whatever the file's size.

What is read of a folder: files ending in .json, .jsonl, .ndjson, .traj (each also with .gz, .xz or .zst) and .parquet,
in the order of their paths; hidden files and folders and everything else (logs, settings, patches) are not records of
runs and are passed over. A file of lines gives one record a line, an array one an item; a list of turns, and a session
of events, is one record. A file given by itself is read whatever its name. How a file is packed, its first bytes say.
A link that leads out of the folder is not followed, and no more is unpacked of a file than its records are worth.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.errors import told_by
from contextrl_verl.pairs.files import inside
from data_prep.trajectories.readers.records import (
    MAX_RECORD_BYTES,
    Location,
    RawRecord,
    Rejected,
    UnusableError,
    loads,
    one_run,
)
from data_prep.trajectories.run import TrajectoryError

_ENDINGS = re.compile(r"(?:\.(?:jsonl?|ndjson|traj|parquet))+(?:\.(?:gz|xz|zst))?$", re.I)
_LINES = re.compile(r"\.(?:jsonl|ndjson)(?:\.(?:gz|xz|zst))?$", re.I)
_SESSION = (b'"sessionId"', b'"leafUuid"', b'"file-history-snapshot"', b'"session_meta"')
_CHUNK = 1 << 18
_ROWS = 16
# A few kilobytes unpack to terabytes of blank lines, or to one line: so many of them, or so long a one, end a file.
_BLANK_LINES = 1 << 20
_LONGEST_LINE = 1 << 30

# First bytes, and how the text behind them is opened; a table is no text.
_TABLE, _PLAIN = b"PAR1", b""
_OPEN: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda path: io.BufferedReader(pa.input_stream(str(path), compression="zstd"), _CHUNK),
    _TABLE: pq.ParquetFile,
    _PLAIN: lambda path: path.open("rb", buffering=_CHUNK),
}
# What reading a damaged or vanished file raises; a damaged page of a table can also ask for absurd memory.
_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, pa.ArrowException, ValueError, MemoryError, OverflowError,
           TypeError)  # fmt: skip


class Span(NamedTuple):
    """A piece of a file that can be read by itself, a list in JSON. ``start`` and ``stop`` (None is the end) are bytes
    of a plain file of lines or row groups of a table, ``record`` is the first record's number."""

    file: str
    start: int = 0
    stop: int | None = None
    record: int = 0


def list_files(source: str | Path) -> Iterator[tuple[Path, str]]:
    """The files of a source with the names that locations use, in a fixed order; raises TrajectoryError."""
    source = Path(source)
    if source.is_file():
        yield source.resolve(), source.name
        return
    if not source.is_dir():
        raise TrajectoryError(f"{source} does not exist; give the path of a file or folder of runs")
    names = (path.relative_to(source) for path in source.rglob("*") if _ENDINGS.search(path.name) and path.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not shown:
        raise TrajectoryError(
            f"{source} holds no file of runs; expected names ending in .json, .jsonl, .traj or .parquet, "
            "text also with .gz, .xz or .zst: rename the files, or give the folder that holds them"
        )
    # The files of a folder, then those of the folders in it.
    for name in sorted(shown, key=lambda name: (name.parent.parts, name.name)):
        yield source / name, name.as_posix()


def names_of(file: str) -> tuple[str, ...]:
    """A location's file without its endings, and its folders, the nearest first."""
    path = PurePosixPath(file)
    return _ENDINGS.sub("", path.name), *reversed(path.parent.parts)


def file_spans(path: Path, name: str, size: int) -> Iterator[Span]:
    """The file in pieces of about ``size`` bytes: plain lines and row groups; what cannot be cut is one piece."""
    try:
        packing = _packing(path) if _stays(path, name) else None
        if packing == _TABLE:
            yield from _group_spans(pq.read_metadata(path), Span(name), size)
        elif packing == _PLAIN and path.stat().st_size > size:
            yield from _line_spans(path, Span(name), size)
        else:
            yield Span(name)
    except _DAMAGE:  # told when it is read
        yield Span(name)


def _stays(path: Path, name: str) -> bool:
    """Whether a file of :func:`list_files` lies in the folder that was given."""
    return inside(path.parents[len(PurePosixPath(name).parts) - 1], path.absolute()) is not None


def _packing(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(6)
    return next(magic for magic in _OPEN if start.startswith(magic))


def _group_spans(table: pq.FileMetaData, span: Span, size: int) -> Iterator[Span]:
    held = rows = 0
    for group in range(table.num_row_groups):
        held += table.row_group(group).total_byte_size
        rows += table.row_group(group).num_rows
        if held >= size and group + 1 < table.num_row_groups:
            yield span._replace(stop=group + 1)
            span, held = span._replace(start=group + 1, record=rows), 0
    yield span


def _line_spans(path: Path, span: Span, size: int) -> Iterator[Span]:
    offset = line = 0
    with path.open("rb") as file:
        while piece := file.readline(1 << 20):
            if not offset and _is_document(span.file, piece):
                break
            offset += len(piece)
            line += piece.endswith(b"\n")
            if piece.endswith(b"\n") and offset >= span.start + size:
                yield span._replace(stop=offset)
                span = span._replace(start=offset, record=line)
    if not offset or offset > span.start:
        yield span


def raw_records(source: str | Path, limit: int = MAX_RECORD_BYTES) -> Iterator[RawRecord]:
    """All records of a source; raises TrajectoryError."""
    for path, name in list_files(source):
        yield from span_records(path, Span(name), limit)


def span_records(path: Path, span: Span, limit: int) -> Iterator[RawRecord]:
    """The records of a piece of a file, ``Span(name)`` for all of it; bad data comes as :class:`Rejected`, never as an
    exception."""
    at = Location(span.file, span.record)
    try:
        if not _stays(path, span.file):
            yield _reject(at, "path leaves the folder", "a link out of it; give the folder that it leads to by itself")
            return
        packing = _packing(path)
        with _OPEN[packing](path) as file:
            for record in (_rows if packing == _TABLE else _texts)(file, span, limit):
                yield record
                at = at._replace(record=record.location.record + 1)
    except _DAMAGE as error:
        yield _damaged(at, error)


def _texts(file: Any, span: Span, limit: int) -> Iterator[RawRecord]:
    offset, blank, at = span.start, 0, Location(span.file, span.record)
    if offset:
        file.seek(offset)
    while span.stop is None or offset < span.stop:
        line = last = file.readline(limit + 1)
        size = len(line)
        if not size:
            if not offset:
                yield _reject(at, "empty file", "no byte in it; write the run again")
            return
        if not offset and _is_document(span.file, line):
            line += file.read(max(0, limit + 1 - size))
            if len(line) > limit:
                yield _too_large(at, f"over {limit:,} bytes", limit)
            else:
                yield from _document(at, line)
            return
        while size > limit and last and not last.endswith(b"\n") and size <= _LONGEST_LINE:
            last = file.readline(_CHUNK)
            size += len(last)
        blank = 0 if line.strip() else blank + 1
        if size > max(limit, _LONGEST_LINE) or blank > _BLANK_LINES:
            found = f"over {size:,} bytes" if not blank else f"over {_BLANK_LINES:,} blank lines"
            yield _too_large(at, f"{found}, the rest of the file is not read", limit)
            return
        if size > limit:
            yield _too_large(at, f"{size:,} bytes", limit)
        elif not blank:
            yield RawRecord(at, line)
        offset += size
        at = at._replace(record=at.record + 1)


def _is_document(name: str, first_line: bytes) -> bool:
    """Whether the whole file is one thing: a session, or a JSON value whose first line is not one by itself, if its
    name does not say lines.

    A file with a single line is the same either way.
    """
    text = first_line.strip()
    if _is_session(text):
        return True
    return not (_LINES.search(name) or (text.startswith(b"{") and text.endswith(b"}")))


def _is_session(line: bytes) -> bool:
    """Whether a line is an event of a session of Claude Code or Codex."""
    if not any(sign in line for sign in _SESSION):
        return False
    try:
        event = loads(line)
    except UnusableError:
        return False
    known = {"sessionId", "leafUuid", "messageId", "payload"}
    return isinstance(event, dict) and isinstance(event.get("type"), str) and bool(known & event.keys())


def _document(at: Location, data: bytes) -> Iterator[RawRecord]:
    """The record of a whole file, or those of an array."""
    if _is_session(data.partition(b"\n")[0].strip()):
        lines = [line for line in data.split(b"\n") if line.strip()]
        yield RawRecord(at, b'{"session": [' + b",".join(lines) + b"]}")
        return
    try:
        values = loads(data) if data.lstrip().startswith(b"[") else None
    except UnusableError:
        values = None  # told when the record is read
    if isinstance(values, list) and all(isinstance(one, dict) for one in values) and values and not one_run(values):
        yield from (RawRecord(at._replace(record=number), value) for number, value in enumerate(values))
    else:
        yield RawRecord(at, data)


def _rows(table: pq.ParquetFile, span: Span, limit: int) -> Iterator[RawRecord]:
    """Rows as dictionaries, a few at a time; a damaged row group costs its own rows and no others."""
    number = span.record
    if not table.metadata.num_rows:
        yield _reject(Location(span.file), "empty file", "no row in it")
    for group in range(span.start, table.num_row_groups if span.stop is None else span.stop):
        at = Location(span.file, number)
        number += table.metadata.row_group(group).num_rows
        try:
            for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group], use_threads=False):
                for index in range(batch.num_rows):
                    yield _row(batch.slice(index, 1), at, limit)
                    at = at._replace(record=at.record + 1)
        except _DAMAGE as error:
            yield _damaged(at, error, f"row group {group}: ")


def _row(row: pa.RecordBatch, at: Location, limit: int) -> RawRecord:
    if row.nbytes > limit:
        return _too_large(at, f"{row.nbytes:,} bytes", limit)
    try:
        return RawRecord(at, row.to_pylist()[0])
    except _DAMAGE as error:
        reason = "undecodable bytes" if isinstance(error, UnicodeDecodeError) else "wrong types"
        return _reject(at, reason, f"{told_by(error)}; write the column again, text as UTF-8")


def _damaged(at: Location, error: BaseException, where: str = "") -> RawRecord:
    return _reject(at, "damaged file", f"{where}{type(error).__name__}: {told_by(error)}; copy the file again")


def _too_large(at: Location, found: str, limit: int) -> RawRecord:
    return _reject(at, "too large", f"{found}, the limit is {limit:,}; raise max_record_bytes")


def _reject(at: Location, reason: str, detail: str) -> RawRecord:
    return RawRecord(at, Rejected(at, reason, detail))
