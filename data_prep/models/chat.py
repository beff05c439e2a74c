"""Structured answers from any endpoint that speaks OpenAI's chat completions; each is paid for at most once."""

from __future__ import annotations

import base64
import json
import logging
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ValidationError

from data_prep.models.cache import digest
from data_prep.models.endpoint import Endpoint, MalformedReply, NotAnswered, Reply, at, post
from data_prep.models.spec import TOKENS_PER_IMAGE

log = logging.getLogger(__name__)
Form = TypeVar("Form", bound=BaseModel)
Messages = list[dict[str, Any]]
# English and code, byte-level BPE of recent models: 3 to 4.5 bytes a token.
_BYTES_PER_TOKEN = 3.5
# Role, separators and whatever a chat template puts around a message; the schema of an answer.
_PER_MESSAGE, _PER_REQUEST = 16, 2048
_THINKING = re.compile(r"^\s*<think>.*?</think>", re.S)
_UNKNOWN = r"(?=.*(unsupported|not supported|does not support|unrecogni[sz]ed|unknown|extra|not permitted))"
# What an endpoint may not take: which refusals say so, and what is done instead from then on.
_FALLBACKS = {
    "response_format": (
        re.compile(r"response_format|json_schema|structured output|guided", re.I),
        "asking for JSON in words alone",
    ),
    "max_completion_tokens": (re.compile(f"{_UNKNOWN}.*max_(completion_)?tokens", re.I), "sending max_tokens instead"),
    "temperature": (re.compile(f"{_UNKNOWN}.*temperature", re.I), "leaving it out"),
}


class FreeText(BaseModel):
    """A reply that is taken as it was written, without a structure asked for."""

    text: str


class FirstToken(FreeText):
    """The first token of a reply, with the tokens that were likeliest in its place and their log-probabilities."""

    likeliest: list[tuple[str, float]]


class ChatEndpoint(Endpoint):
    """Asks questions of chat messages; content as text or as a list of text and ``image_url`` parts."""

    _not_taken: frozenset[str] = frozenset()

    def key(self, messages: Messages, form: type[Form], version: str) -> str:
        """The cache key of a question: model, version of the prompt, messages, form of the answer, parameters."""
        parameters = {"temperature": self.spec.temperature, "max_tokens": self.spec.max_tokens, **self.spec.extra}
        asked = {"messages": messages, "form": form.model_json_schema(), "parameters": parameters}
        return digest({"model": self.spec.model, "version": version, **asked})

    async def ask(self, messages: Messages, form: type[Form], version: str) -> Reply[Form]:
        """One question, one checked answer; another version of the same question is another draw.

        ``form`` has the answer's fields and is sent as JSON schema where the endpoint takes one; or it is ``FreeText``.
        Raises ConfigError: nothing more can be asked (wrong key, endpoint down, cache not writable).
        """
        limit = self.spec.max_tokens

        async def once(problem: str) -> Any:
            nonlocal limit
            asked = messages
            if problem and not issubclass(form, FreeText):
                correction = f"Your previous reply could not be used: {problem}. Reply with the JSON object only."
                asked = [*messages, {"role": "user", "content": correction}]
            body = await self._completion(asked, form, limit)
            limit *= 2 if _cut(body) else 1
            return json.loads(self.scrub(_answer(body, form).model_dump_json(), None))

        return await self.reply(self.key(messages, form, version), once, form.model_validate)

    async def _completion(self, messages: Messages, form: type[Form], limit: int) -> Any:
        """The body of one HTTP answer of status 200, None if it is no JSON."""
        bound = (input_tokens(messages)[1], limit)
        while True:
            not_taken = self._not_taken
            body = {"model": self.spec.model, "messages": messages, **self._fields(form, limit)}
            try:
                completion = await self.send(post("/chat/completions", body), bound)
                break
            except NotAnswered as error:
                # Another request may have found out first; then this one only has to be sent again.
                if error.how != "refused" or (self._not_taken == not_taken and not self._falls_back(str(error))):
                    raise
        self.bill(completion, bound)
        return completion

    def _fields(self, form: type[BaseModel], limit: int) -> dict[str, Any]:
        """Of the body, but for what the endpoint does not take."""
        fields: dict[str, Any] = {"max_completion_tokens": limit, **self.spec.extra}
        if self.spec.temperature is not None:
            fields["temperature"] = self.spec.temperature
        if not issubclass(form, FreeText):
            schema = {"name": form.__name__.lower(), "strict": True, "schema": form.model_json_schema()}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        if "max_completion_tokens" in self._not_taken:
            fields["max_tokens"] = limit
        return {name: value for name, value in fields.items() if name not in self._not_taken}

    def _falls_back(self, refusal: str) -> bool:
        """Whether a refusal is about something that can be done without, as is done from now on."""
        for name, (words, instead) in _FALLBACKS.items():
            if name not in self._not_taken and words.search(refusal):
                self._not_taken |= {name}
                self.usage.fallbacks.append(said := f"the endpoint refuses {name}; {instead}")
                log.warning("%s: %s", self.shown, said)
                return True
        return False

    def estimate(self, questions: Iterable[tuple[Messages, str]], form: type[BaseModel], usual: int) -> str:
        """About calls, tokens and cost of questions with their versions; ``usual``: tokens of a reply. Asks nothing."""
        calls = cached = guess = bound = 0
        for messages, version in questions:
            if self.stored_reply(self.key(messages, form, version), form.model_validate):
                cached += 1
                continue
            about, most = input_tokens(messages)
            calls, guess, bound = calls + 1, guess + about, bound + most
        usual, money = min(usual, self.spec.max_tokens), "no prices given, so no cost"
        if self.budget.prices:
            likely, worst = (guess, calls * usual), (bound, calls * self.spec.max_tokens)
            money = f"{self.budget.cost(likely):.4f} (at most {self.budget.cost(worst):.4f} without retries)"
        return (
            f"{calls} calls to make, {cached} answers already in the cache; about {guess:,} input tokens (UTF-8 bytes "
            f"/ {_BYTES_PER_TOKEN:g}) and {calls * usual:,} output tokens ({usual} a reply); {money}"
        )


def input_tokens(messages: Messages) -> tuple[int, int]:
    """A guess at the tokens, and a bound: a token of a byte-level tokenizer holds at least one byte of UTF-8."""
    contents = [message["content"] for message in messages]
    parts = [part for content in contents for part in ([{"text": content}] if isinstance(content, str) else content)]
    size = sum(len(part["text"].encode("utf-8", "replace")) for part in parts if "text" in part)
    around = len(messages) * _PER_MESSAGE + TOKENS_PER_IMAGE * sum("text" not in part for part in parts)
    return round(size / _BYTES_PER_TOKEN) + around, size + around + _PER_REQUEST


def question_templates(folder: Path) -> Environment:
    """The jinja templates of questions in a folder; what they are filled with is text for a model, not HTML."""
    loader = FileSystemLoader(folder)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def image_part(encoded: bytes, kind: str = "png") -> dict[str, Any]:
    """A picture as a part of a message, in a data URL."""
    url = f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}


def sendable(text: str) -> str:
    """The text without lone surrogates, which cannot be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut(body: Any) -> bool:
    return at(body, str, "choices", 0, "finish_reason") == "length"


def _answer(body: Any, form: type[Form]) -> Form:
    """The answer in a completion's body: one JSON object, alone, after ``<think>`` or amid prose. Raises
    MalformedReply: there is none, there are several that differ, it was cut, or it does not have the form."""
    content = at(body, str, "choices", 0, "message", "content") or ""
    if form is FirstToken:
        likeliest = at(body, list, "choices", 0, "logprobs", "content", 0, "top_logprobs") or ()
        found = ((at(one, str, "token"), at(one, float, "logprob")) for one in likeliest)
        listed = [(token, value) for token, value in found if None not in (token, value) and math.isfinite(value)]
        if not listed:
            raise MalformedReply("the reply has no logprobs")
        return form(text=content, likeliest=listed)
    if not content.strip():
        declined = at(body, str, "choices", 0, "message", "refusal")
        raise MalformedReply("the model declined to answer" if declined else "the body holds no text of an answer")
    if form is FreeText:
        return form(text=content)
    answers: list[Form] = []
    problem = "the reply was cut at the token limit" if _cut(body) else "the reply holds no JSON object"
    for candidate in _objects(_THINKING.sub("", content, count=1)):
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
    decoder, found, end = json.JSONDecoder(), [], 0
    for _ in range(at_most):
        if (start := text.find("{", end)) < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            end = start + 1
    return found
