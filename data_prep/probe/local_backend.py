"""Models on this machine: answers kept on disk as they come, tokenizer, template, option tokens; in transformers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.option_tokens import resolve_option_tokens
from contextrl_verl.pairs.prompting import PromptConfig, encode_images, encode_prompt, images_of
from data_prep.models.cache import ReplyCache, digest
from data_prep.probe.questions import Answer, Question

# The template of --plain: the question as it is, and an empty line; --prefill adds where the reply starts.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n' }}{% endif %}"
)
PLAIN_PREFILL = "Answer:"
Encoded = tuple[Question, list[int]]


class LocalModel:
    """A model with its tokenizer, asked in batches; known answers come from the cache, so a stopped probe goes on.

    A subclass has ``ask(questions)``, which yields questions with answers and loads the weights the first time.

    Args:
        model: Hugging Face name or folder, whose files count by size and time: it may hold other weights tomorrow.
        chat_template: instead of the model's own. ``trust_remote_code``: whether code of the model may run.
        cache: folder of answers; None keeps none.
        made_by: what else can change an answer, as plain JSON values.

    Attributes:
        window: tokens of a question at most; None if unknown.
        batch: questions asked at a time.
        known: how many answers came from the cache.
        option_ids: token of each label.

    Raises:
        ConfigError: the model is not there or has no chat template, or labels are no single tokens.
    """

    batch = 128

    def __init__(
        self,
        model: str,
        prompt: PromptConfig,
        *,
        chat_template: str | None = None,
        trust_remote_code: bool = False,
        cache: Path | None = None,
        made_by: Sequence[Any] = (),
    ) -> None:
        from transformers import AutoConfig, AutoProcessor, AutoTokenizer

        self.name, self.known = model, 0
        self._cache = ReplyCache(cache) if cache is not None else None
        files = sorted(path for path in Path(model).iterdir() if path.is_file()) if Path(model).is_dir() else []
        weights = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        prompted = [prompt.prefill, dict(prompt.chat_template_kwargs), chat_template]
        prompted += ["split"] if prompt.special_tokens_in_text == "split" else []
        self._made_by = [type(self).__name__, model, weights, *prompted, *made_by]
        self.prompt, self.trust = prompt, trust_remote_code
        try:
            self.config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
            self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
            # Text-only models have none, and AutoProcessor then returns the tokenizer.
            self.processor = None
            if hasattr(self.config, "vision_config"):
                self.processor = AutoProcessor.from_pretrained(model, trust_remote_code=trust_remote_code)
        except Exception as error:
            fix = "name a complete checkpoint, or a model that your hub access reaches (its code: --trust-remote-code)"
            raise cannot_load(model, error, fix) from None
        owners = [owner for owner in (self.tokenizer, self.processor) if owner is not None]
        for owner in owners if chat_template is not None else ():
            owner.chat_template = chat_template
        if not any(getattr(owner, "chat_template", None) for owner in owners):
            raise ConfigError(
                f"{model}: its tokenizer has no chat template, so it is a base model. Fix: --plain of contextrl probe "
                "asks it without turns of a chat, and --chat-template FILE with turns of your own."
            )
        self.option_ids = resolve_option_tokens(self.tokenizer, prompt)
        self.window = getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        """Known answers and new ones, a batch at a time."""
        stream = iter(questions)
        while some := list(islice(stream, self.batch)):
            if self._cache is None:
                yield from self.ask(some)
                continue
            keys = {one.key: digest([self._made_by, list(one.labels), one.replies, one.sent()]) for one in some}
            known = {one.key: answer for one in some if (answer := self._read(keys[one.key])) is not None}
            self.known += len(known)
            yield from ((one, known[one.key]) for one in some if one.key in known)
            unknown = [one for one in some if one.key not in known]
            for question, answer in self.ask(unknown) if unknown else ():
                record = {"model": self.name, "question": list(question.key), "answer": answer.model_dump()}
                self._cache.write(keys[question.key], record)
                yield question, answer

    def _read(self, key: str) -> Answer | None:
        try:
            record = self._cache.read(key)
            return record and Answer.model_validate(record.get("answer"))
        except ValueError:
            return None

    def encode(self, question: Question) -> list[int]:
        """Token ids of the question, as training encodes it."""
        return encode_prompt(question.messages, self.tokenizer, self.prompt, self.processor)

    def length(self, question: Question) -> int:
        """Tokens of the question."""
        return len(self.encode(question))


def cannot_load(model: str, error: Exception, fix: str) -> ConfigError:
    """The paragraph for a model that cannot be loaded."""
    why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ConfigError(f"the model {model} cannot be loaded: {why}. Fix: {fix}.")


class TransformersBackend(LocalModel):
    """A model loaded by transformers; all options' logits from one forward pass of the question.

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
        self.model, self.forwards = None, 0

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

        dtype = str(self.model.dtype).removeprefix("torch.") if self.model is not None else self._dtype
        return dict(
            backend="transformers", device=str(self.device), dtype=dtype, transformers=transformers.__version__,
            torch=torch.__version__, forwards=self.forwards, known_before=self.known,
        )  # fmt: skip

    def _batches(self, encoded: list[Encoded]) -> Iterator[list[Encoded]]:
        """Neighbours that fit into so many tokens, padding included; a longer question stands alone."""
        batch: list[Encoded] = []
        for one in encoded:
            if images_of(one[0].messages):
                yield [one]
                continue
            if batch and (len(batch) + 1) * len(batch[0][1]) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    def _inputs(self, batch: list[Encoded]) -> dict[str, Any]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        messages = batch[0][0].messages
        if images_of(messages):
            return dict(encode_images(messages, self.tokenizer, self.prompt, self.processor, return_tensors="pt"))
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
