"""A model in vLLM: one token is generated, and the log-probabilities of the labels are read at its place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from contextrl_verl.pairs.prompting import PromptConfig, images_of, prompt_text
from data_prep.probe.questions import Answer, ProbeError, Question
from data_prep.probe.transformers_backend import LocalModel, _first_line

_BATCH = 256


class VllmBackend(LocalModel):
    """A model loaded by vLLM; arguments of :class:`LocalModel`, and:

    Args:
        dtype: ``auto`` for vLLM's choice (it takes bfloat16 for a float32 checkpoint), or a name as ``float32``.
        engine: more arguments of ``vllm.LLM``, e.g. ``{"tensor_parallel_size": 2, "max_model_len": 32768}``.

    The prompt of a question is computed once; vLLM itself keeps what several questions have in common.

    Raises:
        ProbeError: vLLM is not installed.
    """

    def __init__(
        self,
        model: str,
        prompt: PromptConfig,
        *,
        dtype: str = "auto",
        engine: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(model, prompt, **more)
        try:
            import vllm  # noqa: F401
        except ImportError:
            raise ProbeError(
                "--backend vllm needs vLLM, which is not installed. Fix: install contextrl-verl[gpu] (or [cpu]), or "
                "use --backend transformers."
            ) from None
        self._options = {"dtype": dtype, **(engine or {})}
        self._engine: Any = None
        if self._options.get("max_model_len"):
            self.window = min(self.window or math.inf, int(self._options["max_model_len"]))
        if self.window is not None:
            # One position is the generated token's.
            self.window -= 1

    def load(self) -> None:
        """Raises ProbeError if vLLM cannot load the model."""
        if self._engine is not None:
            return
        from vllm import LLM

        # Log-probabilities before any mask or temperature: those of the logits that training reads.
        own = {"logprobs_mode": "raw_logprobs", "trust_remote_code": self.trust}
        try:
            self._engine = LLM(self.name, **{**self._options, **own})
        except Exception as error:
            raise ProbeError(
                f"--model {self.name} cannot be loaded by vLLM: {_first_line(error)}. Fix: see vLLM's log above; "
                "arguments for it are given with --engine NAME=VALUE."
            ) from None

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers in the order of the questions."""
        stream = iter(questions)
        while batch := list(islice(stream, _BATCH)):
            self.load()
            prompts = [self._prompt(question) for question in batch]
            for question, found in zip(batch, self._logprobs(batch, prompts), strict=True):
                yield question, Answer(scores=tuple(found), mass=math.fsum(map(math.exp, found)))

    def summary(self) -> dict[str, Any]:
        import vllm

        return {"backend": "vllm", "vllm": vllm.__version__, "engine": self._options}

    def _logprobs(self, batch: list[Question], prompts: list[dict[str, Any]]) -> list[list[float]]:
        from vllm import SamplingParams

        tokens = [self.option_ids[: len(question.labels)] for question in batch]
        same = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
        if "logprob_token_ids" in SamplingParams.__annotations__:
            # allowed_token_ids as the held-out pairs of a training job are asked.
            sampling = [SamplingParams(**same, allowed_token_ids=ids, logprob_token_ids=ids) for ids in tokens]
            outputs = self._engine.generate(prompts, sampling, use_tqdm=False)
            return [
                [output.outputs[0].logprobs[0][token].logprob for token in ids]
                for output, ids in zip(outputs, tokens, strict=True)
            ]
        # Older releases tell only the generated token's: each label in turn is made the one that is generated.
        rows: list[list[float]] = [[] for _ in batch]
        for place in range(max(map(len, tokens))):
            inside = [row for row, ids in enumerate(tokens) if place < len(ids)]
            sampling = [SamplingParams(**same, allowed_token_ids=[tokens[row][place]], logprobs=0) for row in inside]
            outputs = self._engine.generate([prompts[row] for row in inside], sampling, use_tqdm=False)
            for row, output in zip(inside, outputs, strict=True):
                rows[row].append(output.outputs[0].logprobs[0][tokens[row][place]].logprob)
        return rows

    def _prompt(self, question: Question) -> dict[str, Any]:
        images = images_of(question.messages)
        if not images:
            return {"prompt_token_ids": self.encode(question)}
        # vLLM expands the images' places itself.
        text = prompt_text(self.processor, question.messages, self.prompt)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"prompt_token_ids": list(ids), "multi_modal_data": {"image": images}}
