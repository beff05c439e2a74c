"""What a judge says about a pair, and what a judge is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from contextrl_verl.pairs import ContrastivePair

Label = Literal["VALID", "INVALID", "UNCERTAIN"]


class Verdict(BaseModel):
    """A judge's answer. The reason stands first, so that a model gives it before it decides."""

    # Stated in the schema, since strict endpoints want it; a reply with more fields is still usable.
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    reason: str = Field(min_length=1)
    label: Label

    @field_validator("label", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("reason")
    @classmethod
    def _short(cls, value: str) -> str:
        value = " ".join(value.split())
        return value if len(value) <= 1000 else value[:997] + "..."


@dataclass(frozen=True)
class Judgement:
    """What became of one pair at the judge.

    Attributes:
        label: None if the pair was not judged.
        reason: the judge's, or why there is none.
        how: ``answered``, ``malformed`` (then UNCERTAIN), ``refused``, ``spending cap`` or ``failed`` (not judged).
        cached: whether it cost nothing.
    """

    label: Label | None
    reason: str
    how: str = "answered"
    cached: bool = False


class Judge(Protocol):
    """Anything that gives verdicts; used inside ``async with``."""

    async def __aenter__(self) -> Judge: ...

    async def __aexit__(self, *exception: object) -> None: ...

    async def judge(self, pair: ContrastivePair) -> Judgement: ...

    def summary(self) -> dict[str, Any]:
        """Counts for reports, as plain JSON values."""
        ...
