"""Counts tokens of pieces of text with any tokenizer, or with a fast stand-in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from contextrl_verl.errors import ConfigError

TokenCount = Callable[[Sequence[str]], list[int]]

_PIECES = re.compile(r"[A-Za-z]{1,6}|\d{1,3}|\s+|[^\sA-Za-z\d]")
BATCH = 2000


class RoughTokenizer:
    """Splits text into short pieces of words, numbers, white space and signs; rather more than real tokens.

    Needs no files. The ids only serve to be counted.
    """

    def encode(self, text: str) -> list[int]:
        """One id (the length) for each piece."""
        return [len(piece) for piece in _PIECES.findall(text)]


def token_counter(tokenizer: Any = None) -> TokenCount:
    """A function that counts the tokens of each of several texts, without special tokens.

    ``tokenizer`` is a Hugging Face tokenizer, anything with ``encode(text)``, or None for `RoughTokenizer`.
    """
    if tokenizer is None:
        return lambda texts: [len(_PIECES.findall(text)) for text in texts]
    if callable(tokenizer):

        def count(texts: Sequence[str]) -> list[int]:
            lengths: list[int] = []
            for start in range(0, len(texts), BATCH):
                batch = list(texts[start : start + BATCH])
                lengths += map(len, tokenizer(batch, add_special_tokens=False)["input_ids"])
            return lengths

        return count
    if not hasattr(tokenizer, "encode"):
        raise TypeError(
            f"tokenizer is a {type(tokenizer).__name__}, which can neither be called nor has encode(); pass a Hugging "
            "Face tokenizer, an object with encode(text), or None"
        )
    return lambda texts: [len(tokenizer.encode(text)) for text in texts]


def load_tokenizer(name: str) -> Any:
    """The Hugging Face tokenizer of that name or folder; None, for the stand-in, if the name is empty.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if not name:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tokenizer {name!r} cannot be loaded ({str(error).splitlines()[0]}). Fix: a model's name, a folder with "
            "a tokenizer.json; leave it empty to count approximately."
        ) from error
