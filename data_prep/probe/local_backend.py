"""What models on this machine share: answers kept on disk as they come, tokenizer, template, option tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.option_tokens import resolve_option_tokens
from contextrl_verl.pairs.prompting import PromptConfig, encode_prompt
from data_prep.models.cache import ReplyCache, digest
from data_prep.probe.questions import Answer, Question

# The template of --plain: the question as it is, and an empty line; --prefill adds where the reply starts.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n' }}{% endif %}"
)
PLAIN_PREFILL = "Answer:"


class LocalBackend:
    """A model that is asked in batches; known answers come from the cache, so a probe that was stopped goes on.

    Args:
        model: Hugging Face name or folder, whose files count by size and time: it may hold other weights tomorrow.
        cache: folder of answers; None keeps none.
        made_by: what else can change an answer, as plain JSON values.

    Attributes:
        window: tokens of a question at most; None if unknown.
        known: how many answers came from the cache.
    """

    window: int | None = None
    # Questions asked at a time.
    batch = 128

    def __init__(self, model: str, cache: Path | None, made_by: list[Any]) -> None:
        self.name, self.known = model, 0
        self._cache = ReplyCache(cache) if cache is not None else None
        files = sorted(path for path in Path(model).iterdir() if path.is_file()) if Path(model).is_dir() else []
        weights = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        self._made_by = [type(self).__name__, model, weights, made_by]

    def ask(self, questions: list[Question]) -> Iterator[tuple[Question, Answer]]:
        """Answers of the model, which is loaded the first time."""
        raise NotImplementedError

    def length(self, question: Question) -> int | None:
        """Unknown without a tokenizer."""
        return None

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


class LocalModel(LocalBackend):
    """A model whose options' logits are read; arguments of :class:`LocalBackend`, and:

    Args:
        prompt: template, labels, prefill.
        chat_template: instead of the model's own; None for that one.
        trust_remote_code: whether code that comes with the model may run.

    Attributes:
        option_ids: token of each label.

    Raises:
        ConfigError: the model is not there, or has no chat template.
        ConfigError: labels that are no single tokens.
    """

    def __init__(
        self,
        model: str,
        prompt: PromptConfig,
        *,
        chat_template: str | None = None,
        trust_remote_code: bool = False,
        cache: Path | None = None,
        made_by: list[Any] | None = None,
    ) -> None:
        from transformers import AutoConfig, AutoProcessor, AutoTokenizer

        prompted = [prompt.prefill, dict(prompt.chat_template_kwargs), chat_template]
        super().__init__(model, cache, [*prompted, *(made_by or [])])
        self.prompt, self.trust = prompt, trust_remote_code
        try:
            self.config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
            self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
            # Text-only models have none, and AutoProcessor then returns the tokenizer.
            self.processor = None
            if hasattr(self.config, "vision_config"):
                self.processor = AutoProcessor.from_pretrained(model, trust_remote_code=trust_remote_code)
        except Exception as error:
            fix = (
                "name a complete checkpoint, or a model your hub access reaches (--trust-remote-code for its own code)"
            )
            raise cannot_load(model, error, fix) from None
        owners = [owner for owner in (self.tokenizer, self.processor) if owner is not None]
        for owner in owners if chat_template is not None else ():
            owner.chat_template = chat_template
        if not any(getattr(owner, "chat_template", None) for owner in owners):
            raise ConfigError(
                f"--model {model}: its tokenizer has no chat template, so it is a base model. Fix: --plain asks it "
                "without turns of a chat, and --chat-template FILE with turns of your own."
            )
        self.option_ids = resolve_option_tokens(self.tokenizer, prompt)
        self.window = getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def encode(self, question: Question) -> list[int]:
        """Token ids of the question, as training encodes it."""
        return encode_prompt(question.messages, self.tokenizer, self.prompt, self.processor)

    def length(self, question: Question) -> int:
        return len(self.encode(question))


def cannot_load(model: str, error: Exception, fix: str) -> ConfigError:
    """The paragraph for a model that cannot be loaded."""
    why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ConfigError(f"the model {model} cannot be loaded: {why}. Fix: {fix}.")
