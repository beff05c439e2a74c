"""From a pair to a prompt: order of options, template, chat messages, token ids.

The carrier row, the held-out question and the length filter all go through :func:`encode_prompt`,
so what is measured is what is trained on.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined, TemplateError
from PIL import Image
from pydantic import ConfigDict

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.special_tokens import PlainReader, plain_reader

TEMPLATES = Path(__file__).parents[1] / "templates"
# Stands for an image while the text is rendered; no text of a pair holds a NUL.
_IMAGE_MARK = "\x00image{}\x00"
# 64 megapixels: far above what any model's processor keeps, far below a decompression bomb.
MAX_IMAGE_PIXELS = 64_000_000
# Arguments of apply_chat_template that prompt_text sets.
_OWN_ARGUMENTS = {"conversation", "tokenize", "add_generation_prompt", "return_dict", "return_tensors"}


@dataclass(frozen=True)
class PromptConfig:
    """How pairs are shown; the yaml block ``contextrl.prompt``."""

    # Read by pydantic when the yaml block is parsed; [1, 2] in yaml are labels too.
    __pydantic_config__ = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    template: str = "select_context"  # name of a file in ``contextrl_verl/templates`` (without ``.jinja``) or a path
    question_template: str = "answer_question"  # of a pair as an ordinary question (objective ``question_answering``)
    labels: tuple[str, ...] = ("A", "B")  # of the options as shown; as many as the largest pair has contexts
    prefill: str = ""  # start of the assistant's reply, e.g. ``The correct option is``
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)  # e.g. ``{enable_thinking: false}``
    special_tokens_in_text: Literal["keep", "split"] = "keep"  # split: what spells one in a pair is ordinary text

    def __post_init__(self) -> None:
        """Raises ConfigError on labels that cannot tell options apart and on arguments that are not the user's."""
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2 or not all(map(str.strip, self.labels)):
            raise ConfigError(
                f"contextrl.prompt.labels is {list(self.labels)}: it needs two or more different, non-empty labels. "
                "Fix: e.g. [A, B]."
            )
        taken = sorted(_OWN_ARGUMENTS & set(self.chat_template_kwargs))
        if taken:
            raise ConfigError(
                f"contextrl.prompt.chat_template_kwargs is {dict(self.chat_template_kwargs)}, and {taken} are set by "
                "contextrl itself. Fix: remove them."
            )


def option_order(pair_id: str, options: int, epoch: int, seed: int, rotation: int = 0) -> list[int]:
    """Indices into ``pair.contexts`` in the order shown, drawn from (pair, epoch, seed) and nothing else.

    The rotations 0 .. options - 1 of one draw show the supporting context, index 0, once in every position (for two
    options: both orders).
    """
    digest = hashlib.blake2b(f"{seed}:{epoch}:{pair_id}".encode(), digest_size=8).digest()
    order = list(range(options))
    random.Random(int.from_bytes(digest, "big")).shuffle(order)
    return order[rotation:] + order[:rotation]


def template_text(name: str) -> str:
    """A template by name or path. Raises ConfigError."""
    path = Path(name) if name.endswith(".jinja") else TEMPLATES / f"{name}.jinja"
    if not path.is_file():
        known = sorted(p.stem for p in TEMPLATES.glob("*.jinja"))
        raise ConfigError(
            f"contextrl.prompt.template is {name!r}, and there is no file {path}. "
            f"Fix: use one of {known} or the path of a .jinja file."
        )
    return path.read_text(encoding="utf-8")


def load_template(name: str):
    """Compile a template; unknown variables are errors. Raises ConfigError."""
    text = template_text(name)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False)
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise ConfigError(
            f"contextrl.prompt.template {name!r} does not compile: {error}. Fix: mend the template."
        ) from None


class PromptRenderer:
    """Renders pairs as chat messages. Stateless after construction."""

    def __init__(self, config: PromptConfig) -> None:
        self.config = config
        self._template = load_template(config.template)

    def messages(self, pair: ContrastivePair, order: Sequence[int]) -> list[dict[str, Any]]:
        """One user turn. Content is a string, or a list of text and image parts if the pair has images.

        Raises:
            ConfigError: fewer labels than contexts, or the template needs a variable it does not get.
        """
        if len(order) > len(self.config.labels):
            raise ConfigError(
                f"pair {pair.pair_id!r} has {len(order)} contexts, contextrl.prompt.labels has "
                f"{len(self.config.labels)}. Fix: add labels, e.g. [A, B, C, D]."
            )
        images: list[ImageRef] = []
        options = []
        for label, index in zip(self.config.labels, order, strict=False):
            options.append({"label": label, **_view(pair.contexts[index], images)})
        try:
            text = self._template.render(
                query=pair.query,
                answer=pair.answer,
                domain=pair.domain,
                options=options,
                labels=list(self.config.labels[: len(order)]),
            )
        except TemplateError as error:
            raise ConfigError(
                f"contextrl.prompt.template {self.config.template!r} fails on pair {pair.pair_id!r}: {error}. "
                "Fix: mend the template."
            ) from None
        text = text.strip()
        return [{"role": "user", "content": self._split_images(text, images, pair.pair_id) if images else text}]

    def _split_images(self, text: str, images: list[ImageRef], pair_id: str) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for number, image in enumerate(images):
            before, mark, text = text.partition(_IMAGE_MARK.format(number))
            if not mark:
                raise ConfigError(
                    f"contextrl.prompt.template {self.config.template!r} does not show image {number + 1} of "
                    f"{len(images)} of pair {pair_id!r} in its place. Fix: show each of option.images once, in order."
                )
            if before:
                parts.append({"type": "text", "text": before})
            parts.append({"type": "image", "image": open_image(image, f"pair {pair_id!r}: ")})
        if text:
            parts.append({"type": "text", "text": text})
        return parts


def _view(context: Context, images: list[ImageRef]) -> dict[str, Any]:
    marks = []
    for image in context.images or ():
        marks.append(_IMAGE_MARK.format(len(images)))
        images.append(image)
    return {"kind": context.kind, "text": context.text, "messages": context.messages, "images": marks}


def open_image(reference: ImageRef, where: str = "") -> Image.Image:
    """Decode an image as RGB.

    Raises:
        ConfigError: it is missing, broken or has more than MAX_IMAGE_PIXELS pixels; the message begins with ``where``.
    """
    given = reference.bytes is not None
    name = f"{where}an image of {len(reference.bytes)} bytes" if given else f"{where}image {reference.path!r}"
    try:
        with Image.open(io.BytesIO(reference.bytes) if given else reference.path) as image:
            width, height = image.size
            if width * height <= MAX_IMAGE_PIXELS:
                return image.convert("RGB")
    except Exception as error:  # Pillow's readers meet broken files with OSError, SyntaxError, struct.error, ...
        raise ConfigError(f"{name} cannot be read as an image ({error}). Fix: replace it or drop the pair.") from None
    raise ConfigError(f"{name} has {width}x{height} pixels, over {MAX_IMAGE_PIXELS}. Fix: shrink it or drop the pair.")


def images_of(messages: Sequence[Mapping[str, Any]]) -> list[Image.Image]:
    """The images of chat messages in shown order."""
    return [
        part["image"]
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image"
    ]


def prompt_text(tokenizer_or_processor: Any, messages: list[dict[str, Any]], config: PromptConfig) -> str:
    """The prompt as text: chat template, generation prompt, prefill.

    Raises:
        ConfigError: there is no chat template, or it fails.
    """
    if not getattr(tokenizer_or_processor, "chat_template", None):
        raise ConfigError(
            f"the tokenizer of actor_rollout_ref.model.path={_name_of(tokenizer_or_processor)!r} has no chat template, "
            "so pairs cannot be shown to the model. Fix: use an instruction-tuned checkpoint or set "
            "actor_rollout_ref.model.custom_chat_template."
        )
    try:
        text = tokenizer_or_processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **config.chat_template_kwargs
        )
    except Exception as error:  # A template is a program: `tools|length` without tools is a TypeError.
        raise ConfigError(
            f"the chat template of actor_rollout_ref.model.path={_name_of(tokenizer_or_processor)!r} fails on one user "
            f"message with contextrl.prompt.chat_template_kwargs={dict(config.chat_template_kwargs)}: {error}. "
            "Fix: correct these arguments or actor_rollout_ref.model.custom_chat_template."
        ) from None
    return text + config.prefill


def _name_of(tokenizer_or_processor: Any) -> str:
    return getattr(getattr(tokenizer_or_processor, "tokenizer", tokenizer_or_processor), "name_or_path", "")


def encode_prompt(
    messages: list[dict[str, Any]], tokenizer: Any, config: PromptConfig, processor: Any = None
) -> list[int]:
    """Token ids of the prompt with prefill; images are expanded by the processor.

    Raises:
        ConfigError: images without a processor, or a tokenizer without a chat template.
    """
    if not images_of(messages):
        return encode_text(messages, tokenizer, config)
    if processor is None:
        raise ConfigError(
            f"a pair holds images, but actor_rollout_ref.model.path={_name_of(tokenizer)!r} has no processor (a "
            "text-only model, or one whose processor cannot be loaded: contextrl doctor checks torchvision). "
            "Fix: use a vision-language model, or remove the image pairs from contextrl.pairs."
        )
    return [int(token) for token in encode_images(messages, tokenizer, config, processor)["input_ids"][0]]


def encode_text(
    messages: list[dict[str, Any]], tokenizer: Any, config: PromptConfig, processor: Any = None
) -> list[int]:
    """Token ids of the prompt; with a processor by its chat template, each image as its placeholder."""
    reader, messages = _read_by(tokenizer, messages, config)
    text = prompt_text(processor or tokenizer, messages, config)
    return list(reader(text, add_special_tokens=False)["input_ids"])


def encode_images(
    messages: list[dict[str, Any]], tokenizer: Any, config: PromptConfig, processor: Any, **options: Any
) -> Any:
    """What the processor makes of a prompt with images: ``input_ids``, pixels and more, with a first axis of one."""
    reader, messages = _read_by(tokenizer, messages, config)
    text = prompt_text(processor, messages, config)
    processor = reader.within(processor) if isinstance(reader, PlainReader) else processor
    # The chat template writes a bos token itself where the model has one; the processor would add a second.
    return processor(text=[text], images=images_of(messages), add_special_tokens=False, **options)


def _read_by(tokenizer: Any, messages: list[dict[str, Any]], config: PromptConfig) -> tuple[Any, list[dict[str, Any]]]:
    if config.special_tokens_in_text == "keep":
        return tokenizer, messages
    return (reader := plain_reader(tokenizer)), reader.marked(messages)


Orders = Literal["random", "both"]
