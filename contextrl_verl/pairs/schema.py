"""The contrastive pair: one typed, versioned record, and its schema on disk.

A pair holds a query Q, an answer A, one supporting context C+ and one or more confounders C-
(paper, section 3). Contexts are text, chat messages (a whole agent run) or images.
Reading and writing live in :mod:`contextrl_verl.pairs.files`.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from contextrl_verl.errors import UserError

SCHEMA_VERSION = 1
# ImageRef has a field called bytes, which would hide the type.
_Bytes = bytes
ContextKind = Literal["text", "messages", "images"]
Split = Literal["train", "validation", "probe"]


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"character {text.index(chr(0))} is NUL (U+0000), which marks images in prompts")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]


class Message(BaseModel):
    """One turn of an agent run."""

    model_config = ConfigDict(extra="forbid")
    role: Text = Field(min_length=1)
    content: Text


class ImageRef(BaseModel):
    """An image by its encoded bytes (PNG, JPEG, ...; base64 in JSON) or by a path; bytes win when both are given."""

    model_config = ConfigDict(extra="forbid")
    bytes: _Bytes | None = None
    path: str | None = None

    @field_validator("bytes", mode="before")
    @classmethod
    def _from_base64(cls, value: Any) -> Any:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value

    @field_serializer("bytes", when_used="json-unless-none")
    def _to_base64(self, value: _Bytes) -> str:
        return base64.b64encode(value).decode()

    @model_validator(mode="after")
    def _has_source(self) -> ImageRef:
        if self.bytes is None and not self.path:
            raise ValueError("an image needs 'bytes' or 'path'")
        return self


class Context(BaseModel):
    """One context of a pair. Exactly the field named by ``kind`` is filled."""

    model_config = ConfigDict(extra="forbid")
    kind: ContextKind
    text: Text | None = None
    messages: list[Message] | None = None
    images: list[ImageRef] | None = None

    @model_validator(mode="after")
    def _only_its_kind(self) -> Context:
        if not getattr(self, self.kind):
            raise ValueError(f"a context of kind {self.kind!r} needs a non-empty {self.kind!r}")
        others = [k for k in ("text", "messages", "images") if k != self.kind and getattr(self, k)]
        if others:
            raise ValueError(f"a context of kind {self.kind!r} must leave {others} empty")
        return self


class ContrastivePair(BaseModel):
    """A query Q and answer A, the context C+ that supports them, and confounders C- of the same kind that do not."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = SCHEMA_VERSION  # readers refuse versions they do not know
    pair_id: str = Field(min_length=1)  # unique within a data set; orders of options are drawn from it
    domain: Text = Field(min_length=1)  # e.g. ``trajectory``, ``image``; a free label for reports
    query: Text = Field(min_length=1)
    answer: Text = Field(min_length=1)
    supporting: Context
    confounders: list[Context] = Field(min_length=1)
    provenance: dict[str, Any] = Field(default_factory=dict)  # how the pair was made; stored as a JSON string
    split: Split = "train"

    @field_validator("schema_version")
    @classmethod
    def _known_version(cls, value: int) -> int:
        if value != SCHEMA_VERSION:
            raise ValueError(f"this release reads schema_version {SCHEMA_VERSION}")
        return value

    @field_validator("provenance", mode="before")
    @classmethod
    def _provenance_from_json(cls, value: Any) -> Any:
        if value is None:
            return {}
        return json.loads(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _distinct_options(self) -> ContrastivePair:
        for position, confounder in enumerate(self.confounders):
            if confounder.kind != self.supporting.kind:
                raise ValueError(
                    f"confounders[{position}] is of kind {confounder.kind!r}, supporting of {self.supporting.kind!r}"
                )
            if confounder == self.supporting:
                raise ValueError(f"confounders[{position}] equals the supporting context")
        return self

    @property
    def contexts(self) -> list[Context]:
        """Supporting context first, then the confounders."""
        return [self.supporting, *self.confounders]

    def to_row(self) -> dict[str, Any]:
        """The record as stored: plain values, provenance as a JSON string."""
        row = self.model_dump()
        row["provenance"] = json.dumps(self.provenance, ensure_ascii=False, sort_keys=True)
        return row


_CONTEXT_TYPE = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))),
        pa.field("images", pa.list_(pa.struct([("bytes", pa.large_binary()), ("path", pa.string())]))),
    ]
)

ARROW_SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("query", pa.large_string(), nullable=False),
        pa.field("answer", pa.large_string(), nullable=False),
        pa.field("supporting", _CONTEXT_TYPE, nullable=False),
        pa.field("confounders", pa.list_(_CONTEXT_TYPE), nullable=False),
        pa.field("provenance", pa.large_string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ],
    metadata={"contextrl.schema_version": str(SCHEMA_VERSION)},
)

_FIXES = {
    "missing": "add the field",
    "extra_forbidden": "remove the field, or put it under 'provenance'",
    "literal_error": "use one of the values named",
    "too_short": "give at least one",
    "string_too_short": "give a non-empty string",
    "string_type": "give a string",
}


def parse_pair(row: Any, where: str) -> ContrastivePair:
    """Validate one stored row, provenance as a dict or a JSON string.

    Raises:
        PairFormatError: names the row, which is ``where``, field, value and fix.
    """
    try:
        return ContrastivePair.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the record"
        value = repr(first["input"])
        if len(value) > 120:
            value = value[:120] + "..."
        fix = _FIXES.get(first["type"], "mend the row or drop it, then write the file again")
        message = first["msg"].removeprefix("Value error, ")
        raise PairFormatError(f"{where}: field '{field}' has value {value}: {message}. Fix: {fix}.") from None


class PairFormatError(UserError, ValueError):
    """A row that is not a valid contrastive pair; the message names row, field, value and fix."""
