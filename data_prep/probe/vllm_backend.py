"""Models in vLLM: log-probabilities of the labels in the place of one generated token, or replies that it writes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig, images_of, prompt_text
from data_prep.probe.local_backend import LocalBackend, LocalModel, cannot_load
from data_prep.probe.questions import Answer, Question


def load_vllm(model: str, **options: Any) -> Any:
    """The model as ``vllm.LLM``; raises ConfigError if vLLM is not installed or cannot load it."""
    try:
        from vllm import LLM
    except ImportError:
        raise ConfigError(
            f"{model} is to be loaded by vLLM, which is not installed. Fix: install contextrl-verl[gpu] (or [cpu]), or "
            "ask it in another way, see --help."
        ) from None
    try:
        return LLM(model, **options)
    except Exception as error:
        raise cannot_load(model, error, "see vLLM's log above, and --engine of contextrl probe") from None


class VllmBackend(LocalModel):
    """A model loaded by vLLM; arguments of :class:`LocalModel`, and:

    Args:
        dtype: ``auto`` for vLLM's choice (it takes bfloat16 for a float32 checkpoint), or a name as ``float32``.
        engine: more arguments of ``vllm.LLM``, e.g. ``{"tensor_parallel_size": 2, "max_model_len": 32768}``.

    The prompt of a question is computed once; vLLM itself keeps what several questions have in common.
    """

    batch = 256

    def __init__(
        self,
        model: str,
        prompt: PromptConfig,
        *,
        dtype: str = "auto",
        engine: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self._options = {"dtype": dtype, **(engine or {})}
        super().__init__(model, prompt, made_by=[self._options], **more)
        self._engine: Any = None
        longest = min(filter(None, [self.window, self._options.get("max_model_len")]), default=None)
        # One position is the generated token's.
        self.window = longest and int(longest) - 1

    def ask(self, questions: list[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers in the order of the questions."""
        from vllm import SamplingParams

        # Log-probabilities before any mask or temperature: those of the logits that training reads.
        own = {"logprobs_mode": "raw_logprobs", "trust_remote_code": self.trust}
        self._engine = self._engine or load_vllm(self.name, **self._options, **own)
        tokens = [self.option_ids[: len(question.labels)] for question in questions]
        # allowed_token_ids as the held-out pairs of a training job are asked.
        how = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
        sampling = [SamplingParams(**how, allowed_token_ids=ids, logprob_token_ids=ids) for ids in tokens]
        outputs = self._engine.generate([self._prompt(one) for one in questions], sampling, use_tqdm=False)
        for question, ids, output in zip(questions, tokens, outputs, strict=True):
            scores = [output.outputs[0].logprobs[0][token].logprob for token in ids]
            yield question, Answer(scores=tuple(scores), mass=math.fsum(map(math.exp, scores)))

    def summary(self) -> dict[str, Any]:
        import vllm

        return {"backend": "vllm", "vllm": vllm.__version__, "engine": self._options, "known_before": self.known}

    def _prompt(self, question: Question) -> dict[str, Any]:
        images = images_of(question.messages)
        text = prompt_text(self.processor if images else self.tokenizer, question.messages, self.prompt)
        # vLLM expands the images' places itself.
        prompt = {"prompt_token_ids": list(self.tokenizer(text, add_special_tokens=False)["input_ids"])}
        return prompt | ({"multi_modal_data": {"image": images}} if images else {})


class VllmReplies(LocalBackend):
    """A model loaded by vLLM that writes replies at temperature 1; code that comes with it is not run.

    Args:
        cache: folder of answers.
        seed: of the sampling.
    """

    batch = 64

    def __init__(self, model: str, cache: Path | None, seed: int = 1) -> None:
        self._sampling = {"temperature": 1.0, "max_tokens": 1024, "seed": seed}
        super().__init__(model, cache, [self._sampling])
        self._engine: Any = None
        self._written = 0

    def ask(self, questions: list[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers in the order of the questions."""
        from vllm import SamplingParams

        self._engine = self._engine or load_vllm(self.name, trust_remote_code=False)
        sampling = [SamplingParams(**self._sampling, n=question.replies) for question in questions]
        outputs = self._engine.chat([question.sent() for question in questions], sampling, use_tqdm=False)
        for question, output in zip(questions, outputs, strict=True):
            self._written += len(output.outputs)
            yield question, question.votes([one.text for one in output.outputs])

    def summary(self) -> dict[str, Any]:
        return {"backend": "vllm", "replies_written": self._written, "questions_known_before": self.known}
