"""A language model as judge, behind any OpenAI-compatible endpoint: what it is asked, and what it says."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair, ImageRef
from contextrl_verl.pairs.prompting import option_order
from data_prep.models.chat import ChatEndpoint, question_templates, sendable
from data_prep.verify.rules import content_of

# Part of the cache key: raise it whenever the template or the way it is filled changes.
PROMPT_VERSION = "judge-1"
# Own draw of the order, so that it says nothing about the order in training.
_ORDER_SEED = 0x10D6E
_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}

# A reason of one or two sentences and the braces around it.
_USUAL_REPLY_TOKENS = 120
_templates = question_templates(Path(__file__).parent)
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


class OpenAIJudge(ChatEndpoint):
    """Asks an endpoint for verdicts."""

    async def judge(self, pair: ContrastivePair) -> Judgement:
        """Raises ConfigError when nothing more can be asked."""
        reply = await self.ask(judge_messages(pair), Verdict, PROMPT_VERSION)
        if reply.value is not None:
            return Judgement(reply.value.label, reply.value.reason, cached=reply.cached)
        return Judgement("UNCERTAIN" if reply.how == "malformed" else None, reply.why, reply.how, reply.cached)

    def sentence(self, pairs: Iterable[ContrastivePair]) -> str:
        """What judging would cost; asks nothing."""
        questions = ((judge_messages(pair), PROMPT_VERSION) for pair in pairs)
        return self.estimate(questions, Verdict, _USUAL_REPLY_TOKENS)


def shown_order(pair: ContrastivePair) -> list[int]:
    """Indices into ``pair.contexts`` as the judge sees them: random, but always the same for a pair id."""
    return option_order(pair.pair_id, len(pair.contexts), epoch=0, seed=_ORDER_SEED)


def judge_messages(pair: ContrastivePair) -> list[dict[str, Any]]:
    """Chat messages; images go along as data URLs, right after the line that names their context.

    Raises:
        ConfigError: an image is missing or of a type that endpoints do not take.
    """
    order = shown_order(pair)
    kind = pair.supporting.kind
    # Contexts are data, whatever they say; a fence drawn from them cannot be guessed and closed inside them.
    fence = content_of(pair)
    rules = _templates.get_template("system.jinja").render(kind=kind)
    head = _templates.get_template("question.jinja").render(
        query=pair.query, answer=pair.answer, count=len(order), fence=fence, supporting=order.index(0) + 1
    )
    parts: list[dict[str, Any]] = [_text(head)]
    for number, index in enumerate(order, start=1):
        context = pair.contexts[index]
        parts.append(_text(f"<context number={number} fence={fence}>\n"))
        if kind == "images":
            parts.extend(
                {"type": "image_url", "image_url": {"url": data_url(image, f"pair {pair.pair_id!r}: ")}}
                for image in context.images
            )
        elif kind == "messages":
            parts.append(_text("".join(f"[{message.role}]\n{message.content}\n" for message in context.messages)))
        else:
            parts.append(_text(context.text))
        parts.append(_text(f"\n</context number={number} fence={fence}>\n"))
    parts.append(_text('Reply with one JSON object: {"reason": "...", "label": "VALID" | "INVALID" | "UNCERTAIN"}'))
    return [{"role": "system", "content": rules}, {"role": "user", "content": _joined(parts)}]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": sendable(text)}


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Neighbouring texts as one; plain text if there is nothing else, since small servers take only that."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "text" and joined and joined[-1]["type"] == "text":
            joined[-1] = _text(joined[-1]["text"] + part["text"])
        else:
            joined.append(part)
    return joined[0]["text"] if len(joined) == 1 else joined


def data_url(image: ImageRef, where: str = "") -> str:
    """An encoded image as a data URL; its bytes are sent as they are.

    Raises:
        ConfigError: the file is missing, or not PNG, JPEG, GIF or WebP.
    """
    data = image.bytes
    if data is None:
        try:
            data = Path(image.path).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{where}image {image.path!r} cannot be read ({error.strerror}). Fix: put it there, or drop the pair."
            ) from None
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise ConfigError(
            f"{where}an image starts with {data[:8]!r}, which is not PNG, JPEG, GIF or WebP. "
            "Fix: convert it, or drop the pair."
        )
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
