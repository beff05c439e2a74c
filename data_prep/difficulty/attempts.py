"""The tries of a model at a pair: what it is asked, and whether a reply solves it."""

from __future__ import annotations

import base64
import io
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, option_order
from data_prep.models.chat import sendable
from reward_fns.selection import score_selection


@dataclass(frozen=True)
class Attempt:
    """One try.

    Attributes:
        pair_id: of the pair; ``number`` of the try, from 0.
        labels: of the options as shown; ``right`` is the supporting one's.
        messages: chat messages; images as PIL images in parts of type ``image``.
    """

    pair_id: str
    number: int
    labels: tuple[str, ...]
    right: str
    messages: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """What came back: ``text``, or ``failure`` that says in a few words why there is none."""

    text: str | None
    failure: str = ""
    detail: str = ""


class Solver(Protocol):
    """The model whose difficulty counts."""

    name: str

    def solve(self, attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, Reply]]:
        """Replies in the order of the attempts; takes them one by one, so that they need not fit in memory."""
        ...

    def summary(self) -> dict[str, Any]:
        """Counts for the report, as plain JSON values."""
        ...


def attempts_of(
    pairs: Iterable[ContrastivePair], tries: int, *, template: str = "select_context", seed: int = 1
) -> Iterator[Attempt]:
    """``tries`` attempts at each pair; the supporting context stands in every position equally often.

    Raises:
        ConfigError: ``tries`` is no multiple of a pair's options, so that a position would come more often.
        ConfigError: the template fails.
    """
    renderers: dict[int, PromptRenderer] = {}
    for pair in pairs:
        options = len(pair.contexts)
        if tries % options:
            raise ConfigError(
                f"--tries is {tries}, and pair {pair.pair_id!r} has {options} contexts: the right one would stand in "
                f"some position more often. Fix: a multiple of {options}, e.g. {options * max(1, round(8 / options))}."
            )
        if options not in renderers:
            labels = tuple(string.ascii_uppercase[:options])
            renderers[options] = PromptRenderer(PromptConfig(template=template, labels=labels))
        renderer = renderers[options]
        shown: list[Attempt] = []
        for rotation in range(options):
            order = option_order(pair.pair_id, options, 0, seed, rotation)
            labels = renderer.config.labels
            right = labels[order.index(0)]
            shown.append(Attempt(pair.pair_id, rotation, labels, right, renderer.messages(pair, order)))
        for number in range(tries):
            yield replace(shown[number % options], number=number)


def chosen(attempt: Attempt, text: str) -> str:
    """The label that a reply names by the selection reward's own parser; empty if none."""
    return score_selection("contextrl/selection", text, attempt.right, {"labels": list(attempt.labels)})["parsed"]


def as_sent(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages in the form of OpenAI's protocol: images as PNG data URLs."""
    sent = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                {"type": "image_url", "image_url": {"url": _data_url(part["image"])}}
                if part["type"] == "image"
                else {"type": "text", "text": sendable(part["text"])}
                for part in content
            ]
        else:
            content = sendable(content)
        sent.append({"role": message["role"], "content": content})
    return sent


def _data_url(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
