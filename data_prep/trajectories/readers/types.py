"""What readers give back: where a record is, the run in it, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from data_prep.trajectories.run import AgentRun

Layout = Literal["lines", "document", "parquet"]
Compression = Literal["none", "gz", "xz", "zst"]
Reason = Literal[
    "damaged file",
    "empty file",
    "no instance id",
    "no messages",
    "no repository",
    "not JSON",
    "too large",
    "truncated",
    "undecodable bytes",
    "unknown format",
    "unreadable file",
    "wrong types",
]

MAX_RECORD_BYTES = 64 * 1024 * 1024


class Location(NamedTuple):
    """Where a record is. ``json.dumps`` makes a list of it; ``Location(*that_list)`` is the same location again.

    Attributes:
        file: path below the input folder, with ``/``; the file's name where the input is a single file.
        layout: one record a line, one record a file, or rows of a parquet file.
        compression: of the file.
        record: line number from 0, or row of the row group.
        offset: byte of the record's first character in an uncompressed file; row group of a parquet file; else 0.
    """

    file: str
    layout: Layout
    compression: Compression
    record: int
    offset: int


@dataclass(frozen=True)
class Rejected:
    """A record that is not a run.

    Attributes:
        location: where it is; of a damaged file, the record after the last good one.
        reason: one of the fixed list :data:`Reason`; what funnels count.
        detail: one line for people: what was found, and what to do where that can be said.
    """

    location: Location
    reason: Reason
    detail: str = ""


class Located(NamedTuple):
    """One record of a source."""

    location: Location
    run: AgentRun | Rejected


class RawRecord(NamedTuple):
    """One record before parsing: a JSON text, a row of a table, or a reject. Cheap to make and to send to a worker.

    Attributes:
        names: the file's name without endings, then its folders, the nearest first; an instance id may be there.
    """

    location: Location
    data: bytes | dict[str, Any] | Rejected
    names: tuple[str, ...] = ()


class UnusableError(ValueError):
    """Raised by a format's ``parse``: this record is no run. Becomes a :class:`Rejected`."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
