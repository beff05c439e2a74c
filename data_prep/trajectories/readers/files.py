"""Cut files into records, one at a time, without looking into them. Memory holds one record, whatever the file's size.

What is read of a folder: files ending in .json, .jsonl, .ndjson, .traj (each also with .gz, .xz or .zst) and .parquet,
in the order of their paths; hidden files and folders and everything else (logs, settings, patches) are not records of
runs and are passed over. A file given by itself is read whatever its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data_prep.trajectories.readers.containers import DAMAGE, compression_of, open_bytes
from data_prep.trajectories.readers.parquet import parquet_records
from data_prep.trajectories.readers.types import Compression, Layout, Location, RawRecord, Reason, Rejected
from data_prep.trajectories.run import TrajectoryError

_TEXT_ENDINGS = {".json", ".jsonl", ".ndjson", ".traj"}
_LINE_ENDINGS = {".jsonl", ".ndjson"}
_PACKED_ENDINGS = {".gz", ".xz", ".zst"}
_SKIP_CHUNK = 1 << 20


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
            if is_known_name(name) and not name.startswith(".") and path.is_file():
                found = True
                yield path, path.relative_to(source).as_posix()
    if not found:
        raise TrajectoryError(
            f"{source} holds no file of runs; expected names ending in .json, .jsonl, .traj or .parquet, "
            "text also with .gz, .xz or .zst: rename the files, or give the folder that holds them"
        )


def is_known_name(name: str) -> bool:
    """Whether a file of a folder is read."""
    endings = [ending.lower() for ending in Path(name).suffixes]
    if endings and endings[-1] in _PACKED_ENDINGS:
        return len(endings) > 1 and endings[-2] in _TEXT_ENDINGS
    return bool(endings) and (endings[-1] in _TEXT_ENDINGS or endings[-1] == ".parquet")


def resolve(source: str | Path, file: str) -> Path:
    """The path of a location's file."""
    source = Path(source)
    return source if source.is_file() else source / file


def file_records(path: Path, name: str, limit: int, first: Location | None = None) -> Iterator[RawRecord]:
    """The records of one file; bad data comes as :class:`Rejected`, never as an exception.

    Args:
        first: start at this record: a seek in plain files and parquet, a skip in compressed ones.
    """
    start = Location(name, "lines", "none", 0, 0)
    try:
        compression = compression_of(path)
        if compression == "none" and _is_parquet(path):
            yield from parquet_records(path, name, limit, first)
            return
        with open_bytes(path, compression) as file:
            records = _text_records(file, path, name, compression, limit, first)
            yield from records
    except PermissionError as error:
        yield _reject(start, "unreadable file", f"{error.strerror}; change its permissions")
    except DAMAGE as error:
        yield _reject(start, "damaged file", f"{type(error).__name__}: {error}; copy the file again")


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() == ".parquet"


def _text_records(
    file: IO[bytes], path: Path, name: str, compression: Compression, limit: int, first: Location | None
) -> Iterator[RawRecord]:
    names = _names_of(path, name)
    plain = compression == "none"
    number, offset = 0, 0
    layout: Layout = "lines"
    if first is not None and first.layout == "lines" and plain:
        file.seek(first.offset)
        number, offset = first.record, first.offset
    skip = 0 if first is None else first.record
    while True:
        at = Location(name, layout, compression, number, offset if plain else 0)
        try:
            line = file.readline(limit + 1)
            if number == 0 and offset == 0:
                if not line:
                    yield _reject(at, "empty file", "no byte in it; write the run again")
                    return
                if _is_document(path, line):
                    yield _document(file, line, at._replace(layout="document"), limit, names)
                    return
            size = len(line)
            too_large = size > limit
            while too_large and not line.endswith(b"\n"):
                line = file.readline(_SKIP_CHUNK)
                size += len(line)
                if not line:
                    break
        except DAMAGE as error:
            yield _reject(at, "damaged file", f"{type(error).__name__}: {error}; copy the file again")
            return
        if not size:
            return
        if number >= skip:
            if too_large:
                yield _reject(at, "too large", f"{size:,} bytes, the limit is {limit:,}; raise max_record_bytes")
            elif line.strip():
                yield RawRecord(at, line, names)
        number += 1
        offset += size


def _is_document(path: Path, first_line: bytes) -> bool:
    """Whether the whole file is one JSON value: its first line is not one by itself, and its name does not say lines.

    A file with a single line is the same either way.
    """
    endings = [ending.lower() for ending in path.suffixes if ending.lower() not in _PACKED_ENDINGS]
    if endings and endings[-1] in _LINE_ENDINGS:
        return False
    text = first_line.strip()
    return not (text.startswith(b"{") and text.endswith(b"}"))


def _document(file: IO[bytes], head: bytes, at: Location, limit: int, names: tuple[str, ...]) -> RawRecord:
    data = head
    if len(data) <= limit:
        data += file.read(limit + 1 - len(data))
    if len(data) > limit:
        return _reject(at, "too large", f"over {limit:,} bytes; raise max_record_bytes")
    return RawRecord(at, data, names)


def _names_of(path: Path, name: str) -> tuple[str, ...]:
    stem = path.name
    for ending in (*_PACKED_ENDINGS, ".json", ".jsonl", ".ndjson", ".traj"):
        stem = stem.removesuffix(ending)
    stem = stem.removesuffix(".traj")
    return stem, *reversed(Path(name).parts[:-1])


def _reject(at: Location, reason: Reason, detail: str) -> RawRecord:
    return RawRecord(at, Rejected(at, reason, detail))
