"""What a model is asked about a pair, in every order and with the prompt of training, and what it answered."""

from __future__ import annotations

import io
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, option_order
from data_prep.models.chat import image_part, sendable
from reward_fns.choice import score_selection


@dataclass(frozen=True)
class Question:
    """The pair of a row in one order.

    Attributes:
        rotation: number of the order; a pair of ``n`` contexts has ``n``.
        order: indices into ``pair.contexts`` as shown; index 0 supports. ``labels`` are those of the options as shown.
        messages: chat messages; images as PIL images in parts of type ``image``.
        replies: how many written replies to read; 0 for the options' scores.
    """

    row: int
    pair_id: str
    rotation: int
    order: tuple[int, ...]
    labels: tuple[str, ...]
    messages: list[dict[str, Any]] = field(repr=False, compare=False)
    replies: int = 0

    @property
    def key(self) -> tuple[str, int]:
        return self.pair_id, self.rotation

    @property
    def right(self) -> int:
        """Position of the supporting context."""
        return self.order.index(0)

    def sent(self) -> list[dict[str, Any]]:
        """The messages in the form of OpenAI's protocol: images as PNG data URLs."""
        return [{**message, "content": _sent(message["content"])} for message in self.messages]

    def votes(self, replies: Sequence[str]) -> Answer:
        """The answer in written replies, as the selection reward reads them."""
        about, right = {"labels": list(self.labels)}, self.labels[self.right]
        named = [score_selection("contextrl/selection", text, right, about)["parsed"] for text in replies]
        return Answer(votes=tuple(named.count(label) for label in self.labels), unread=named.count(""))


def _sent(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return sendable(content)
    parts: list[dict[str, Any]] = []
    for part in content:
        if part["type"] == "text":
            parts.append({"type": "text", "text": sendable(part["text"])})
        else:
            buffer = io.BytesIO()
            part["image"].save(buffer, "PNG")
            parts.append(image_part(buffer.getvalue()))
    return parts


class Answer(BaseModel):
    """What a model did with a question: ``scores`` if its logits were read, ``votes`` if its replies were.

    Attributes:
        scores: of the options as shown, up to a constant; ``mass``: probability on all labels, None if unknown.
        votes: how many replies chose each option; ``unread``: how many name none, 1 if no label is among the tokens
            that an endpoint tells.
        failure: why there is no answer, in a few words; ``detail`` with more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    scores: tuple[float, ...] | None = None
    mass: float | None = None
    votes: tuple[int, ...] | None = None
    unread: int = 0
    failure: str = ""
    detail: str = ""


def labels_for(options: int) -> tuple[str, ...]:
    """A, B, C, ... Raises ConfigError for more options than letters."""
    if options > len(string.ascii_uppercase):
        raise ConfigError(f"a pair has {options} contexts, and there are 26 letters. Fix: name labels with --labels.")
    return tuple(string.ascii_uppercase[: max(2, options)])


class Questions:
    """Makes the questions of pairs.

    ``seed`` is of the orders; with that of a training job, its validation asks in the same orders. ``replies`` says how
    many written replies to read to a question of a pair with so many options; 0 for scores.
    """

    def __init__(self, prompt: PromptConfig, seed: int = 1, replies: Callable[[int], int] = lambda options: 0) -> None:
        self.prompt, self.seed, self._replies = prompt, seed, replies
        self._renderer = PromptRenderer(prompt)

    def of(self, pair: ContrastivePair, row: int) -> Iterator[Question]:
        """One question for every rotation of the pair's order, so that every position is right once.

        Raises ConfigError for too few labels, or when the template fails on the pair.
        """
        options = len(pair.contexts)
        labels, replies = tuple(self.prompt.labels[:options]), self._replies(options)
        for rotation in range(options):
            order = option_order(pair.pair_id, options, 0, self.seed, rotation)
            messages = self._renderer.messages(pair, order)
            yield Question(row, pair.pair_id, rotation, tuple(order), labels, messages, replies)
