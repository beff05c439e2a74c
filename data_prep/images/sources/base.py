"""What a source of questions about pictures gets and gives.

A source is a module with ``NAME``, ``FORM`` (what a user writes, for messages), ``claims(spec)``, ``find(spec,
options)``, which gives a :class:`Found`, and ``rows(span)``, which gives :class:`Row` objects. The last is a pure
function of the span, for it is called in other processes, and again after a kill. A span gets ``columns``, the names
that are looked at. Its ``left_out`` counts rows that a limit leaves out behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from data_prep.images.store import ImageLimits, ImageRejected, one_line

Role = Literal["image", "question", "answer", "domain", "id"]
Span = dict[str, Any]


class SourceOptions(ImageLimits):
    """How a source is read, and what its pictures may be.

    Attributes:
        columns: names of columns by role; a dot leads into a struct, e.g. ``reward_model.ground_truth``.
        domain: of all its items; default its own, else ``image``.
        root: folder that paths of pictures start from and stay in; default the table's own.
        limit: draw so many questions, by ``seed``; 0 takes all.
        part_rows: questions of a part at most, where the source can be cut so finely.
    """

    columns: dict[Role, str] = Field(default_factory=dict)
    domain: str = ""
    split: str = ""
    subset: str = ""
    root: str = ""
    limit: int = Field(default=0, ge=0)
    seed: int = 1
    part_rows: int = Field(default=2000, ge=1)


class RowRejected(ImageRejected):
    """A record that is no row."""


class Row(NamedTuple):
    """One record, not yet looked into: its name in the source, what finds it again (JSON values), and its columns."""

    key: str
    where: dict[str, Any]
    columns: Callable[[], dict[str, Any]]

    def load(self) -> dict[str, Any]:
        """The columns; raises RowRejected."""
        try:
            return self.columns()
        except RowRejected:
            raise
        except Exception as error:  # libraries raise whatever a damaged file brings them to
            raise RowRejected("unreadable row", one_line(error)) from None


@dataclass(frozen=True)
class Found:
    """What planning a source found.

    Attributes:
        name: of the source, for items, e.g. ``easy_vqa`` or a file's name.
        pictures: columns that hold pictures by their type, where the source knows types.
        spans: JSON values, which change when the source does; each is the work of one part.
        keys: a fresh walk over the keys of all rows, for drawing some of them; None if that means reading everything.
        root: folder that paths of pictures start from and stay in, unless the user names one; None: they are refused.
        domain: of all items, unless a column or the user says otherwise.
    """

    name: str
    columns: tuple[str, ...]
    spans: list[Span]
    keys: Callable[[], Iterator[str]] | None
    root: str | None
    pictures: tuple[str, ...] = ()
    domain: str = ""


def row_ranges(count: int, options: SourceOptions) -> Iterator[dict[str, int]]:
    """``{"start", "stop"}`` of the parts of that many rows."""
    for start in range(0, count, options.part_rows):
        yield {"start": start, "stop": min(start + options.part_rows, count)}
