"""Proposes edits with a vision-language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from data_prep.images.edit.base import NotReached
from data_prep.images.edit.plan import EditPlan, NotEdited, Operation, clipped
from data_prep.images.store import encode_alike
from data_prep.images.wording import answer_key, question_key
from data_prep.models.chat import ChatEndpoint, Reply, question_templates, sendable

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.item import VqaItem

# Part of the cache key: raise it whenever the templates or the way they are filled change.
PROMPT_VERSION = "propose-1"
# Models place boxes a few per cent off; the region must hold the whole change.
_MARGIN = 0.03
_LEAST_SHARE, _MOST_SHARE = 0.0004, 0.6

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


def proposal_messages(item: VqaItem, image: Image.Image) -> list[dict[str, Any]]:
    """The chat messages that ask for an edit; the picture goes along as a data URL."""
    from contextrl_verl.pairs import ImageRef
    from data_prep.verify.judge import data_url

    # The question is data, whatever it says; a fence drawn from it cannot be guessed and closed inside it.
    text = "\0".join([item.question, item.answer]).encode("utf-8", "surrogatepass")
    fence = hashlib.sha256(text).hexdigest()[:12]
    asked = _templates.get_template("propose_question.jinja").render(
        question=item.question, answer=item.answer, fence=fence
    )
    asked = sendable(asked)
    picture = data_url(ImageRef(bytes=encode_alike([image])[0]))
    return [
        {"role": "system", "content": _templates.get_template("propose_system.jinja").render()},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": asked}],
        },
    ]


class VlmProposer(ChatEndpoint):
    """A vision-language model that says what to change."""

    remote = True

    @property
    def name(self) -> str:
        return f"vlm:{self.spec.model} {PROMPT_VERSION}"

    def template(self, item: VqaItem) -> str | None:
        """The first words of the question: they say what kind it is."""
        return " ".join(question_key(item.question).split()[:2])

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """See :class:`data_prep.images.edit.base.Proposer`; the seed has no influence."""
        return plan_of(await self.ask(proposal_messages(item, image), Proposal, PROMPT_VERSION), item, image)


def plan_of(reply: Reply[Proposal], item: VqaItem, image: Image.Image) -> EditPlan:
    """The plan in a reply.

    Raises:
        NotReached: the model was not asked.
        NotEdited: it proposed nothing that can be used.
    """
    if reply.how in ("spending cap", "failed"):
        raise NotReached(reply.how, reply.why)
    if reply.value is None:
        raise NotEdited(f"{reply.how} proposal", reply.why)
    found = reply.value
    if not found.possible:
        raise NotEdited("no edit proposed", found.reason)
    if not found.new_answer.strip() or not found.instruction.strip():
        raise NotEdited("incomplete proposal", "without a new answer or an instruction")
    if not answer_key(found.new_answer).differs(answer_key(item.answer)):
        raise NotEdited("proposal keeps the answer", f"{found.new_answer!r} for {item.answer!r}")
    share = (found.right - found.left) * (found.bottom - found.top)
    if found.right <= found.left or found.bottom <= found.top or not _LEAST_SHARE <= share <= _MOST_SHARE:
        box = (found.left, found.top, found.right, found.bottom)
        raise NotEdited("region too large or too small", f"{box}, {share:.1%} of the picture")
    region = clipped(
        (
            (found.left - _MARGIN) * image.width,
            (found.top - _MARGIN) * image.height,
            (found.right + _MARGIN) * image.width,
            (found.bottom + _MARGIN) * image.height,
        ),
        (image.height, image.width),
    )
    return EditPlan(
        operation=found.operation,
        target=found.target,
        new_answer=found.new_answer,
        instruction=found.instruction,
        region=region,
        details={"reason": found.reason},
    )
