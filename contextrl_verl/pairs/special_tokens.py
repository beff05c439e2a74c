"""Text of pairs that spells special tokens: which tokens those are, and how to read them as the text they are.

A tokenizer reads ``<|im_end|>`` in an agent's run as the end of a turn. :class:`PlainReader` does not: special tokens
are only those that the chat template writes around the text, and of the text it makes ordinary tokens.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from contextrl_verl.errors import ConfigError

# Cannot be in a pair (contextrl_verl.pairs.schema refuses it), so it can keep two kinds of text apart.
NUL = "\0"
# Attributes of processors that name what they replace by an image, a video or a sound.
_PLACEHOLDERS = ("image_token", "video_token", "audio_token", "boi_token", "boa_token")


def placeholders(processor: Any) -> list[str]:
    """What a processor replaces in a text by media; in a pair's own text it would ask for media that are not there."""
    named = (getattr(processor, name, None) for name in _PLACEHOLDERS)
    return sorted({str(token) for token in named if token})


def control_tokens(tokenizer: Any) -> list[str]:
    """The tokenizer's special tokens, the longest first."""
    added = tokenizer.added_tokens_decoder.values()
    # One character cannot be taken apart.
    names = {token.content for token in added if token.special and len(token.content) > 1}
    return sorted(names, key=lambda name: (-len(name), name))


def any_of(strings: Iterable[str], messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The first of the strings that the text of chat messages holds."""
    texts = [text for message in messages for text in _texts(message["content"])]
    return next((string for string in strings if any(string in text for text in texts)), None)


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


@lru_cache(maxsize=4)
def plain_reader(tokenizer: Any) -> PlainReader:
    """The reader over a tokenizer, made once; raises ConfigError if it is none of Hugging Face's fast tokenizers."""
    return PlainReader(tokenizer)


class PlainReader:
    """Stands in for a tokenizer, also within a processor: ``reader(text)`` of text rendered from :meth:`marked`.

    It is a copy of the tokenizer that knows no special token by its usual name, and knows each by a name of its own:
    thus spaces, normalisation and merges around the template's special tokens are the tokenizer's.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import AddedToken, Tokenizer

        core = getattr(tokenizer, "backend_tokenizer", None)
        if core is None:
            raise ConfigError(
                f"contextrl.prompt.special_tokens_in_text is 'split', and {type(tokenizer).__name__} is not one of "
                "Hugging Face's fast tokenizers, whose special tokens can be read as text. "
                "Fix: contextrl.prompt.special_tokens_in_text=keep."
            )
        self._tokenizer, self._core = tokenizer, Tokenizer.from_str(core.to_str())
        self._core.no_padding()
        self._core.no_truncation()
        names = "|".join(map(re.escape, control_tokens(tokenizer))) or "(?!)"
        self._starts = re.compile(f"(?=(?:{names})).", re.DOTALL)
        self._names = re.compile(f"({names})|{NUL}")
        self._core.encode_special_tokens = True  # in the library's words: read them as text
        added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        self._ids: dict[int, int] = {}
        for name in control_tokens(tokenizer):
            flags = {flag: getattr(added[name], flag) for flag in ("single_word", "lstrip", "rstrip")}
            self._core.add_tokens([AddedToken(NUL + name + NUL, normalized=False, **flags)])
            self._ids[self._core.token_to_id(NUL + name + NUL)] = tokenizer.convert_tokens_to_ids(name)

    def marked(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The chat messages with a mark in whatever spells a special token, for the chat template and the processor."""

        def content(of: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
            if isinstance(of, str):
                return self._starts.sub(lambda found: found[0] + NUL, of)
            return [part | {"text": content(part["text"])} if part["type"] == "text" else part for part in of]

        return [{**message, "content": content(message["content"])} for message in messages]

    def __call__(self, text: str | list[str], return_tensors: str | None = None, **_: Any) -> Any:
        """``input_ids`` and ``attention_mask`` as a tokenizer gives them without adding special tokens."""
        from transformers import BatchEncoding

        rows = [self._encode(one) for one in ([text] if isinstance(text, str) else text)]
        masks = [[1] * len(row) for row in rows]
        if isinstance(text, str):
            rows, masks = rows[0], masks[0]
        return BatchEncoding({"input_ids": rows, "attention_mask": masks}, tensor_type=return_tensors)

    def _encode(self, text: str) -> list[int]:
        named = self._names.sub(lambda found: NUL + found[1] + NUL if found[1] else "", text)
        return [self._ids.get(token, token) for token in self._core.encode(named, add_special_tokens=False).ids]

    def within(self, processor: Any) -> Any:
        """The processor with this reader as its tokenizer."""
        processor = copy.copy(processor)
        processor.tokenizer = self
        return processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
