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

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef

TEMPLATES = Path(__file__).parent / "templates"
# Stands for an image while the text is rendered; a NUL cannot come out of a chat or a file of code.
_IMAGE_MARK = "\x00image{}\x00"
# 64 megapixels: far above what any model's processor keeps, far below a decompression bomb.
MAX_IMAGE_PIXELS = 64_000_000


@dataclass(frozen=True)
class PromptConfig:
    """How pairs are shown; the yaml block ``contextrl.prompt``.

    Attributes:
        template: name of a file in ``contextrl_verl/templates`` (without ``.jinja``) or a path.
        labels: labels of the options in shown order; as many as the largest pair has contexts.
        prefill: start of the assistant's reply, e.g. ``The correct option is``; empty for none.
        chat_template_kwargs: passed to the chat template, e.g. ``{enable_thinking: false}``.
    """

    template: str = "select_context"
    labels: tuple[str, ...] = ("A", "B")
    prefill: str = ""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any]) -> PromptConfig:
        """From a plain mapping (the yaml block). Raises ConfigError on unknown keys or unusable labels."""
        unknown = set(block) - set(cls.__dataclass_fields__)
        if unknown:
            raise ConfigError(
                f"contextrl.prompt has unknown keys {sorted(unknown)}; it knows {sorted(cls.__dataclass_fields__)}. "
                "Fix: remove or rename them."
            )
        values = dict(block)
        values["labels"] = tuple(str(label) for label in values.get("labels") or cls.labels)
        values["chat_template_kwargs"] = dict(values.get("chat_template_kwargs") or {})
        config = cls(**values)
        if len(set(config.labels)) != len(config.labels) or len(config.labels) < 2 or "" in config.labels:
            raise ConfigError(
                f"contextrl.prompt.labels is {list(config.labels)}: it needs two or more different, non-empty labels. "
                "Fix: e.g. [A, B]."
            )
        return config


def option_order(pair_id: str, options: int, epoch: int, seed: int, rotation: int = 0) -> list[int]:
    """The order in which a pair's contexts are shown, drawn from (pair, epoch, seed) and nothing else.

    Args:
        options: number of contexts; index 0 is the supporting one.
        rotation: 0 .. options-1; the rotations of one draw show the supporting context once in every
            position (for two options: both orders).

    Returns:
        indices into ``pair.contexts`` in shown order.
    """
    digest = hashlib.blake2b(f"{seed}:{epoch}:{pair_id}".encode(), digest_size=8).digest()
    order = list(range(options))
    random.Random(int.from_bytes(digest, "big")).shuffle(order)
    return order[rotation:] + order[:rotation]


def load_template(name: str):
    """Compile a template by name or path; unknown variables are errors. Raises ConfigError."""
    path = Path(name) if name.endswith(".jinja") else TEMPLATES / f"{name}.jinja"
    if not path.is_file():
        known = sorted(p.stem for p in TEMPLATES.glob("*.jinja"))
        raise ConfigError(
            f"contextrl.prompt.template is {name!r}, and there is no file {path}. "
            f"Fix: use one of {known} or the path of a .jinja file."
        )
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False)
    try:
        return environment.from_string(path.read_text(encoding="utf-8"))
    except TemplateError as error:
        raise ConfigError(
            f"contextrl.prompt.template {path} does not compile: {error}. Fix: mend the template."
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
                query=pair.query, answer=pair.answer, options=options, labels=list(self.config.labels[: len(order)])
            )
        except TemplateError as error:
            raise ConfigError(
                f"contextrl.prompt.template {self.config.template!r} fails on pair {pair.pair_id!r}: {error}. "
                "Fix: mend the template."
            ) from None
        return [{"role": "user", "content": _split_images(text.strip(), images) if images else text.strip()}]


def _view(context: Context, images: list[ImageRef]) -> dict[str, Any]:
    marks = []
    for image in context.images or ():
        marks.append(_IMAGE_MARK.format(len(images)))
        images.append(image)
    return {"kind": context.kind, "text": context.text, "messages": context.messages, "images": marks}


def _split_images(text: str, images: list[ImageRef]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        before, mark, text = text.partition(_IMAGE_MARK.format(number))
        if not mark:
            raise ConfigError("the prompt template does not show every image. Fix: show each of option.images once.")
        if before:
            parts.append({"type": "text", "text": before})
        parts.append({"type": "image", "image": open_image(image)})
    if text:
        parts.append({"type": "text", "text": text})
    return parts


def open_image(reference: ImageRef) -> Image.Image:
    """Decode an image as RGB. Raises ConfigError on a missing, broken or oversized one."""
    name = reference.path or "an image given by its bytes"
    try:
        source = io.BytesIO(reference.bytes) if reference.bytes is not None else reference.path
        with Image.open(source) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ConfigError(
                    f"{name} has {image.width}x{image.height} pixels, over {MAX_IMAGE_PIXELS}. Fix: shrink it."
                )
            return image.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{name} cannot be read as an image ({error}). Fix: replace it or drop the pair.") from None


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
    """The prompt as text: chat template, generation prompt, prefill. Raises ConfigError without a template."""
    if not getattr(tokenizer_or_processor, "chat_template", None):
        raise ConfigError(
            "the tokenizer of actor_rollout_ref.model.path has no chat template, so pairs cannot be shown to the "
            "model. Fix: use an instruction-tuned checkpoint or set actor_rollout_ref.model.custom_chat_template."
        )
    text = tokenizer_or_processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **config.chat_template_kwargs
    )
    return text + config.prefill


def encode_prompt(
    messages: list[dict[str, Any]], tokenizer: Any, config: PromptConfig, processor: Any = None
) -> list[int]:
    """Token ids of the prompt with prefill; images are expanded by the processor.

    Raises:
        ConfigError: images without a processor, or a tokenizer without a chat template.
    """
    images = images_of(messages)
    if not images:
        return list(tokenizer(prompt_text(tokenizer, messages, config), add_special_tokens=False)["input_ids"])
    if processor is None:
        raise ConfigError(
            "a pair holds images, but actor_rollout_ref.model.path has no processor (a text-only model). "
            "Fix: use a vision-language model, or remove the image pairs from contextrl.pairs."
        )
    encoded = processor(text=[prompt_text(processor, messages, config)], images=images)
    return [int(token) for token in encoded["input_ids"][0]]


Orders = Literal["random", "both"]
