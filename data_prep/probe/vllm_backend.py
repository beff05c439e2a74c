"""A model in vLLM: log-probabilities of the labels in the place of one generated token, or replies that it writes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig, encode_text, images_of
from data_prep.probe.local_backend import LocalModel, cannot_load
from data_prep.probe.questions import Answer, Question

# As the held-out pairs of a training job are asked, with allowed_token_ids.
_ONE_TOKEN = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
_WRITTEN = {"max_tokens": 1024, "temperature": 1.0}


class VllmBackend(LocalModel):
    """A model loaded by vLLM; arguments of :class:`LocalModel`, and:

    Args:
        dtype: ``auto`` for vLLM's choice (it takes bfloat16 for a float32 checkpoint), or a name as ``float32``.
        engine: more arguments of ``vllm.LLM``, e.g. ``{"tensor_parallel_size": 2, "max_model_len": 32768}``.
        seed: of the replies, which are written at temperature 1.

    The prompt of a question is computed once; vLLM itself keeps what several questions have in common.
    """

    def __init__(
        self,
        model: str,
        prompt: PromptConfig,
        *,
        dtype: str = "auto",
        engine: dict[str, Any] | None = None,
        seed: int = 1,
        **more: Any,
    ) -> None:
        self._options = {"dtype": dtype, **(engine or {})}
        super().__init__(model, prompt, made_by=[self._options, seed], **more)
        self._engine, self._seed = None, seed
        longest = min(filter(None, [self.window, self._options.get("max_model_len")]), default=None)
        # One position is the generated token's.
        self.window = longest and int(longest) - 1

    def ask(self, questions: list[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers in the order of the questions."""
        from vllm import SamplingParams

        self._engine = self._engine or self._load()
        tokens = [self.option_ids[: len(question.labels)] for question in questions]
        sampling = [
            SamplingParams(**_WRITTEN, seed=self._seed, n=question.replies)
            if question.replies
            else SamplingParams(**_ONE_TOKEN, allowed_token_ids=ids, logprob_token_ids=ids)
            for question, ids in zip(questions, tokens, strict=True)
        ]
        found = self._engine.generate([self._prompt(one) for one in questions], sampling, use_tqdm=False)
        for question, ids, one in zip(questions, tokens, found, strict=True):
            if question.replies:
                yield question, question.votes([reply.text for reply in one.outputs])
                continue
            scores = [one.outputs[0].logprobs[0][token].logprob for token in ids]
            yield question, Answer(scores=tuple(scores), mass=math.fsum(map(math.exp, scores)))

    def summary(self) -> dict[str, Any]:
        import vllm

        return {"backend": "vllm", "vllm": vllm.__version__, "engine": self._options, "known_before": self.known}

    def _load(self) -> Any:
        try:
            from vllm import LLM
        except ImportError:
            raise ConfigError(
                f"{self.name} is to be loaded by vLLM, which is not installed. Fix: install contextrl-verl[gpu] (or "
                "[cpu]), or ask it in another way, see --help."
            ) from None
        # Log-probabilities before any mask or temperature: those of the logits that training reads.
        own = {"logprobs_mode": "raw_logprobs", "trust_remote_code": self.trust}
        try:
            return LLM(self.name, **self._options, **own)
        except Exception as error:
            raise cannot_load(self.name, error, "see vLLM's log above, and --engine of contextrl probe") from None

    def _prompt(self, question: Question) -> dict[str, Any]:
        images = images_of(question.messages)
        # vLLM expands the images' places itself.
        ids = encode_text(question.messages, self.tokenizer, self.prompt, self.processor if images else None)
        prompt = {"prompt_token_ids": ids}
        return prompt | ({"multi_modal_data": {"image": images}} if images else {})
