"""From the text a model wrote to a checked answer."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Answer = TypeVar("Answer", bound=BaseModel)

_THINKING = re.compile(r"^\s*<think>.*?</think>", re.S)
_FENCED = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.S)


class FreeText(BaseModel):
    """A reply that is taken as it was written, without a structure asked for."""

    text: str


class FirstToken(FreeText):
    """The first token of a reply, with the tokens that were likeliest in its place and their log-probabilities."""

    likeliest: list[tuple[str, float]]


class MalformedReply(ValueError):
    """A reply without a usable answer; says what is wrong with it."""


@dataclass(frozen=True)
class Completion:
    """One HTTP answer of status 200, as far as it could be read.

    Attributes:
        content: what the model wrote; None if the body holds none.
        finish: the endpoint's finish reason, ``length`` for a reply that was cut.
        tokens: input and output tokens as billed, None if the body does not say.
        problem: why there is no content; empty otherwise.
        likeliest: tokens in the place of the first one, with log-probabilities; empty if the body does not say.
    """

    content: str | None
    finish: str = ""
    tokens: tuple[int, int] | None = None
    problem: str = ""
    likeliest: tuple[tuple[str, float], ...] = ()


def read_completion(body: bytes) -> Completion:
    """Read a chat-completions body of any quality; never raises."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return Completion(None, problem="the body is not JSON")
    record = record if isinstance(record, dict) else {}
    tokens = _tokens(record.get("usage"))
    choices = record.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message") if isinstance(choice.get("message"), dict) else {}
    finish = str(choice.get("finish_reason") or "")
    content = message.get("content")
    likeliest = _likeliest(choice.get("logprobs"))
    if isinstance(content, str) and content.strip():
        return Completion(content, finish, tokens, likeliest=likeliest)
    if isinstance(message.get("refusal"), str):
        return Completion(None, finish, tokens, "the model declined to answer")
    return Completion(None, finish, tokens, "the body holds no text of an answer", likeliest)


def _likeliest(logprobs: Any) -> tuple[tuple[str, float], ...]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}
    listed = first.get("top_logprobs")
    found = []
    for entry in listed if isinstance(listed, list) else ():
        token, value = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if isinstance(token, str) and isinstance(value, (int, float)) and math.isfinite(value):
            found.append((token, float(value)))
    return tuple(found)


def _tokens(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    found = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    if any(not isinstance(count, int) or isinstance(count, bool) or count < 0 for count in found):
        return None
    return found[0], found[1]


def parse_answer(completion: Completion, form: type[Answer]) -> Answer:
    """The answer in a completion: JSON alone, in a code fence, after ``<think>``, or one object amid prose.

    Raises:
        MalformedReply: there is none, there are several that differ, it was cut, or it does not have the form.
    """
    if form is FirstToken:
        if not completion.likeliest:
            raise MalformedReply("the reply has no logprobs")
        return form(text=completion.content or "", likeliest=list(completion.likeliest))
    if completion.content is None:
        raise MalformedReply(completion.problem)
    if form is FreeText:
        return form(text=completion.content)
    text = _THINKING.sub("", completion.content, count=1)
    fenced = _FENCED.match(text)
    text = fenced.group(1) if fenced else text
    try:
        candidates = [json.loads(text)]
    except (ValueError, RecursionError):
        candidates = _objects(text)
    if not candidates and completion.finish == "length":
        raise MalformedReply("the reply was cut at the token limit")
    if not candidates:
        raise MalformedReply("the reply holds no JSON object")
    answers: list[Answer] = []
    problem = "the reply is not a JSON object"
    for candidate in candidates:
        try:
            answer = form.model_validate(candidate)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the object"
            problem = f"field {field}: {first['msg']}"
            continue
        if answer not in answers:
            answers.append(answer)
    if not answers:
        raise MalformedReply(problem)
    if len(answers) > 1:
        raise MalformedReply("the reply holds several answers that differ")
    return answers[0]


def _objects(text: str, at_most: int = 50) -> list[Any]:
    """The outermost JSON objects in a text, in order."""
    decoder = json.JSONDecoder()
    found: list[Any] = []
    start = text.find("{")
    for _ in range(at_most):
        if start < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found.append(value)
        start = text.find("{", end)
    return found
