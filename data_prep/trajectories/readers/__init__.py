"""Read runs of coding agents from files of any known format, as one stream in one form.

A new format is one file with ``NAME``, ``sniff(record)`` and ``parse(record, names)``, and one line in FORMATS.

Random access: ``read_at`` seeks in plain files and parquet. Streams of .gz, .xz and .zst have no random access: it
unpacks from the start, so use ``read_many``, which goes through each such file once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import ValidationError

from data_prep.trajectories.readers import atif, klear, mini_swe_agent, swe_agent, swe_smith
from data_prep.trajectories.readers.files import file_records, list_files, resolve
from data_prep.trajectories.readers.json_text import loads
from data_prep.trajectories.readers.recover import load_task_patches, with_patch
from data_prep.trajectories.readers.types import (
    MAX_RECORD_BYTES,
    Located,
    Location,
    RawRecord,
    Reason,
    Rejected,
    UnusableError,
)
from data_prep.trajectories.run import AgentRun, TrajectoryError

__all__ = [
    "FORMATS",
    "MAX_RECORD_BYTES",
    "Located",
    "Location",
    "RawRecord",
    "Reason",
    "Rejected",
    "load_task_patches",
    "open_source",
    "parse_record",
    "raw_records",
    "read_at",
    "read_many",
]


class _Format(Protocol):
    NAME: str

    def sniff(self, record: dict[str, Any]) -> bool: ...

    def parse(self, record: dict[str, Any], names: tuple[str, ...]) -> AgentRun: ...


# In the order in which `auto` asks them: marks of their own first, tables known by their columns last.
FORMATS: dict[str, _Format] = {
    module.NAME: module for module in cast("tuple[_Format, ...]", (mini_swe_agent, atif, swe_agent, swe_smith, klear))
}


def open_source(
    path: str | Path,
    format: str = "auto",
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    tasks: Mapping[str, str] | None = None,
    replay: bool = False,
) -> Iterator[Located]:
    """All records of a file or folder in a fixed order: runs, and rejects with reasons.

    Args:
        format: one of :data:`FORMATS`, or ``auto``: each record says by its fields what it is.
        max_record_bytes: a larger record is rejected; memory is bounded by a few times this.
        tasks: fixes by instance id (:func:`load_task_patches`) for runs without a patch.
        replay: recover missing patches from the run's own edits.

    Raises:
        TrajectoryError: the path or the format does not exist, or the folder holds no file of runs. Never for bad data.
    """
    _check_format(format)
    for raw in raw_records(path, max_record_bytes):
        yield Located(raw.location, parse_record(raw, format, tasks=tasks, replay=replay))


def raw_records(path: str | Path, max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[RawRecord]:
    """The records unparsed: for a pipeline that cuts files in one process and calls :func:`parse_record` in many."""
    for file, name in list_files(path):
        yield from file_records(file, name, max_record_bytes)


def parse_record(
    raw: RawRecord, format: str = "auto", *, tasks: Mapping[str, str] | None = None, replay: bool = False
) -> AgentRun | Rejected:
    """The run in a record, or why there is none."""
    if isinstance(raw.data, Rejected):
        return raw.data
    try:
        record = loads(raw.data) if isinstance(raw.data, bytes) else raw.data
        if not isinstance(record, dict):
            raise UnusableError("unknown format", f"a JSON {type(record).__name__}, not an object")
        run = _format_of(record, format).parse(record, raw.names)
        return with_patch(run, tasks, replay)
    except UnusableError as error:
        return Rejected(raw.location, error.reason, error.detail)
    except ValidationError as error:  # a field that no reader checks by itself
        problem = error.errors(include_input=False, include_url=False)[0]
        return Rejected(raw.location, "wrong types", f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")


def _format_of(record: dict[str, Any], format: str) -> _Format:
    if format != "auto":
        return FORMATS[format]
    for known in FORMATS.values():
        if known.sniff(record):
            return known
    keys = ", ".join(sorted(str(key)[:30] for key in record)[:8]) or "none"
    raise UnusableError("unknown format", f"fields: {keys}; known formats: {', '.join(FORMATS)}")


def _check_format(format: str) -> None:
    if format != "auto" and format not in FORMATS:
        raise TrajectoryError(f"format is {format!r}; use auto or one of {', '.join(FORMATS)}")


def read_at(
    path: str | Path,
    location: Sequence[Any],
    format: str = "auto",
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    tasks: Mapping[str, str] | None = None,
    replay: bool = False,
) -> AgentRun:
    """The run at a location that :func:`open_source` gave for the same path; raises TrajectoryError if it is gone."""
    _check_format(format)
    at = Location(*location)
    found = _record_at(path, at, max_record_bytes)
    run = parse_record(found, format, tasks=tasks, replay=replay)
    if isinstance(run, Rejected):
        raise TrajectoryError(
            f"{path}, {at.file}, record {at.record}: {run.reason} ({run.detail}); "
            "the file changed since it was first read: start again with the files as they are"
        )
    return run


def _record_at(path: str | Path, at: Location, limit: int) -> RawRecord:
    try:
        for raw in file_records(resolve(path, at.file), at.file, limit, first=at):
            if raw.location == at:
                return raw
            break
    except FileNotFoundError:
        pass
    return RawRecord(at, Rejected(at, "damaged file", "no record at this place"))


def read_many(
    path: str | Path,
    locations: Iterable[Sequence[Any]],
    format: str = "auto",
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    tasks: Mapping[str, str] | None = None,
    replay: bool = False,
) -> Iterator[Located]:
    """The records at these locations, file by file in the order of the files' names and of the records within.

    Every compressed file is unpacked once, up to the last record wanted; in plain files it seeks. Each location is
    answered once, with a reject where the run is gone.
    """
    _check_format(format)
    by_file: dict[str, set[Location]] = defaultdict(set)
    for location in locations:
        at = Location(*location)
        by_file[at.file].add(at)
    for _, wanted in sorted(by_file.items()):
        for raw in _wanted(path, wanted, max_record_bytes):
            yield Located(raw.location, parse_record(raw, format, tasks=tasks, replay=replay))


def _wanted(path: str | Path, wanted: set[Location], limit: int) -> Iterator[RawRecord]:
    ordered = sorted(wanted, key=lambda at: (at.offset, at.record))
    if ordered[0].compression == "none" and ordered[0].layout != "parquet":
        for at in ordered:
            yield _record_at(path, at, limit)
        return
    left = set(wanted)
    try:
        for raw in file_records(resolve(path, ordered[0].file), ordered[0].file, limit, first=ordered[0]):
            if raw.location in left:
                left.discard(raw.location)
                yield raw
            if not left:
                return
    except FileNotFoundError:
        pass
    for at in sorted(left):
        yield RawRecord(at, Rejected(at, "damaged file", "no record at this place"))
