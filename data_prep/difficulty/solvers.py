"""Two models to try pairs with: behind an endpoint, or loaded here by vLLM. Both keep every reply in the cache."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.difficulty.attempts import Attempt, Reply, as_sent
from data_prep.models.cache import ReplyCache, digest
from data_prep.models.chat import ChatEndpoint
from data_prep.models.errors import RemoteError
from data_prep.models.in_order import in_order
from data_prep.models.reply import FreeText
from data_prep.models.spec import EndpointRole
from data_prep.models.tokens import BYTES_PER_TOKEN, input_guess

VERSION = "difficulty-1"
_USUAL_REPLY_TOKENS = 200


class EndpointSolver:
    """A model behind an OpenAI-compatible endpoint, asked by sampling (``temperature`` of the role, at best 1)."""

    def __init__(self, role: EndpointRole, environ: Mapping[str, str] = os.environ) -> None:
        self.name = role.model
        self.endpoint = ChatEndpoint(role.settings(), role.replies(), role.budget(), environ)

    def solve(self, attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, Reply]]:
        """Raises RemoteError when nothing more can be asked; what was answered is in the cache."""
        # One event loop for the whole stream, driven from here, so that callers need not be asynchronous.
        loop = asyncio.new_event_loop()
        stream = self._stream(attempts)
        try:
            while True:
                try:
                    yield loop.run_until_complete(anext(stream))
                except StopAsyncIteration:
                    return
        finally:
            loop.run_until_complete(stream.aclose())
            loop.close()

    async def _stream(self, attempts: Iterable[Attempt]) -> AsyncIterator[tuple[Attempt, Reply]]:
        async with self.endpoint:
            async for attempt, reply in in_order(attempts, self._ask):
                yield attempt, reply

    async def _ask(self, attempt: Attempt) -> Reply:
        # The number is part of the version: every try is a draw of its own.
        version = f"{VERSION}:{attempt.number}"
        reply = await self.endpoint.ask(as_sent(attempt.messages), FreeText, version)
        if reply.value is not None:
            return Reply(reply.value.text)
        return Reply(None, reply.how, reply.why)

    def estimate(self, attempts: Iterable[Attempt]) -> str:
        """A sentence about calls, tokens and cost; asks nothing."""
        settings, prices = self.endpoint.settings, self.endpoint.budget.prices
        calls = cached = tokens = 0
        for attempt in attempts:
            messages = as_sent(attempt.messages)
            if self.endpoint.stored(self.endpoint.key(messages, FreeText, f"{VERSION}:{attempt.number}"), FreeText):
                cached += 1
                continue
            calls += 1
            tokens += input_guess(messages, settings.tokens_per_image)
        replies = calls * min(_USUAL_REPLY_TOKENS, settings.max_tokens)
        money = f"{prices.cost(tokens, replies):.4f} {prices.currency}" if prices else "no prices given, so no cost"
        return (
            f"{calls} calls to make, {cached} replies already in the cache; about {tokens:,} input tokens (UTF-8 bytes "
            f"/ {BYTES_PER_TOKEN:g}) and {replies:,} output tokens ({_USUAL_REPLY_TOKENS} a reply); {money}"
        )

    def summary(self) -> dict[str, Any]:
        usage = self.endpoint.usage
        counts = {**vars(usage), "retries": dict(usage.retries), "fallbacks": list(usage.fallbacks)}
        budget = self.endpoint.budget
        if budget.prices is not None:
            counts |= {"spent": float(budget.spent), "currency": budget.prices.currency}
        return counts


class VllmSolver:
    """A model loaded here by vLLM.

    Args:
        model: Hugging Face name or folder; code that comes with it is not run.
        cache: folder of replies.
        batch: attempts given to vLLM at a time.
        options: more arguments of ``vllm.LLM``, e.g. ``{"tensor_parallel_size": 2}``.

    Raises:
        RemoteError: vLLM is not installed.
    """

    def __init__(
        self,
        model: str,
        cache: ReplyCache,
        *,
        temperature: float = 1.0,
        max_tokens: int = 1024,
        seed: int = 1,
        batch: int = 256,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.name = model
        self._cache, self._batch = cache, batch
        # A folder may hold other weights tomorrow.
        files = sorted(path for path in Path(model).iterdir() if path.is_file()) if Path(model).is_dir() else []
        self._weights = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        self._sampling = {"temperature": temperature, "max_tokens": max_tokens}
        self._seed, self._options = seed, dict(options or {})
        self._model: Any = None
        self._counts = {"generated": 0, "cached": 0}

    def solve(self, attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, Reply]]:
        """Raises RemoteError if vLLM is not installed or cannot load the model."""
        stream = iter(attempts)
        while batch := list(islice(stream, self._batch)):
            keys = [self._key(attempt) for attempt in batch]
            texts: list[str | None] = []
            for key in keys:
                record = self._cache.read(key)
                texts.append(record.get("text") if record else None)
            missing = [index for index, text in enumerate(texts) if not isinstance(text, str)]
            self._counts["cached"] += len(batch) - len(missing)
            for index, text in zip(missing, self._generate([batch[index] for index in missing]), strict=True):
                texts[index] = text
                self._cache.write(keys[index], {"model": self.name, "text": text})
            yield from ((attempt, Reply(text)) for attempt, text in zip(batch, texts, strict=True))

    def summary(self) -> dict[str, Any]:
        return dict(self._counts)

    def _key(self, attempt: Attempt) -> str:
        return digest(
            {
                "model": [self.name, self._weights],
                "version": f"{VERSION}:{attempt.number}",
                "messages": as_sent(attempt.messages),
                "parameters": {**self._sampling, "seed": self._seed},
            }
        )

    def _generate(self, attempts: list[Attempt]) -> list[str]:
        if not attempts:
            return []
        from vllm import SamplingParams

        model = self._loaded()
        sampling = [SamplingParams(**self._sampling, seed=self._seed * 1000 + one.number) for one in attempts]
        outputs = model.chat([_for_vllm(one.messages) for one in attempts], sampling, use_tqdm=False)
        self._counts["generated"] += len(outputs)
        return [output.outputs[0].text for output in outputs]

    def _loaded(self) -> Any:
        if self._model is None:
            try:
                from vllm import LLM
            except ImportError:
                raise RemoteError(
                    "--local needs vLLM, which is not installed. Fix: install contextrl-verl[gpu] (or [cpu]), or ask "
                    "an endpoint with --solver."
                ) from None
            self._model = LLM(self.name, trust_remote_code=False, **self._options)
        return self._model


def _for_vllm(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [
                {"type": "image_pil", "image_pil": part["image"]} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in messages
    ]
