"""A model behind an OpenAI-compatible endpoint: its log-probabilities of the labels, or replies that it writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.models.chat import ChatEndpoint, FirstToken, FreeText
from data_prep.models.endpoint import Reply, answers
from data_prep.models.spec import ModelSpec
from data_prep.probe.questions import Answer, Question

VERSION = "probe-1"
# As many as OpenAI's protocol allows.
_LISTED = 20
_USUAL_REPLY_TOKENS = 200


class ProbeSpec(ModelSpec):
    """The probed model, at temperature 1: replies must differ, and only then log-probabilities are its own."""

    temperature: float | None = 1.0
    cache: Path | None = Path("outputs/probe_cache")


class EndpointBackend(ChatEndpoint):
    """A model behind an endpoint.

    Args:
        prompt: chat_template_kwargs are sent along; a prefill cannot be sent.
        written: read the replies that each question wants, as the selection reward reads them; else the
            log-probabilities of the first token.

    A label's log-probability is that of all listed tokens that are the label but for white space. One that is not
    listed counts as just below the least of the 20, so its margin is a bound; a question none of whose labels is listed
    counts as one without a choice.

    Raises:
        ConfigError: a prefill or ``split`` is asked for.
    """

    window: int | None = None

    def __init__(self, spec: ProbeSpec, prompt: PromptConfig, *, written: bool = False) -> None:
        if prompt.prefill:
            raise ConfigError(
                f"--prefill is {prompt.prefill!r}, and a chat endpoint starts the reply itself. Fix: leave it out, or "
                "ask the model with --model."
            )
        if prompt.special_tokens_in_text == "split":
            raise ConfigError(
                "--special-tokens-in-text is 'split', and a chat endpoint turns text into tokens itself. Fix: leave it "
                "out, or ask the model with --model."
            )
        extra: dict[str, Any] = dict(spec.extra)
        if prompt.chat_template_kwargs:
            extra["chat_template_kwargs"] = prompt.chat_template_kwargs
        changes: dict[str, Any] = {"extra": extra}
        if not written:
            extra |= {"logprobs": True, "top_logprobs": _LISTED}
            changes |= {"max_tokens": 1, "malformed_tries": 1, "again_if_malformed": True}
        super().__init__(spec.model_copy(update=changes))
        self.name, self._written = spec.model, written
        self._bounds = 0

    def length(self, question: Question) -> None:
        """Unknown: the endpoint has the tokenizer."""

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers in the order of the questions; a lost reply leaves its question without one.

        Raises:
            ConfigError: the endpoint gives no log-probabilities, found out with the first question alone; or nothing
                more can be asked, and what was answered is in the cache.
        """
        if self._written:
            draws = ((question, number) for question in questions for number in range(question.replies))
            for question, found in groupby(answers(self, draws, self._reply), key=lambda one: one[0][0]):
                replies = [reply for _, reply in found]
                lost = next((Answer(failure=one.how, detail=one.why) for one in replies if one.value is None), None)
                yield question, lost or question.votes([reply.value.text for reply in replies])
            return
        stream = iter(questions)
        for question, answer in answers(self, islice(stream, 1), self._first_token):
            if answer.failure in ("malformed", "refused") and "logprob" in answer.detail:
                raise ConfigError(
                    f"--endpoint {self.name}: the endpoint gives no logprobs (it says: {answer.detail}), so the "
                    "options' log-probabilities cannot be read. Fix: use --sampled 4, which reads written replies "
                    "instead."
                )
            yield question, answer
        yield from answers(self, stream, self._first_token)

    def summary(self) -> dict[str, Any]:
        how = {"how": "written replies"}
        if not self._written:
            how = {"how": "first token's logprobs", "a_label_not_listed": self._bounds}
        return {"backend": "endpoint", **how, "usage": super().summary()}

    def sentence(self, questions: Iterable[Question]) -> str:
        """About calls, tokens and cost of written replies; asks nothing."""
        asked = ((one.sent(), f"{VERSION}:{number}") for one in questions for number in range(one.replies))
        return self.estimate(asked, FreeText, _USUAL_REPLY_TOKENS)

    async def _reply(self, draw: tuple[Question, int]) -> Reply[FreeText]:
        # The number is part of the version: every reply is a draw of its own.
        return await self.ask(draw[0].sent(), FreeText, f"{VERSION}:{draw[1]}")

    async def _first_token(self, question: Question) -> Answer:
        reply = await self.ask(question.sent(), FirstToken, VERSION)
        if reply.value is None:
            return Answer(failure=reply.how, detail=reply.why)
        listed = reply.value.likeliest
        found = [
            float(np.logaddexp.reduce([value for token, value in listed if token.strip() == label]))
            for label in question.labels
        ]
        unlisted = found.count(-math.inf)
        if unlisted == len(found):
            return Answer(votes=(0,) * len(found), unread=1, mass=0.0)
        self._bounds += unlisted > 0
        below = math.nextafter(min(value for _, value in listed), -math.inf)
        return Answer(scores=tuple(max(value, below) for value in found), mass=math.fsum(map(math.exp, found)))
