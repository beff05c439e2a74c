"""Two models to try pairs with: behind an endpoint, or loaded here by vLLM. Both keep every reply in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from data_prep.difficulty.attempts import Attempt, Reply, as_sent
from data_prep.models.cache import ReplyCache, digest
from data_prep.models.chat import ChatEndpoint, FreeText
from data_prep.models.endpoint import answers
from data_prep.models.spec import ModelSpec

VERSION = "difficulty-1"
_USUAL_REPLY_TOKENS = 200


class SolverSpec(ModelSpec):
    """A model that tries pairs. Tries must differ, so it samples: greedy replies would all be the same."""

    temperature: float | None = 1.0


class EndpointSolver(ChatEndpoint):
    """A model behind an OpenAI-compatible endpoint, asked by sampling."""

    @property
    def name(self) -> str:
        return self.spec.model

    def solve(self, attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, Reply]]:
        """Raises ConfigError when nothing more can be asked; what was answered is in the cache."""
        return answers(self, attempts, self._try)

    async def _try(self, attempt: Attempt) -> Reply:
        reply = await self.ask(as_sent(attempt.messages), FreeText, _version(attempt))
        return Reply(reply.value.text) if reply.value is not None else Reply(None, reply.how, reply.why)

    def sentence(self, attempts: Iterable[Attempt]) -> str:
        """About calls, tokens and cost; asks nothing."""
        questions = ((as_sent(attempt.messages), _version(attempt)) for attempt in attempts)
        return self.estimate(questions, FreeText, _USUAL_REPLY_TOKENS)


def _version(attempt: Attempt) -> str:
    # The number is part of the version: every try is a draw of its own.
    return f"{VERSION}:{attempt.number}"


class VllmSolver:
    """A model loaded here by vLLM.

    Args:
        model: Hugging Face name or folder; code that comes with it is not run.
        cache: folder of replies.
        batch: attempts given to vLLM at a time.
        options: more arguments of ``vllm.LLM``, e.g. ``{"tensor_parallel_size": 2}``.

    Raises:
        ConfigError: vLLM is not installed.
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
        """Raises ConfigError if vLLM is not installed or cannot load the model."""
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
                "version": _version(attempt),
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
                raise ConfigError(
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
