"""What a source of questions about pictures gives: a plan, and rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from data_prep.images.sources.options import SourceOptions

Span = dict[str, Any]


class RowRejected(ValueError):
    """A record that is no row; ``reason`` is short, for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Row(NamedTuple):
    """One record, not yet looked into.

    Attributes:
        key: names the record within its source, e.g. ``train.jsonl:12``.
        where: what finds it again (JSON values); goes into the provenance.
        load: gives its columns; raises RowRejected.
    """

    key: str
    where: dict[str, Any]
    load: Callable[[], dict[str, Any]]


class Lost(NamedTuple):
    """Rows that exist but are not given, and why; ``count`` is 0 when nobody knows how many."""

    count: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Found:
    """What planning a source found.

    Attributes:
        name: of the source, for items, e.g. ``easy_vqa`` or a file's name.
        columns: that its rows have.
        pictures: columns that hold pictures by their type, where the source knows types.
        spans: JSON values; each is the work of one part.
        keys: a fresh walk over the keys of all rows, for drawing some of them; None if that means reading everything.
        root: folder that paths of pictures start from and stay in; None: pictures by path are refused.
        domain: of all its items, unless a column or the user says otherwise.
        inputs: what tells that the source has changed (JSON values).
    """

    name: str
    columns: tuple[str, ...]
    spans: list[Span]
    keys: Callable[[], Iterator[str]] | None
    root: str | None
    pictures: tuple[str, ...] = ()
    domain: str = ""
    inputs: list[Any] = field(default_factory=list)


class Source(Protocol):
    """A kind of source; a module with these names.

    ``rows`` is a pure function of the span, for it is called in other processes, and again after a kill. A span gets
    ``columns``, the names that are looked at; other ones need not be read.
    """

    NAME: str
    FORM: str

    def claims(self, spec: str) -> bool: ...

    def find(self, spec: str, options: SourceOptions) -> Found: ...

    def rows(self, span: Span) -> Iterator[Row | Lost]: ...
