"""Read runs of coding agents from files of any known format, as one stream in one form.

A new format is one entry of :data:`data_prep.trajectories.readers.formats.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_prep.trajectories.readers.files import Span, list_files, span_records
from data_prep.trajectories.readers.formats import FORMATS, Format
from data_prep.trajectories.readers.json_text import loads
from data_prep.trajectories.readers.tasks import load_task_patches, with_patch
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
    "check_format",
    "load_task_patches",
    "open_source",
    "parse_record",
    "raw_records",
]


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
    check_format(format)
    for raw in raw_records(path, max_record_bytes):
        yield Located(raw.location, parse_record(raw, format, tasks=tasks, replay=replay))


def raw_records(path: str | Path, max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[RawRecord]:
    """The records unparsed: for a pipeline that cuts files in one process and calls :func:`parse_record` in many."""
    for file, name in list_files(path):
        yield from span_records(file, Span(name), max_record_bytes)


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


def _format_of(record: dict[str, Any], format: str) -> Format:
    if format != "auto":
        return FORMATS[format]
    for known in FORMATS.values():
        if known.sniff(record):
            return known
    keys = ", ".join(sorted(str(key)[:30] for key in record)[:8]) or "none"
    raise UnusableError("unknown format", f"fields: {keys}; known formats: {', '.join(FORMATS)}")


def check_format(format: str) -> None:
    """Raises TrajectoryError unless the format is ``auto`` or one of :data:`FORMATS`."""
    if format != "auto" and format not in FORMATS:
        raise TrajectoryError(f"format is {format!r}; use auto or one of {', '.join(FORMATS)}")
