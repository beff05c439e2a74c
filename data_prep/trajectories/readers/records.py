"""What a record is, before and after parsing, and how its text is read."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pydantic_core import from_json

from data_prep.trajectories.run import AgentRun

MAX_RECORD_BYTES = 64 << 20


class Location(NamedTuple):
    """Where a record is: the path below the input folder, with ``/``, or a single file's name; the line or row from 0,
    of a damaged file the one after the last good one."""

    file: str
    record: int = 0


class Rejected(NamedTuple):
    """Why a record is no run: a reason that funnels count, and one line for people, with what to do if known."""

    location: Location
    reason: str
    detail: str


class Located(NamedTuple):
    """One record of a source."""

    location: Location
    run: AgentRun | Rejected


class RawRecord(NamedTuple):
    """One record before parsing: a JSON text, a row of a table, or a reject. Cheap to make and to send to a worker."""

    location: Location
    data: bytes | dict[str, Any] | Rejected


class UnusableError(ValueError):
    """This record is no run: raised with reason and detail of its :class:`Rejected`."""


def expect(value: Any, kind: type, where: str) -> Any:
    """The value; raises UnusableError unless it is of this kind."""
    if not isinstance(value, kind):
        raise UnusableError("wrong types", f"{where} is {type(value).__name__}, not {kind.__name__}")
    return value


def loads(data: bytes) -> Any:
    """A JSON text's value; raises :class:`UnusableError` (truncated, undecodable bytes, not JSON).

    Beyond JSON it takes what ``json.dumps`` and models write: numbers of any length, line breaks in a string, and
    half surrogate pairs, which become U+FFFD.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return from_json(data)
    except ValueError as error:
        problem = str(error)
    try:
        value = json.loads(data.decode(), strict=False, parse_int=lambda n: int(n) if len(n) < 4000 else float(n))
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError) as error:
        undecodable = "undecodable bytes" if isinstance(error, UnicodeDecodeError) else "not JSON"
        reason = "truncated" if "EOF" in problem else undecodable
        raise UnusableError(reason, f"{problem}; copy or write the record again, as UTF-8") from None


def without_nul(text: str) -> str:
    """The text with U+FFFD for each NUL, which pairs cannot hold; an agent sees them when it prints a binary file."""
    return text.replace("\0", "\ufffd")


def one_run(values: list[Any]) -> dict[str, Any] | None:
    """A list of chat messages or of events as a record; None for a list of something else, such as runs."""
    first = values[0] if values else None
    if not isinstance(first, dict) or {"messages", "trajectory", "history", "instance_id"} & first.keys():
        return None
    kind = "messages" if "role" in first else "events"
    return {kind: values} if {"role", "action", "observation", "kind"} & first.keys() else None


def record_of(raw: RawRecord) -> dict[str, Any]:
    """The JSON object or row of a record; raises UnusableError."""
    if isinstance(raw.data, Rejected):
        raise UnusableError(raw.data.reason, raw.data.detail)
    record = loads(raw.data) if isinstance(raw.data, bytes) else raw.data
    record = (one_run(record) or record) if isinstance(record, list) else record
    if not isinstance(record, dict):
        raise UnusableError("unknown format", f"a JSON {type(record).__name__}, not an object")
    return record
