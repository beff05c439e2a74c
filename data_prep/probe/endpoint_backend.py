"""A model behind an OpenAI-compatible endpoint: its log-probabilities of the labels, or replies that it writes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.difficulty.attempts import Attempt, Reply, as_sent, chosen
from data_prep.difficulty.solvers import EndpointSolver, SolverSpec
from data_prep.models.chat import FirstToken
from data_prep.probe.questions import Answer, ProbeError, Question

VERSION = "probe-1"
# As many as OpenAI's protocol allows.
_LISTED = 20


class ProbeSpec(SolverSpec):
    """The probed model, at temperature 1: replies must differ, and only then log-probabilities are its own."""

    cache: Path | None = Path("outputs/probe_cache")


class EndpointBackend:
    """A model behind an endpoint.

    Args:
        spec: address, model, cap, cache.
        prompt: template, labels, chat_template_kwargs (sent along); a prefill cannot be sent.
        sampled: 0 reads the log-probabilities of the first token; ``n`` lets the model write ``n`` replies to each
            question, which are read as the selection reward reads them.

    A label's log-probability is that of all listed tokens that are the label but for white space. One that is not
    listed counts as just below the least of the 20, so its margin is a bound; a question none of whose labels is listed
    counts as one without a choice.

    Raises:
        ProbeError: a prefill is asked for.
    """

    window: int | None = None

    def __init__(
        self, spec: ProbeSpec, prompt: PromptConfig, *, sampled: int = 0, environ: Mapping[str, str] = os.environ
    ) -> None:
        if prompt.prefill:
            raise ProbeError(
                f"--prefill is {prompt.prefill!r}, and a chat endpoint starts the reply itself. Fix: leave it out, or "
                "ask the model with --model."
            )
        self.name, self._sampled = spec.model, sampled
        extra = {"chat_template_kwargs": prompt.chat_template_kwargs} if prompt.chat_template_kwargs else {}
        if not sampled:
            extra |= {"logprobs": True, "top_logprobs": _LISTED}
            spec = spec.model_copy(update={"max_tokens": 1, "malformed_tries": 1, "again_if_malformed": True})
        spec = spec.model_copy(update={"extra": {**spec.extra, **extra}})
        self._new_solver = lambda: (EndpointSolver if sampled else _FirstTokens)(spec, environ)
        self._solver = self._new_solver()
        self._counts = {"a_label_not_listed": 0, "no_label_listed": 0}

    def length(self, question: Question) -> None:
        """Unknown: the endpoint has the tokenizer."""
        return None

    def load(self) -> None:
        """Nothing to load."""

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers in the order of the questions.

        Raises:
            ProbeError: the endpoint gives no log-probabilities; found out with the first question alone.
            ConfigError: nothing more can be asked; what was answered is in the cache.
        """
        if self._sampled:
            yield from self._by_sampling(questions)
        else:
            yield from self._by_logprobs(questions)

    def summary(self) -> dict[str, Any]:
        made = {"backend": "endpoint", "how": f"{self._sampled} replies" if self._sampled else "first token's logprobs"}
        return {**made, **({} if self._sampled else self._counts), "usage": self._solver.summary()}

    def _by_logprobs(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        stream = iter(questions)
        first = next(stream, None)
        if first is None:
            return
        self._try(first)
        asked: dict[tuple[str, int], Question] = {}

        def attempts() -> Iterator[Attempt]:
            for question in chain([first], stream):
                asked[question.key] = question
                yield _attempt(question, question.rotation)

        for attempt, reply in self._solver.solve(attempts()):
            question = asked.pop((attempt.pair_id, attempt.number))
            yield question, self._read(question, reply)

    def _try(self, question: Question) -> None:
        """Ask one question by itself; its answer is found in the cache again."""
        _, reply = next(self._new_solver().solve([_attempt(question, question.rotation)]))
        if reply.failure in ("malformed", "refused") and "logprob" in reply.detail:
            raise ProbeError(
                f"--endpoint {self.name}: the endpoint gives no logprobs (it says: {reply.detail}), so the options' "
                "log-probabilities cannot be read. Fix: use --sampled 4, which reads written replies instead."
            )

    def _read(self, question: Question, reply: Reply) -> Answer:
        if not isinstance(reply, _Listed):
            return Answer(failure=reply.failure, detail=reply.detail)
        found = [
            _logsumexp([value for token, value in reply.likeliest if token.strip() == label])
            for label in question.labels
        ]
        known = [value for value in found if value is not None]
        if not known:
            self._counts["no_label_listed"] += 1
            return Answer(votes=(0,) * len(found), unread=1, mass=0.0)
        self._counts["a_label_not_listed"] += len(known) < len(found)
        least = min(value for _, value in reply.likeliest)
        scores = tuple(math.nextafter(least, -math.inf) if value is None else value for value in found)
        return Answer(scores=scores, mass=math.fsum(map(math.exp, known)))

    def _by_sampling(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        asked: dict[tuple[str, int], Question] = {}

        def attempts() -> Iterator[Attempt]:
            for question in questions:
                asked[question.key] = question
                for draw in range(self._sampled):
                    # Numbers of draws never meet: another rotation is another question.
                    yield _attempt(question, question.rotation * self._sampled + draw)

        replies: list[Reply] = []
        for attempt, reply in self._solver.solve(attempts()):
            replies.append(reply)
            if len(replies) == self._sampled:
                question = asked.pop((attempt.pair_id, attempt.number // self._sampled))
                yield question, _counted(attempt, replies)
                replies = []


def _attempt(question: Question, number: int) -> Attempt:
    right = question.labels[question.right]
    return Attempt(question.pair_id, number, question.labels, right, question.messages)


def _counted(attempt: Attempt, replies: list[Reply]) -> Answer:
    """All replies to a question; one that did not come leaves the question without an answer."""
    for reply in replies:
        if reply.text is None:
            return Answer(failure=reply.failure, detail=reply.detail)
    named = [chosen(attempt, reply.text) for reply in replies]
    return Answer(votes=tuple(named.count(label) for label in attempt.labels), unread=named.count(""))


def _logsumexp(values: list[float]) -> float | None:
    if not values:
        return None
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


@dataclass(frozen=True)
class _Listed(Reply):
    """A reply with the tokens listed for its first place."""

    likeliest: tuple[tuple[str, float], ...] = ()


class _FirstTokens(EndpointSolver):
    """The asking of ``contextrl difficulty``, for first tokens."""

    async def _try(self, attempt: Attempt) -> Reply:
        reply = await self.ask(as_sent(attempt.messages), FirstToken, VERSION)
        if reply.value is None:
            return Reply(None, reply.how, reply.why)
        return _Listed(reply.value.text, likeliest=tuple(reply.value.likeliest))
