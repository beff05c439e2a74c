"""Options of a source, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_prep.images.decode import ImageLimits
from data_prep.images.errors import ImagePairError

ROLES = ("image", "question", "answer", "domain", "id")


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

    model_config = ConfigDict(extra="forbid")
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


def read_options(options: Mapping[str, Any]) -> SourceOptions:
    """The options as typed values; ImagePairError names the first one that is wrong."""
    try:
        found = SourceOptions.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        known = ", ".join(SourceOptions.model_fields)
        raise ImagePairError(
            f"source option {key!r} is {problem.get('input')!r}: {problem['msg']}. Fix: correct it; there are {known}."
        ) from None
    unknown = sorted(set(found.columns) - set(ROLES))
    if unknown:
        raise ImagePairError(f"columns: there is no {unknown[0]!r}. Fix: write ROLE=COLUMN with one of {list(ROLES)}.")
    return found


def read_columns(pairs: list[str]) -> dict[str, str]:
    """``["question=query", ...]`` as ``{"question": "query", ...}``; raises ImagePairError."""
    columns = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not equals or not column or role not in ROLES:
            raise ImagePairError(f"column {pair!r}. Fix: write ROLE=COLUMN, where ROLE is one of {list(ROLES)}.")
        columns[role] = column
    return columns
