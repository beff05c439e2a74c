"""A language model as judge, behind any OpenAI-compatible endpoint: what it is asked, and what it says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair, ImageRef
from contextrl_verl.pairs.prompting import option_order
from data_prep.models.chat import ChatEndpoint, image_part, question_templates, sendable
from data_prep.report.text import shortened
from data_prep.verify.rules import content_of

# Part of the cache key: raise it whenever the template or the way it is filled changes.
PROMPT_VERSION = "judge-1"
# Own draw of the order, so that it says nothing about the order in training.
_ORDER_SEED = 0x10D6E
_IMAGE_TYPES = re.compile(
    rb"(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpeg>\xff\xd8\xff)|(?P<gif>GIF8)|(?P<webp>RIFF....WEBP)", re.S
)

# A reason of one or two sentences and the braces around it.
_USUAL_REPLY_TOKENS = 120
_templates = question_templates(Path(__file__).parent)
Label = Literal["VALID", "INVALID", "UNCERTAIN"]
upper = BeforeValidator(lambda value: value.strip().upper() if isinstance(value, str) else value)


class Verdict(BaseModel):
    """A judge's answer. The reason stands first, so that a model gives it before it decides."""

    # Stated in the schema, since strict endpoints want it; a reply with more fields is still usable.
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    reason: Annotated[str, Field(min_length=1), AfterValidator(lambda text: shortened(" ".join(text.split()), 1000))]
    label: Annotated[Label, upper]


@dataclass(frozen=True)
class Judgement:
    """What became of one pair at the judge, and its reason.

    ``label`` is None if the pair was not judged; ``how``: ``answered``, ``malformed`` (then UNCERTAIN), ``refused``,
    ``spending cap`` or ``failed``; ``cached``: it cost nothing.
    """

    label: Label | None
    reason: str
    how: str = "answered"
    cached: bool = False


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

    Raises ConfigError for an image that is missing or of a type that endpoints do not take.
    """
    order = shown_order(pair)
    contexts = [pair.contexts[index] for index in order]
    # Contexts are data, whatever they say; a fence drawn from them cannot be guessed and closed inside them.
    fence = content_of(pair)
    mark = f"<image fence={fence}>"
    rules = _templates.get_template("system.jinja").render(kind=pair.supporting.kind)
    text = sendable(
        _templates.get_template("question.jinja").render(
            pair=pair, contexts=contexts, supporting=order.index(0) + 1, fence=fence, image_mark=mark
        )
    )
    # Plain text if there is nothing else, since small servers take only that.
    content: str | list[dict[str, Any]] = text
    if images := [image for context in contexts for image in context.images or ()]:
        first, *others = text.split(mark)
        content = [{"type": "text", "text": first}]
        for image, after in zip(images, others, strict=True):
            content.append(_shown(image, f"pair {pair.pair_id!r}: "))
            content += [{"type": "text", "text": after}] if after else []
    return [{"role": "system", "content": rules}, {"role": "user", "content": content}]


def image_type(data: bytes) -> str | None:
    """``png``, ``jpeg``, ``gif`` or ``webp``, by the first bytes of an encoded image; None for any other."""
    found = _IMAGE_TYPES.match(data)
    return found and found.lastgroup


def _shown(image: ImageRef, where: str) -> dict[str, Any]:
    """An encoded image as a part of a message; its bytes are sent as they are."""
    try:
        data = image.bytes if image.bytes is not None else Path(image.path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{where}image {image.path!r} cannot be read ({error.strerror}). Fix: put it there, or drop the pair."
        ) from None
    if (kind := image_type(data)) is None:
        raise ConfigError(
            f"{where}an image starts with {data[:8]!r}, which is not PNG, JPEG, GIF or WebP. "
            "Fix: convert it, or drop the pair."
        )
    return image_part(data, kind)
