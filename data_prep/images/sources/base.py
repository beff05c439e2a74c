"""What a source of questions about pictures gets and gives: options, a plan, and rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contextrl_verl.errors import ConfigError
from data_prep.images.decode import ImageLimits, ImageRejected

ROLES = ("image", "question", "answer", "domain", "id")
Span = dict[str, Any]


class SourceOptions(BaseModel):
    """How a source is read.

    Attributes:
        columns: ``{role: column}`` for roles among ``image``, ``question``, ``answer``, ``domain``, ``id``; a column
            inside a struct is written with dots, e.g. ``reward_model.ground_truth``.
        name: of the source in items; default its own.
        domain: of all its items; default its own, else ``image``.
        split, subset: of a data set that has some.
        root: folder that paths of pictures start from and stay in; default the table's own.
        limit: draw so many questions, by ``seed``; 0 takes all.
        max_bytes, max_pixels, min_side, max_ratio: see :class:`data_prep.images.decode.ImageLimits`.
        max_record_bytes: longest line of a JSONL file.
        part_rows: questions of a part at most, where the source can be cut so finely.
        store: folder of the :class:`data_prep.images.store.ImageStore`; may be put into the payloads later.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    columns: dict[str, str] = Field(default_factory=dict)
    name: str = ""
    domain: str = ""
    split: str = ""
    subset: str = ""
    root: str = ""
    limit: int = Field(default=0, ge=0)
    seed: int = 1
    max_bytes: int = Field(default=ImageLimits.max_bytes, ge=1)
    max_pixels: int = Field(default=ImageLimits.max_pixels, ge=1)
    min_side: int = Field(default=ImageLimits.min_side, ge=1)
    max_ratio: float = Field(default=ImageLimits.max_ratio, ge=1)
    max_record_bytes: int = Field(default=64 << 20, ge=1)
    part_rows: int = Field(default=2000, ge=1)
    store: str = ""

    @property
    def limits(self) -> ImageLimits:
        return ImageLimits(self.max_bytes, self.max_pixels, self.min_side, self.max_ratio)


def read_options(options: Mapping[str, Any] | SourceOptions) -> SourceOptions:
    """The options as typed values; ConfigError names the first one that is wrong."""
    if not isinstance(options, SourceOptions):
        try:
            options = SourceOptions.model_validate(dict(options))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise ConfigError(
                f"source option {'.'.join(map(str, problem['loc']))!r} is {problem.get('input')!r}: {problem['msg']}. "
                f"Fix: correct it; there are {', '.join(SourceOptions.model_fields)}."
            ) from None
    for role in options.columns:
        if role not in ROLES:
            raise ConfigError(f"columns: there is no {role!r}. Fix: write ROLE=COLUMN with one of {list(ROLES)}.")
    return options


def read_columns(pairs: list[str]) -> dict[str, str]:
    """``["question=query", ...]`` as ``{"question": "query", ...}``; raises ConfigError."""
    columns = {}
    for pair in pairs:
        role, _, column = pair.partition("=")
        if not column or role not in ROLES:
            raise ConfigError(f"column {pair!r}. Fix: write ROLE=COLUMN, where ROLE is one of {list(ROLES)}.")
        columns[role] = column
    return columns


class RowRejected(ImageRejected):
    """A record that is no row."""


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


def row_ranges(count: int, options: SourceOptions) -> Iterator[dict[str, int]]:
    """``{"start", "stop"}`` of the parts of that many rows."""
    for start in range(0, count, options.part_rows):
        yield {"start": start, "stop": min(start + options.part_rows, count)}


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
