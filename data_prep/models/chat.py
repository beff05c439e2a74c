"""Structured answers from any endpoint that speaks OpenAI's chat completions; each is paid for at most once."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError, WrapValidator

from data_prep.models.budget import BYTES_PER_TOKEN, input_tokens
from data_prep.models.cache import digest
from data_prep.models.endpoint import Endpoint, MalformedReply, NotAnswered
from data_prep.models.spec import ModelSpec

log = logging.getLogger(__name__)
Form = TypeVar("Form", bound=BaseModel)
Messages = list[dict[str, Any]]
_THINKING = re.compile(r"^\s*<think>.*?</think>", re.S)


class FreeText(BaseModel):
    """A reply that is taken as it was written, without a structure asked for."""

    text: str


class FirstToken(FreeText):
    """The first token of a reply, with the tokens that were likeliest in its place and their log-probabilities."""

    likeliest: list[tuple[str, float]]


@dataclass(frozen=True)
class Reply(Generic[Form]):
    """What became of one question: ``value`` is filled if and only if ``how`` is ``answered``."""

    how: Literal["answered", "malformed", "refused", "spending cap", "failed"]
    value: Form | None = None
    why: str = ""
    cached: bool = False


class ChatEndpoint(Endpoint):
    """Asks questions of chat messages; content as text or as a list of text and ``image_url`` parts."""

    def __init__(self, spec: ModelSpec, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(spec, environ)
        self._sent = _SentForm()

    def key(self, messages: Messages, form: type[Form], version: str) -> str:
        """The cache key of a question: model, version of the prompt, messages, form of the answer, parameters."""
        return digest(
            {
                "model": self.spec.model,
                "version": version,
                "messages": messages,
                "form": form.model_json_schema(),
                "parameters": {
                    "temperature": self.spec.temperature, "max_tokens": self.spec.max_tokens, **self.spec.extra
                },
            }
        )  # fmt: skip

    def stored(self, messages: Messages, form: type[Form], version: str) -> Reply[Form] | None:
        """The cache's reply to a question, or None if it has to be asked."""
        record = self.cache.read(self.key(messages, form, version)) if self.cache else None
        if record is None:
            return None
        if record.get("how") == "malformed" and not self.spec.again_if_malformed:
            return Reply("malformed", None, str(record.get("why")), cached=True)
        if record.get("how") != "answered":
            return None
        try:
            return Reply("answered", form.model_validate(record.get("value")), cached=True)
        except ValueError:
            self.cache.damaged += 1
            return None

    async def ask(self, messages: Messages, form: type[Form], version: str) -> Reply[Form]:
        """One question, one checked answer.

        Args:
            form: the answer's fields, sent as JSON schema where the endpoint takes one; or ``FreeText``.
            version: of the prompt; another version of the same question is another draw.

        Raises:
            ConfigError: nothing more can be asked (wrong key, endpoint down, cache not writable).
        """
        reply = self.stored(messages, form, version)
        if reply is not None:
            self.usage.cached += 1
            return reply
        try:
            reply = await self._ask(messages, form)
        except NotAnswered as error:
            self.count(error)
            return Reply(error.how, None, str(error))
        if self.cache:
            value = reply.value.model_dump(mode="json") if reply.value is not None else None
            record = {"model": self.spec.model, "how": reply.how, "why": reply.why, "value": value}
            self.cache.write(self.key(messages, form, version), record)
        return reply

    async def _ask(self, messages: Messages, form: type[Form]) -> Reply[Form]:
        limit, asked, problem = self.spec.max_tokens, messages, ""
        for _ in range(self.spec.malformed_tries):
            completion = await self._completion(asked, form, limit)
            try:
                answer = _answer(completion, form)
            except MalformedReply as error:
                problem = self.scrub(str(error))
            else:
                self.answered()
                return Reply("answered", form.model_validate_json(self.scrub(answer.model_dump_json(), None)))
            self.usage.malformed_replies += 1
            if not issubclass(form, FreeText):
                limit *= 2 if completion.cut else 1
                correction = f"Your previous reply could not be used: {problem}. Reply with the JSON object only."
                asked = [*messages, {"role": "user", "content": correction}]
        self.usage.malformed += 1
        return Reply("malformed", None, f"{self.spec.malformed_tries} unusable replies; the last one: {problem}")

    async def _completion(self, messages: Messages, form: type[Form], limit: int) -> _Completion:
        bound = (input_tokens(messages, self.spec.tokens_per_image)[1], limit)
        while True:
            sent = self._sent
            body = sent.body(self.spec, messages, form, limit)
            try:
                found = await self.send(
                    lambda client, body=body: client.chat.completions.with_raw_response.create(**body), bound
                )
                break
            except NotAnswered as error:
                if error.how != "refused":
                    raise
                # Another request may have found out first; then this one only has to be sent again.
                if self._sent is sent:
                    changed = sent.without_what(str(error))
                    if changed is None:
                        raise
                    self._sent, said = changed
                    self.usage.fallbacks.append(said)
                    log.warning("%s: %s", self.shown, said)
        try:
            completion = _Completion.model_validate_json(found)
        except ValidationError:
            completion = _Completion()
        tokens = completion.usage
        self.bill(tokens and (tokens.prompt_tokens, tokens.completion_tokens), bound)
        return completion

    def estimate(self, questions: Iterable[tuple[Messages, str]], form: type[BaseModel], usual: int) -> str:
        """A sentence about calls, tokens and cost of questions, each with its version; asks nothing.

        Args:
            usual: tokens of a usual reply.
        """
        calls = cached = guess = bound = 0
        for messages, version in questions:
            if self.stored(messages, form, version):
                cached += 1
                continue
            about, most = input_tokens(messages, self.spec.tokens_per_image)
            calls, guess, bound = calls + 1, guess + about, bound + most
        return self.costs(calls, cached, guess, bound, usual)

    def costs(self, calls: int, cached: int, guess: int, bound: int, usual: int) -> str:
        """The sentence of :meth:`estimate` for calls with so many input tokens."""
        usual = min(usual, self.spec.max_tokens)
        return (
            f"{calls} calls to make, {cached} answers already in the cache; about {guess:,} input tokens (UTF-8 bytes "
            f"/ {BYTES_PER_TOKEN:g}) and {calls * usual:,} output tokens ({usual} a reply); "
            + self.budget.money((guess, calls * usual), (bound, calls * self.spec.max_tokens))
        )


def question_templates(folder: Path) -> Environment:
    """The jinja templates of questions in a folder; what they are filled with is text for a model, not HTML."""
    loader = FileSystemLoader(folder)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def sendable(text: str) -> str:
    """The text without lone surrogates, which cannot be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")


_FORMAT_WORDS = re.compile(r"response_format|json_schema|json_object|structured output|guided", re.I)
_LIMIT_WORDS = re.compile(r"max_(completion_)?tokens", re.I)
_NOT_TAKEN = re.compile(r"unsupported|not supported|does not support|unrecogni[sz]ed|unknown|extra|not permitted", re.I)


@dataclass(frozen=True)
class _SentForm:
    """What the endpoint is known to take: how structure is asked for, the name of the limit, temperature or none."""

    output: Literal["json_schema", "json_object", "plain text"] = "json_schema"
    limit_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: bool = True

    def body(self, spec: ModelSpec, messages: Messages, form: type[BaseModel], limit: int) -> dict[str, Any]:
        """Arguments of the client's ``create``."""
        fields: dict[str, Any] = {self.limit_field: limit, **spec.extra}
        if self.temperature and spec.temperature is not None:
            fields["temperature"] = spec.temperature
        if self.output == "json_schema" and not issubclass(form, FreeText):
            schema = {"name": form.__name__.lower(), "strict": True, "schema": form.model_json_schema()}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.output == "json_object" and not issubclass(form, FreeText):
            fields["response_format"] = {"type": "json_object"}
        # Not as keyword arguments: the client's own list of them changes from release to release.
        return {"model": spec.model, "messages": messages, "extra_body": fields}

    def without_what(self, refusal: str) -> tuple[_SentForm, str] | None:
        """The next form to try after a refusal and a sentence about it; None if the refusal is not about the form."""
        if self.output != "plain text" and _FORMAT_WORDS.search(refusal):
            output = "json_object" if self.output == "json_schema" else "plain text"
            return replace(self, output=output), f"the endpoint refuses {self.output}; asking for {output} instead"
        if not _NOT_TAKEN.search(refusal):
            return None
        if self.limit_field == "max_completion_tokens" and _LIMIT_WORDS.search(refusal):
            said = "the endpoint refuses max_completion_tokens; sending max_tokens instead"
            return replace(self, limit_field="max_tokens"), said
        if self.temperature and "temperature" in refusal.lower():
            return replace(self, temperature=False), "the endpoint refuses temperature; leaving it out"
        return None


def _or_none(value: Any, check: Any) -> Any:
    try:
        return check(value)
    except ValidationError:
        return None


# A field of a stranger's reply that is of another kind is as good as absent.
_Lenient = WrapValidator(_or_none)


class _Tokens(BaseModel):
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt


class _Listed(BaseModel):
    token: str
    logprob: float


class _Place(BaseModel):
    top_logprobs: list[Annotated[_Listed | None, _Lenient]]


class _Logprobs(BaseModel):
    content: list[_Place] = Field(min_length=1)


class _Message(BaseModel):
    content: Annotated[str | None, _Lenient] = None
    refusal: Annotated[str | None, _Lenient] = None


class _Choice(BaseModel):
    message: Annotated[_Message | None, _Lenient] = None
    finish_reason: Annotated[str | None, _Lenient] = None
    logprobs: Annotated[_Logprobs | None, _Lenient] = None


class _Completion(BaseModel):
    """One HTTP answer of status 200, as far as it could be read."""

    choices: Annotated[list[_Choice] | None, _Lenient] = None
    usage: Annotated[_Tokens | None, _Lenient] = None

    @property
    def choice(self) -> _Choice:
        return self.choices[0] if self.choices else _Choice()

    @property
    def cut(self) -> bool:
        return self.choice.finish_reason == "length"


def _answer(completion: _Completion, form: type[Form]) -> Form:
    """The answer in a completion: one JSON object, alone, after ``<think>`` or amid prose.

    Raises:
        MalformedReply: there is none, there are several that differ, it was cut, or it does not have the form.
    """
    choice = completion.choice
    content = (choice.message and choice.message.content) or ""
    if form is FirstToken:
        listed = choice.logprobs.content[0].top_logprobs if choice.logprobs else []
        likeliest = [(one.token, one.logprob) for one in listed if one and math.isfinite(one.logprob)]
        if not likeliest:
            raise MalformedReply("the reply has no logprobs")
        return form(text=content, likeliest=likeliest)
    if not content.strip():
        declined = choice.message and choice.message.refusal
        raise MalformedReply("the model declined to answer" if declined else "the body holds no text of an answer")
    if form is FreeText:
        return form(text=content)
    candidates = _objects(_THINKING.sub("", content, count=1))
    if not candidates:
        cut = "the reply was cut at the token limit"
        raise MalformedReply(cut if completion.cut else "the reply holds no JSON object")
    answers: list[Form] = []
    problem = ""
    for candidate in candidates:
        try:
            answer = form.model_validate(candidate)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"field {'.'.join(map(str, first['loc'])) or 'the object'}: {first['msg']}"
            continue
        if answer not in answers:
            answers.append(answer)
    if len(answers) != 1:
        raise MalformedReply("the reply holds several answers that differ" if answers else problem)
    return answers[0]


def _objects(text: str, at_most: int = 50) -> list[Any]:
    """The outermost JSON objects in a text, in order."""
    decoder, found = json.JSONDecoder(), []
    start = text.find("{")
    for _ in range(at_most):
        if start < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return found
