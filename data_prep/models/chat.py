"""Structured answers from any endpoint that speaks OpenAI's chat-completions protocol.

Every answer is paid for at most once: bounded concurrency, retries, a spending cap and a cache stand around the call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal

from data_prep.models.budget import Budget
from data_prep.models.cache import ReplyCache, digest
from data_prep.models.client import openai_client
from data_prep.models.endpoint import GuardedEndpoint
from data_prep.models.errors import CapReached, Refused, RemoteError, Transient
from data_prep.models.failures import classify
from data_prep.models.forms import RequestForm
from data_prep.models.key import DEFAULT_VARIABLE, endpoint_url, read_key
from data_prep.models.reply import Answer, Completion, FreeText, MalformedReply, parse_answer, read_completion
from data_prep.models.retry import RetryPolicy
from data_prep.models.tokens import input_bound

log = logging.getLogger(__name__)

How = Literal["answered", "malformed", "refused", "spending cap", "failed"]


@dataclass(frozen=True)
class ChatSettings:
    """Where and how to ask.

    Attributes:
        model: as the endpoint calls it.
        base_url: None for ``OPENAI_BASE_URL`` or OpenAI's own.
        key_variable: name of the environment variable that holds the key.
        temperature: None leaves the field out.
        max_tokens: of one reply, reasoning included; doubled when a reply was cut.
        malformed_tries: requests for one answer before it counts as malformed.
        again_if_malformed: ask again what the cache holds as malformed.
        concurrency: requests at a time.
        timeout: seconds for one request as a whole.
        tokens_per_image: most that an image may cost, for reservations.
        extra: more fields of the request body, such as ``{"reasoning_effort": "low"}``.
    """

    model: str
    base_url: str | None = None
    key_variable: str = DEFAULT_VARIABLE
    temperature: float | None = 0.0
    max_tokens: int = 2048
    malformed_tries: int = 3
    again_if_malformed: bool = False
    concurrency: int = 8
    timeout: float = 120.0
    tokens_per_image: int = 4096
    extra: dict[str, Any] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        least = {"max_tokens": 1, "malformed_tries": 1, "concurrency": 1, "tokens_per_image": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise RemoteError(f"{name} is {getattr(self, name)}. Fix: give at least {value}.")
        if not self.model or self.timeout <= 0:
            raise RemoteError(f"model is {self.model!r}, timeout {self.timeout}. Fix: name a model; wait some seconds.")

    def parameters(self) -> dict[str, Any]:
        """What of the settings can change an answer; part of the cache key."""
        return {"temperature": self.temperature, "max_tokens": self.max_tokens, **self.extra}


@dataclass(frozen=True)
class Reply(Generic[Answer]):
    """What became of one question: ``value`` is filled if and only if ``how`` is ``answered``."""

    how: How
    value: Answer | None = None
    why: str = ""
    cached: bool = False


class ChatEndpoint(GuardedEndpoint):
    """An endpoint within ``async with``; one per event loop.

    Args:
        settings: where and how.
        cache: None asks everything anew.
        budget: None counts and caps nothing.
        environ: where the key is read from.

    Raises:
        RemoteError: the address is none; on entry, no key, or the client library is not installed.
    """

    def __init__(
        self,
        settings: ChatSettings,
        cache: ReplyCache | None = None,
        budget: Budget | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(settings, cache, budget, endpoint_url(settings.base_url, environ))
        own = None if self.url.startswith("https://api.openai.com") else self.url
        self._read_key = lambda: read_key(settings.key_variable, own, environ)
        self._form = RequestForm()
        self._client: Any = None

    async def __aenter__(self) -> ChatEndpoint:
        self._secret, self._client = openai_client(self._read_key, self.url, self.settings.timeout, "judge")
        return self

    async def __aexit__(self, *exception: object) -> None:
        client, self._client = self._client, None
        await client.close()

    def key(self, messages: list[dict[str, Any]], form: type[Answer], version: str) -> str:
        """The cache key of a question: model, version of the prompt, messages, form of the answer, parameters."""
        return digest(
            {
                "model": self.settings.model,
                "version": version,
                "messages": messages,
                "form": form.model_json_schema(),
                "parameters": self.settings.parameters(),
            }
        )

    def stored(self, key: str, form: type[Answer]) -> Reply[Answer] | None:
        """The cache's reply to a question, or None if it has to be asked."""
        record = self.cache.read(key) if self.cache else None
        if record is None:
            return None
        if record.get("how") == "malformed" and not self.settings.again_if_malformed:
            return Reply("malformed", None, str(record.get("why")), cached=True)
        if record.get("how") != "answered":
            return None
        try:
            return Reply("answered", form.model_validate(record.get("value")), cached=True)
        except ValueError:
            self.cache.damaged += 1
            return None

    async def ask(self, messages: list[dict[str, Any]], form: type[Answer], version: str) -> Reply[Answer]:
        """One question, one checked answer.

        Args:
            messages: chat messages; content as text or as a list of text and ``image_url`` parts.
            form: the answer's fields, sent as JSON schema where the endpoint takes one; or ``FreeText``.
            version: of the prompt; another version of the same question is another draw.

        Raises:
            RemoteError: nothing more can be asked (wrong key, endpoint down, cache not writable).
        """
        key = self.key(messages, form, version)
        reply = self.stored(key, form)
        if reply is not None:
            self.usage.cached += 1
            return reply
        try:
            reply = await self._ask(messages, form)
        except CapReached:
            self.usage.capped += 1
            return Reply("spending cap", None, "the spending cap is reached")
        except Refused as error:
            return self._refused(str(error))
        except Transient as error:
            return self._failed(error)
        self._failed_in_a_row = 0
        if self.cache:
            value = reply.value.model_dump(mode="json") if reply.value is not None else None
            self.cache.write(key, {"model": self.settings.model, "how": reply.how, "why": reply.why, "value": value})
        return reply

    async def _ask(self, messages: list[dict[str, Any]], form: type[Answer]) -> Reply[Answer]:
        limit, asked, problem = self.settings.max_tokens, messages, ""
        for _ in range(self.settings.malformed_tries):
            completion = await self._patient(asked, form, limit)
            try:
                answer = parse_answer(completion, form)
            except MalformedReply as error:
                problem = self._secret.scrub(str(error))
            else:
                self.usage.answered += 1
                return Reply("answered", self._scrubbed(answer, form))
            self.usage.malformed_replies += 1
            if form is FreeText:
                continue
            if completion.finish == "length":
                limit *= 2
            correction = f"Your previous reply could not be used: {problem}. Reply with the JSON object only."
            asked = [*messages, {"role": "user", "content": correction}]
        self.usage.malformed += 1
        return Reply("malformed", None, f"{self.settings.malformed_tries} unusable replies; the last one: {problem}")

    def _scrubbed(self, answer: Answer, form: type[Answer]) -> Answer:
        text = answer.model_dump_json()
        return form.model_validate_json(self._secret.scrub(text))

    async def _patient(self, messages: list[dict[str, Any]], form: type[Answer], limit: int) -> Completion:
        async def attempt() -> Completion:
            while True:
                sent = self._form
                try:
                    return await self._request(messages, form, limit, sent)
                except Refused as error:
                    # Another request may have found out first; then this one only has to be sent again.
                    if self._form is sent:
                        changed = sent.without_what(str(error))
                        if changed is None:
                            raise
                        self._form, said = changed
                        self.usage.fallbacks.append(said)
                        log.warning("%s: %s", self.shown, said)

        return await self._with_retries(attempt)

    async def _request(
        self, messages: list[dict[str, Any]], form: type[Answer], limit: int, sent: RequestForm
    ) -> Completion:
        body = sent.body(self.settings, messages, form, limit)
        bound = input_bound(messages, form, self.settings.tokens_per_image)

        async def send() -> Completion:
            return read_completion((await self._client.chat.completions.with_raw_response.create(**body)).content)

        completion = await self._guarded(send, (bound, limit), lambda found: found.tokens)
        self._count(completion.tokens)
        return completion

    def _classified(self, error: Exception) -> Exception:
        return classify(error, self._secret, self.shown, self.settings)

    def _count(self, tokens: tuple[int, int] | None) -> None:
        if tokens is None:
            self.usage.without_token_counts += 1
        else:
            self.usage.input_tokens += tokens[0]
            self.usage.output_tokens += tokens[1]

    def _refused(self, why: str) -> Reply[Any]:
        self._count_refusal(why)
        return Reply("refused", None, why)

    def _failed(self, error: Transient) -> Reply[Any]:
        self._count_failure(error)
        return Reply("failed", None, str(error))
