"""A model on this machine, and one in transformers: all options' logits from one forward pass of the question."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from contextrl_verl.pairs.option_tokens import resolve_option_tokens
from contextrl_verl.pairs.prompting import PromptConfig, encode_prompt, images_of, prompt_text
from data_prep.probe.questions import Answer, ProbeError, Question

# Questions sorted by length at a time.
_AHEAD = 128
# The template of --plain: the question as it is, and an empty line; --prefill adds where the reply starts.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n' }}{% endif %}"
)
PLAIN_PREFILL = "Answer:"


def read_template(path: Path | None, plain: bool) -> str | None:
    """The chat template to use instead of the model's own; None for that one.

    Raises:
        ProbeError: both are given, or the file cannot be read.
    """
    if path is None:
        return PLAIN if plain else None
    if plain:
        raise ProbeError("--plain and --chat-template are both given. Fix: give one of them.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeError(f"--chat-template {path} cannot be read ({error}). Fix: name a Jinja file.") from None


class LocalModel:
    """What every model on this machine shares: tokenizer, processor, template, option tokens, length of a question.

    Args:
        model: Hugging Face name or folder.
        prompt: template, labels, prefill.
        chat_template: instead of the model's own; None for that one.
        trust_remote_code: whether code that comes with the model may run.

    Attributes:
        option_ids: token of each label.
        window: the model's positions, or None if its config names none.

    Raises:
        ProbeError: the model is not there, or has no chat template.
        ConfigError: labels that are no single tokens.
    """

    def __init__(
        self, model: str, prompt: PromptConfig, *, chat_template: str | None = None, trust_remote_code: bool = False
    ) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.name, self.prompt, self.trust = model, prompt, trust_remote_code
        try:
            self.config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
            self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
        except Exception as error:
            raise ProbeError(
                f"--model {model} cannot be loaded: {_first_line(error)}. Fix: name a folder with a checkpoint and its "
                "tokenizer, or a model your hub access reaches (--trust-remote-code if it brings its own code)."
            ) from None
        self.processor = self._processor()
        owners = [owner for owner in (self.tokenizer, self.processor) if owner is not None]
        if chat_template is not None:
            for owner in owners:
                owner.chat_template = chat_template
        if not any(getattr(owner, "chat_template", None) for owner in owners):
            raise ProbeError(
                f"--model {model}: its tokenizer has no chat template, so it is a base model. Fix: --plain asks it "
                "without turns of a chat, and --chat-template FILE with turns of your own."
            )
        self.option_ids = resolve_option_tokens(self.tokenizer, prompt)
        self.window: int | None = getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def encode(self, question: Question) -> list[int]:
        """Token ids of the question, as training encodes it."""
        return encode_prompt(question.messages, self.tokenizer, self.prompt, self.processor)

    def length(self, question: Question) -> int:
        return len(self.encode(question))

    def _processor(self) -> Any:
        from transformers import AutoProcessor

        # Text-only models have none, and AutoProcessor then returns the tokenizer.
        if not hasattr(self.config, "vision_config"):
            return None
        try:
            return AutoProcessor.from_pretrained(self.name, trust_remote_code=self.trust)
        except Exception as error:
            raise ProbeError(
                f"--model {self.name}: its processor of images cannot be loaded: {_first_line(error)}. Fix: install "
                "what it names, or complete the checkpoint."
            ) from None


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
        super().__init__(model, prompt, **more)
        import torch

        if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ProbeError(f"--dtype is {dtype!r}, which torch does not know. Fix: e.g. bfloat16 or float32.")
        if device == "auto":
            device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise ProbeError(f"--device is {device!r}: {_first_line(error)}. Fix: e.g. cpu or cuda.") from None
        self._dtype, self._batch_tokens = dtype, batch_tokens
        self.model: Any = None
        self._counts = {"forwards": 0, "tokens": 0, "tokens_with_padding": 0}

    def load(self) -> None:
        """Raises ProbeError if the weights cannot be loaded."""
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
            raise ProbeError(
                f"--model {self.name} cannot be loaded: {_first_line(error)}. Fix: complete the checkpoint, or choose "
                "another --device or --dtype."
            ) from None

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers of 128 questions at a time, the longest first."""
        stream = iter(questions)
        while some := list(islice(stream, _AHEAD)):
            self.load()
            encoded = [(question, self.encode(question)) for question in some]
            pictured = [question for question, _ in encoded if images_of(question.messages)]
            for question in pictured:
                yield question, self._with_images(question)
            plain = [pair for pair in encoded if not images_of(pair[0].messages)]
            # The longest first: what does not fit into memory shows at once.
            for batch in _batches(sorted(plain, key=lambda pair: -len(pair[1])), self._batch_tokens):
                yield from self._forward(batch)

    def summary(self) -> dict[str, Any]:
        import torch
        import transformers

        return {
            "backend": "transformers",
            "device": str(self.device),
            "dtype": str(self.model.dtype).removeprefix("torch.") if self.model is not None else self._dtype,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            **self._counts,
        }

    def _forward(self, batch: list[tuple[Question, list[int]]]) -> Iterator[tuple[Question, Answer]]:
        import torch

        longest = max(len(ids) for _, ids in batch)
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, (_, ids) in enumerate(batch):
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        last = mask.sum(1) - 1
        logits = self._last_logits({"input_ids": tokens, "attention_mask": mask}, last)
        for (question, _), row in zip(batch, logits, strict=True):
            yield question, self._answer(question, row)

    def _with_images(self, question: Question) -> Answer:
        import torch

        text = prompt_text(self.processor, question.messages, self.prompt)
        images = images_of(question.messages)
        inputs = self.processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")
        return self._answer(
            question, self._last_logits(dict(inputs), torch.tensor([inputs["input_ids"].shape[1] - 1]))[0]
        )

    def _last_logits(self, inputs: dict[str, Any], last: Any) -> Any:
        """(rows, vocabulary) fp32 logits at position ``last`` of each row."""
        import torch

        positions, place = torch.unique(last, return_inverse=True)
        few = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        if few:
            # A whole batch's logits over a large vocabulary would be most of the memory and much of the time.
            inputs["logits_to_keep"] = positions
        else:
            place = last
        inputs = {name: value.to(self.device) if hasattr(value, "to") else value for name, value in inputs.items()}
        shape = tuple(inputs["input_ids"].shape)
        try:
            with torch.inference_mode():
                logits = self.model(**inputs, use_cache=False).logits
                rows = torch.arange(len(last), device=logits.device)
                chosen = logits[rows, place.to(logits.device)].float()
        except torch.OutOfMemoryError:
            raise ProbeError(
                f"a batch of {shape[0]} questions of {shape[1]} tokens does not fit into the memory of {self.device}. "
                f"Fix: --batch-tokens below {shape[0] * shape[1]}, or --backend vllm on several devices. Answers that "
                "came are kept."
            ) from None
        self._counts["forwards"] += 1
        self._counts["tokens"] += int(inputs["attention_mask"].sum())
        self._counts["tokens_with_padding"] += inputs["input_ids"].numel()
        return chosen

    def _answer(self, question: Question, row: Any) -> Answer:
        options = row[self.option_ids[: len(question.labels)]]
        mass = (options.logsumexp(0) - row.logsumexp(0)).exp()
        return Answer(scores=tuple(options.tolist()), mass=float(mass))


def _batches(encoded: list[tuple[Question, list[int]]], tokens: int) -> Iterator[list[tuple[Question, list[int]]]]:
    """Neighbours that fit into so many tokens, padding included; a longer question stands alone."""
    batch: list[tuple[Question, list[int]]] = []
    for one in encoded:
        if batch and (len(batch) + 1) * len(batch[0][1]) > tokens:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
