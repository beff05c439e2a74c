"""A model in transformers: all options' logits from one forward pass of the question."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig, images_of, prompt_text
from data_prep.probe.local_backend import LocalModel, cannot_load
from data_prep.probe.questions import Answer, Question

Encoded = tuple[Question, list[int]]


class TransformersBackend(LocalModel):
    """A model loaded by transformers; arguments of :class:`LocalModel`, and:

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        dtype: ``auto`` for the checkpoint's own, or a name as ``float32``.
        batch_tokens: tokens of a batch, padding included.

    Questions stand in batches with others of nearly their length, padded on the right, where a causal model does not
    look; so an answer does not depend on its neighbours. Questions with images go one at a time, for processors differ
    in how they take several.
    """

    def __init__(
        self,
        model: str,
        prompt: PromptConfig,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_tokens: int = 16384,
        **more: Any,
    ) -> None:
        import torch

        if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ConfigError(f"--dtype is {dtype!r}, which torch does not know. Fix: e.g. bfloat16 or float32.")
        if device == "auto":
            device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise ConfigError(f"--device is {device!r} ({error}). Fix: e.g. cpu or cuda.") from None
        super().__init__(model, prompt, made_by=[self.device.type, dtype], **more)
        self._dtype, self._batch_tokens = dtype, batch_tokens
        self.model: Any = None
        self.forwards = 0

    def load(self) -> None:
        """Load the weights unless they are there; raises ConfigError if that fails."""
        if self.model is not None:
            return
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        kind = AutoModelForImageTextToText if self.processor is not None else AutoModelForCausalLM
        dtype = self._dtype if self._dtype == "auto" else getattr(torch, self._dtype)
        try:
            model = kind.from_pretrained(self.name, dtype=dtype, trust_remote_code=self.trust)
            self.model = model.to(self.device).eval()
        except Exception as error:
            fix = "complete the checkpoint, or choose another --device or --dtype"
            raise cannot_load(self.name, error, fix) from None

    def ask(self, questions: list[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers, the longest question first: what does not fit into memory shows at once."""
        self.load()
        encoded = sorted(((one, self.encode(one)) for one in questions), key=lambda one: -len(one[1]))
        for batch in self._batches(encoded):
            for (question, _), row in zip(batch, self._last_logits(self._inputs(batch)), strict=True):
                options = row[self.option_ids[: len(question.labels)]]
                mass = (options.logsumexp(0) - row.logsumexp(0)).exp()
                yield question, Answer(scores=tuple(options.tolist()), mass=float(mass))

    def summary(self) -> dict[str, Any]:
        import torch
        import transformers

        return {
            "backend": "transformers",
            "device": str(self.device),
            "dtype": str(self.model.dtype).removeprefix("torch.") if self.model is not None else self._dtype,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "forwards": self.forwards,
            "known_before": self.known,
        }

    def _batches(self, encoded: list[Encoded]) -> Iterator[list[Encoded]]:
        """Neighbours that fit into so many tokens, padding included; a longer question stands alone."""
        batch: list[Encoded] = []
        for question, ids in encoded:
            if images_of(question.messages):
                yield [(question, ids)]
                continue
            if batch and (len(batch) + 1) * len(batch[0][1]) > self._batch_tokens:
                yield batch
                batch = []
            batch.append((question, ids))
        if batch:
            yield batch

    def _inputs(self, batch: list[Encoded]) -> dict[str, Any]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        messages = batch[0][0].messages
        if images := images_of(messages):
            text = prompt_text(self.processor, messages, self.prompt)
            return dict(self.processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt"))
        rows = [torch.tensor(ids) for _, ids in batch]
        masks = [torch.ones_like(row) for row in rows]
        return {"input_ids": pad_sequence(rows, True), "attention_mask": pad_sequence(masks, True)}

    def _last_logits(self, inputs: dict[str, Any]) -> Any:
        """(rows, vocabulary) fp32 logits at the last token of each row."""
        import torch

        last = inputs["attention_mask"].sum(1) - 1
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            # A whole batch's logits over a large vocabulary would be most of the memory and much of the time.
            inputs["logits_to_keep"], last = torch.unique(last, return_inverse=True)
        inputs = {name: value.to(self.device) if hasattr(value, "to") else value for name, value in inputs.items()}
        rows, length = inputs["input_ids"].shape
        self.forwards += 1
        try:
            with torch.inference_mode():
                logits = self.model(**inputs, use_cache=False).logits
                return logits[torch.arange(rows), last.to(logits.device)].float()
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"a batch of {rows} questions of {length} tokens does not fit into the memory of {self.device}. Fix: "
                f"--batch-tokens below {rows * length}, or --backend vllm on several devices. Answers that came are "
                "kept."
            ) from None
