"""Proposes edits with a vision-language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from data_prep.images.edit.plan import Details, EditPlan, NotEdited, Operation, answered, clipped
from data_prep.images.item import question_key
from data_prep.images.store import encoded
from data_prep.models.chat import ChatEndpoint, image_part, question_templates, sendable

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.item import VqaItem

# Part of the cache key: raise it whenever the templates or the way they are filled change.
PROMPT_VERSION = "propose-1"
# Models place boxes a few per cent off; the region must hold the whole change.
_MARGIN = 0.03
_LEAST_SHARE, _MOST_SHARE = 0.0004, 0.6
# A proposal of a few sentences and the names around it.
_USUAL_REPLY_TOKENS = 180

_templates = question_templates(Path(__file__).parent)


class Proposal(BaseModel):
    """What the model answers."""

    model_config = ConfigDict(extra="forbid")
    possible: bool
    operation: Operation
    target: str = Field(max_length=300)
    instruction: str = Field(max_length=2000)
    new_answer: str = Field(max_length=300)
    left: float = Field(ge=0, le=1)
    top: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)
    bottom: float = Field(ge=0, le=1)
    reason: str = Field(max_length=2000)


class VlmProposer(ChatEndpoint):
    """A vision-language model that says what to change."""

    @property
    def name(self) -> str:
        return f"vlm:{self.spec.model} {PROMPT_VERSION}"

    def template(self, item: VqaItem) -> str | None:
        """The first words of the question: they say what kind it is."""
        return " ".join(question_key(item.question).split()[:2])

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """See :class:`data_prep.images.edit.plan.Offline`; the seed has no influence."""
        reply = await self.ask(proposal_messages(item, image), Proposal, PROMPT_VERSION)
        return _plan(answered(reply, "proposal"), image)

    def sentence(self, questions: Iterable[tuple[VqaItem, Image.Image]]) -> str:
        """About calls, tokens and cost; asks nothing."""
        asked = ((proposal_messages(item, image), PROMPT_VERSION) for item, image in questions)
        return self.estimate(asked, Proposal, _USUAL_REPLY_TOKENS)


def proposal_messages(item: VqaItem, image: Image.Image) -> list[dict[str, Any]]:
    """The chat messages that ask for an edit; the picture goes along as a data URL."""
    # The question is data, whatever it says; a fence drawn from it cannot be guessed and closed inside it.
    text = "\0".join([item.question, item.answer]).encode("utf-8", "surrogatepass")
    asked = _templates.get_template("propose_question.jinja").render(
        question=item.question, answer=item.answer, fence=hashlib.sha256(text).hexdigest()[:12]
    )
    return [
        {"role": "system", "content": _templates.get_template("propose_system.jinja").render()},
        {"role": "user", "content": [image_part(encoded(image)), {"type": "text", "text": sendable(asked)}]},
    ]


def _plan(found: Proposal, image: Image.Image) -> EditPlan:
    """Raises NotEdited if nothing is proposed that can be used."""
    if not found.possible:
        raise NotEdited("no edit proposed", found.reason)
    if not found.new_answer.strip() or not found.instruction.strip():
        raise NotEdited("incomplete proposal", "without a new answer or an instruction")
    wide, tall = found.right - found.left, found.bottom - found.top
    if min(wide, tall) <= 0 or not _LEAST_SHARE <= wide * tall <= _MOST_SHARE:
        box = (found.left, found.top, found.right, found.bottom)
        raise NotEdited("region too large or too small", f"{box}, {wide * tall:.1%} of the picture")
    edges = (found.left - _MARGIN, found.top - _MARGIN, found.right + _MARGIN, found.bottom + _MARGIN)
    return EditPlan(
        **found.model_dump(include={"operation", "target", "new_answer", "instruction"}),
        region=clipped([edge * side for edge, side in zip(edges, image.size * 2, strict=True)], image.size[::-1]),
        details=Details(reason=found.reason),
    )
