"""Questions to an endpoint: cached, tried again, many at a time, and none any more once the cap is spent.

The client of the ``openai`` package sends requests and tries them again as long as the server says.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, NonNegativeInt, SecretStr, TypeAdapter, ValidationError

from contextrl_verl.errors import ConfigError
from data_prep.models.cache import ReplyCache
from data_prep.models.spec import ModelSpec, read_key, scrubbed, shown_url

Question = TypeVar("Question")
Answer = TypeVar("Answer")
# Questions in work beyond those the endpoint answers at a time, so that one slow answer does not stop the others.
_AHEAD = 64
# So many refused requests without a single answer mean that the request itself is wrong, not its content.
_REFUSALS_BEFORE_STOP = 5
_SHOWN = 300
# What the running task's request may cost at most, as counts of the budget's prices.
_bound: ContextVar[tuple[int, int]] = ContextVar("bound")
_adapter = lru_cache(TypeAdapter)


class MalformedReply(ValueError):
    """A reply without a usable answer; says what is wrong with it."""


class NotAnswered(Exception):
    """One question stays without an answer; others may go on."""

    def __init__(self, how: Literal["refused", "failed", "spending cap"], why: str) -> None:
        super().__init__(why)
        self.how = how


@dataclass(frozen=True)
class Reply(Generic[Answer]):
    """What became of one question: ``value`` is filled if and only if ``how`` is ``answered``."""

    how: Literal["answered", "malformed", "refused", "spending cap", "failed", "not asked"]
    value: Answer | None = None
    why: str = ""
    cached: bool = False


class Usage(BaseModel):
    """HTTP requests, and those without an answer by status; answers from the endpoint and from the cache; replies that
    could not be used, and questions given up for that; others without an answer, by cause; what was sent instead."""

    requests: int = 0
    answered: int = 0
    cached: int = 0
    malformed_replies: int = 0
    malformed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    failures: Counter[str] = Counter()
    unanswered: Counter[str] = Counter()
    fallbacks: list[str] = []


class Endpoint:
    """Base of all clients; asks within ``async with``, in several event loops if need be, else knows its cache only.
    Raises ConfigError: an address, prices or a cap that make no sense; on entry, no key."""

    # Of the provider, which wants a key; the variable may name another address.
    default_url = "https://api.openai.com/v1"
    url_variable = "OPENAI_BASE_URL"
    remote = True

    def __init__(self, spec: ModelSpec) -> None:
        self.spec, self.budget, self.usage = spec, spec.budget(), Usage()
        self.url = spec.base_url or os.environ.get(self.url_variable) or self.default_url
        self.shown = shown_url(self.url)
        self.cache = ReplyCache(spec.cache) if spec.cache is not None else None
        self._key, self._client = SecretStr(""), None

    async def __aenter__(self) -> Self:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        usage, budget = self.usage, self.budget

        class Counting(DefaultAsyncHttpxClient):
            """Counts every request, those that the client repeats as well."""

            async def send(self, request: Any, **options: Any) -> Any:
                usage.requests += 1
                try:
                    response = await super().send(request, **options)
                except BaseException as error:
                    usage.failures["no answer"] += 1
                    # What was sent and not answered may be billed.
                    if type(error).__name__ not in ("ConnectError", "ConnectTimeout"):
                        budget.add(_bound.get(), uncertain=True)
                    raise
                if response.status_code >= 400:
                    usage.failures[str(response.status_code)] += 1
                return response

        wants_key = self.url.startswith(self.default_url.removesuffix("/v1"))
        self._key = read_key(self.spec.key_variable, self.default_url if wants_key else None)
        self._client = AsyncOpenAI(
            api_key=self._key.get_secret_value(),
            base_url=self.url,
            max_retries=self.spec.tries - 1,
            timeout=self.spec.timeout,
            http_client=Counting(),
        )
        self._free = asyncio.Semaphore(self.spec.concurrency)
        self._failed_in_a_row, self._stop = 0, None
        return self

    async def __aexit__(self, *exception: object) -> None:
        client, self._client = self._client, None
        await client.close()

    async def reply(
        self, key: str, ask: Callable[[str], Awaitable[Any]], load: Callable[[Any], Answer]
    ) -> Reply[Answer]:
        """What becomes of one question; an answer is paid for at most once.

        ``ask`` asks once and bills; it takes what was wrong with the reply before this one, or nothing, and returns the
        answer as JSON value; ``load`` goes from such a value to the answer. Both raise MalformedReply; ``load`` raises
        any ValueError or TypeError of a damaged file. Raises ConfigError: nothing more can be asked (wrong key,
        endpoint down, cache not writable).
        """
        if (known := self.stored_reply(key, load)) is not None:
            self.usage.cached += 1
            return known
        if self._client is None:
            return Reply("not asked", why="it is not in the cache")
        value, problem = None, ""
        try:
            for _ in range(self.spec.malformed_tries):
                try:
                    value = await ask(problem)
                    reply = Reply("answered", load(value))
                    self.usage.answered += 1
                    self._failed_in_a_row = 0
                    break
                except MalformedReply as error:
                    value, problem = None, self.scrub(str(error))
                    self.usage.malformed_replies += 1
            else:
                reply = Reply("malformed", None, f"{self.spec.malformed_tries} unusable replies; the last: {problem}")
                self.usage.malformed += 1
        except NotAnswered as error:
            self._count(error)
            return Reply(error.how, None, str(error))
        if self.cache:
            self.cache.write(key, {"model": self.spec.model, "how": reply.how, "why": reply.why, "value": value})
        return reply

    def stored_reply(self, key: str, load: Callable[[Any], Answer]) -> Reply[Answer] | None:
        """The cache's reply to a question, or None if it has to be asked."""
        record = self.cache.read(key) if self.cache else None
        if record is None or (record.get("how") == "malformed" and self.spec.again_if_malformed):
            return None
        if record.get("how") == "malformed":
            return Reply("malformed", None, str(record.get("why")), cached=True)
        try:
            return Reply("answered", load(record.get("value")), cached=True)
        except (TypeError, ValueError):
            self.cache.damaged += 1
            return None

    async def send(self, call: Callable[[Any], Awaitable[Any]], bound: tuple[int, int]) -> Any:
        """The body of one answer as JSON values, None if it is no JSON; not yet counted as spent.

        Args:
            call: from the client to a response with ``content``; see :func:`post`.
            bound: what a request may cost at most, as counts of the budget's prices; one that was sent and not answered
                may be billed, and is counted so.

        Raises:
            NotAnswered: this question has no answer.
            ConfigError: nothing more can be asked.
        """
        async with self._free:
            if self._stop is not None:
                raise self._stop
            if self.budget.reached:
                raise NotAnswered("spending cap", "the spending cap is reached")
            _bound.set(bound)
            try:
                body = (await call(self._client)).content
            except Exception as error:
                problem = self._meaning(error)
                if isinstance(problem, ConfigError):
                    self._stop = problem
                raise problem from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None

    def bill(self, body: Any, bound: tuple[int, int]) -> None:
        """Count the tokens that an answer says it took; one that does not say counts at its worst case."""
        said = [at(body, NonNegativeInt, "usage", f"{kind}_tokens") for kind in ("prompt", "completion")]
        tokens = (said[0], said[1] if bound[1] else 0)
        if None in tokens:
            return self.budget.add(bound, uncertain=True)
        self.budget.add(tokens)
        self.usage.input_tokens += tokens[0]
        self.usage.output_tokens += tokens[1]

    def _count(self, error: NotAnswered) -> None:
        """Count a question without an answer. Raises ConfigError if the endpoint itself seems to be at fault."""
        usage = self.usage
        usage.unanswered[error.how] += 1
        self._failed_in_a_row += error.how == "failed"
        if (refused := usage.unanswered["refused"]) >= _REFUSALS_BEFORE_STOP and not usage.answered + usage.cached:
            self._stop = ConfigError(
                f"The endpoint {self.shown} refused {refused} requests and answered none; the last refusal: {error} "
                "Fix: correct the model's name or the parameters it does not take."
            )
        # One request may be at fault by itself; two in a row without an answer between them mean the endpoint.
        elif self._failed_in_a_row > 1:
            self._stop = self.down(str(error))
        if self._stop is not None:
            raise self._stop

    def down(self, why: str) -> ConfigError:
        """The paragraph for an endpoint that does not answer."""
        return ConfigError(
            f"The endpoint {self.shown} does not answer after {self.spec.tries} tries; the last failure: {why} Answers "
            "that came are kept in the cache. Fix: see that it is up, then run the command again; it asks only what "
            "is missing."
        )

    def _meaning(self, error: Exception) -> Exception:
        """NotAnswered or ConfigError for what the client raised in the end; neither shows the key."""
        import openai

        if isinstance(error, openai.APIConnectionError):
            what = self.scrub(str(error.__cause__ or error)) or "timed out"
            return NotAnswered("failed", f"no answer within {self.spec.timeout:g} seconds, or no connection ({what}).")
        if not isinstance(error, openai.APIStatusError):
            what = self.scrub(f"{type(error).__name__}: {error}")
            return ConfigError(f"A request to {self.shown} could not be made ({what}). Fix: see the settings it has.")
        body, status = error.body, error.status_code
        said = " ".join(str((isinstance(body, dict) and body.get("message")) or error.message).split())
        detail = f"HTTP {status}: {self.scrub(said)}"
        # 429 comes for a minute's rate as well as for a used-up account or day.
        used_up = error.code == "insufficient_quota" or "per day" in said.lower()
        if status in (408, 409) or status >= 500 or (status == 429 and not used_up):
            return NotAnswered("failed", detail)
        if status == 400 and "api key" in said.lower():
            status = 401
        fixes = {
            401: f"see that the environment variable {self.spec.key_variable} holds a valid key",
            402: "pay the account's bill, or use another endpoint",
            403: f"see that the key in {self.spec.key_variable} may use the model {self.spec.model!r}",
            404: f"correct the model {self.spec.model!r} or the endpoint's address, which often ends in /v1",
            429: "the account's quota is used up: raise it, or use another endpoint",
        }
        if status in fixes:
            return ConfigError(f"The endpoint {self.shown} answers {detail} Fix: {fixes[status]}.")
        return NotAnswered("refused", detail)

    def scrub(self, text: str, room: int | None = _SHOWN) -> str:
        """The text without the key, cut to so many characters."""
        return scrubbed(text, self._key)[:room]

    def summary(self) -> dict[str, Any]:
        """Requests, answers, tokens and money as plain values."""
        own = {"model": self.spec.model, "damaged_cache_files": self.cache.damaged if self.cache else 0}
        return {**self.usage.model_dump(), **own, **self.budget.summary()}


def at(body: Any, kind: Any, *path: str | int) -> Any:
    """What stands at a place of a stranger's reply; None if nothing of that kind does."""
    try:
        for step in path:
            body = body[step]
        return _adapter(kind).validate_python(body)
    except (LookupError, TypeError, ValidationError):
        return None


def post(path: str, body: dict[str, Any], **options: Any) -> Callable[[Any], Awaitable[Any]]:
    """A request of JSON for :meth:`Endpoint.send`."""
    import httpx

    return lambda client: client.post(path, cast_to=httpx.Response, body=body, options=options)


def answers(
    session: AbstractAsyncContextManager[Any],
    questions: Iterable[Question],
    ask: Callable[[Question], Awaitable[Answer]],
) -> Iterator[tuple[Question, Answer]]:
    """Each question with its answer, in their order, asked within ``async with session``.

    A bounded number is in work, and the rest is not yet read.
    """

    async def stream() -> AsyncIterator[tuple[Question, Answer]]:
        running: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        async with session:
            try:
                for question in questions:
                    running.append((question, asyncio.ensure_future(ask(question))))
                    await asyncio.sleep(0)
                    while len(running) >= _AHEAD or (running and running[0][1].done()):
                        yield running[0][0], await running.popleft()[1]
                while running:
                    yield running[0][0], await running.popleft()[1]
            finally:
                for _, task in running:
                    task.cancel()
                await asyncio.gather(*(task for _, task in running), return_exceptions=True)

    # One event loop for the whole stream, driven from here.
    with asyncio.Runner() as runner:
        found = stream()
        try:
            while True:
                try:
                    yield runner.run(anext(found))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(found.aclose())
