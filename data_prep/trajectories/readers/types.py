"""What readers give back: where a record is, the run in it, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from data_prep.trajectories.run import AgentRun

Reason = Literal[
    "damaged file",
    "damaged task patch",
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
    """Where a record is.

    Attributes:
        file: path below the input folder, with ``/``; the file's name where the input is a single file.
        record: line or row from 0; of a damaged file, the record after the last good one.
    """

    file: str
    record: int = 0


@dataclass(frozen=True)
class Rejected:
    """A record that is not a run: a reason that funnels count, and one line for people, with what to do if known."""

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
