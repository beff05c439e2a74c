"""Counts tokens of pieces of text with any tokenizer, or with a fast stand-in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from contextrl_verl.errors import ConfigError

TokenCount = Callable[[Sequence[str]], list[int]]

# Short pieces of words, numbers, white space and signs; rather more than real tokens.
_PIECES = re.compile(r"[A-Za-z]{1,6}|\d{1,3}|\s+|[^\sA-Za-z\d]")


def rough_count(texts: Sequence[str]) -> list[int]:
    """About the tokens of each text, without a tokenizer."""
    return [len(_PIECES.findall(text)) for text in texts]


def token_counter(tokenizer: Any = "") -> TokenCount:
    """A function that counts the tokens of each of several texts, without special tokens.

    ``tokenizer`` is a Hugging Face tokenizer, its name or its folder; empty for :func:`rough_count`.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if tokenizer == "":
        return rough_count
    if isinstance(tokenizer, str):
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"tokenizer {tokenizer!r} cannot be loaded ({str(error).splitlines()[0]}). Fix: a model's name, a "
                "folder with a tokenizer.json; leave it empty to count approximately."
            ) from error
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
