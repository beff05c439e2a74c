"""A pair as the probe asks it: in every order, with the prompt of training."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, option_order


class ProbeError(ConfigError):
    """The probe cannot run; one paragraph that names value, place and fix."""


@dataclass(frozen=True)
class Question:
    """A pair in one order.

    Attributes:
        row: of the pair in its file.
        rotation: number of the order; a pair of ``n`` contexts has ``n``.
        order: indices into ``pair.contexts`` as shown; index 0 supports.
        labels: of the options as shown.
        right: position of the supporting context.
        messages: chat messages; images as PIL images in parts of type ``image``.
    """

    row: int
    pair_id: str
    rotation: int
    order: tuple[int, ...]
    labels: tuple[str, ...]
    right: int
    messages: list[dict[str, Any]] = field(repr=False, compare=False)

    @property
    def key(self) -> tuple[str, int]:
        return self.pair_id, self.rotation


@dataclass(frozen=True)
class Answer:
    """What a model did with a question.

    Either ``scores`` is filled (the model's logits were read), or ``votes`` (its replies were), or ``failure``.

    Attributes:
        scores: of the options as shown: logits, up to a constant; None if it replied with text.
        mass: probability on all labels together; None if unknown.
        votes: how many replies chose each option.
        unread: replies that name no option; with ``scores``, 1 if no option is among the tokens an endpoint tells.
        failure: why there is no answer, in a few words; ``detail`` with more.
    """

    scores: tuple[float, ...] | None = None
    mass: float | None = None
    votes: tuple[int, ...] | None = None
    unread: int = 0
    failure: str = ""
    detail: str = ""


class Backend(Protocol):
    """A model that can be asked.

    Attributes:
        name: of the model.
        window: tokens of a question at most; None if unknown.
    """

    name: str
    window: int | None

    def length(self, question: Question) -> int | None:
        """Tokens of a question; None if this backend cannot count."""
        ...

    def load(self) -> None:
        """Get ready: the expensive part, called once, after every question was found to fit."""
        ...

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        """An answer for every question, in any order; questions are taken as they are needed."""
        ...

    def summary(self) -> dict[str, Any]:
        """What tells how the answers were made, as plain JSON values."""
        ...


def labels_for(options: int) -> tuple[str, ...]:
    """A, B, C, ... Raises ProbeError for more options than letters."""
    if options > len(string.ascii_uppercase):
        raise ProbeError(f"a pair has {options} contexts, and there are 26 letters. Fix: name labels with --labels.")
    return tuple(string.ascii_uppercase[: max(2, options)])


class Questions:
    """Makes the questions of pairs.

    Args:
        prompt: template, labels, prefill.
        seed: of the orders; with the seed of a training job, its validation asks in the same orders.
    """

    def __init__(self, prompt: PromptConfig, seed: int = 1) -> None:
        self.prompt, self.seed = prompt, seed
        self._renderer = PromptRenderer(prompt)

    def of(self, pair: ContrastivePair, row: int) -> Iterator[Question]:
        """One question for every rotation of the pair's order, so that every position is right once.

        Raises:
            ConfigError: too few labels, or the template fails on the pair.
        """
        options = len(pair.contexts)
        for rotation in range(options):
            order = option_order(pair.pair_id, options, 0, self.seed, rotation)
            yield Question(
                row=row,
                pair_id=pair.pair_id,
                rotation=rotation,
                order=tuple(order),
                labels=tuple(self.prompt.labels[:options]),
                right=order.index(0),
                messages=self._renderer.messages(pair, order),
            )
