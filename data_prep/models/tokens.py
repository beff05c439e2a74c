"""How many tokens a request has: an upper bound for the cap, a guess for the dry run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

# Role, separators and whatever a chat template puts around a message.
_PER_MESSAGE = 16
_PER_REQUEST = 128
# English and code, byte-level BPE of recent models: 3 to 4.5 bytes a token.
BYTES_PER_TOKEN = 3.5


def _parts(messages: list[dict[str, Any]]) -> tuple[list[str], int]:
    texts, images = [], 0
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                images += 1
    return texts, images


def input_bound(messages: list[dict[str, Any]], form: type[BaseModel], tokens_per_image: int) -> int:
    """At most so many input tokens: a token of a byte-level tokenizer holds at least one byte of UTF-8."""
    texts, images = _parts(messages)
    text = sum(len(text.encode("utf-8", "replace")) for text in texts)
    schema = len(json.dumps(form.model_json_schema()))
    return text + schema + images * tokens_per_image + len(messages) * _PER_MESSAGE + _PER_REQUEST


def input_guess(
    messages: list[dict[str, Any]], tokens_per_image: int, count: Callable[[str], int] | None = None
) -> int:
    """About so many: by a tokenizer's count, else by bytes."""
    texts, images = _parts(messages)
    if count is None:
        text = sum(len(text.encode("utf-8", "replace")) for text in texts) / BYTES_PER_TOKEN
    else:
        text = sum(map(count, texts))
    return round(text) + images * tokens_per_image + len(messages) * _PER_MESSAGE
