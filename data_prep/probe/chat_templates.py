"""A chat template for models that come without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.probe.questions import ProbeError

# The question as it is, and an empty line; --prefill adds where the reply starts.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n' }}{% endif %}"
)
PLAIN_PREFILL = "Answer:"


def read_template(path: Path | None, plain: bool) -> str | None:
    """The template to use instead of the model's own; None for that one.

    Raises:
        ProbeError: both are given, or the file cannot be read.
    """
    if path is not None and plain:
        raise ProbeError("--plain and --chat-template are both given. Fix: give one of them.")
    if plain:
        return PLAIN
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeError(f"--chat-template {path} cannot be read ({error}). Fix: name a Jinja file.") from None


def set_template(model: str, tokenizer: Any, processor: Any, template: str | None) -> None:
    """Put a template in place.

    Raises:
        ProbeError: there is none, neither given nor the model's own.
    """
    if template is not None:
        tokenizer.chat_template = template
        if processor is not None:
            processor.chat_template = template
    if not getattr(tokenizer, "chat_template", None) and not getattr(processor, "chat_template", None):
        raise ProbeError(
            f"--model {model}: its tokenizer has no chat template, so it is a base model. Fix: --plain asks it without "
            "turns of a chat, and --chat-template FILE with turns of your own."
        )
