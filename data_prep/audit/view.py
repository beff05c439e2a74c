"""What feature groups look at: a pair with the statistics of its contexts, each computed once and kept for its couple.

The other direction of a couple shows the same contexts, so a small cache halves the work of a file that holds both.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.prompting import option_order

_WORD = re.compile(r"\w+")
_CACHED_CONTEXTS = 64
_CACHED_WORDS = 300_000


class _Hashes(dict[str, int]):
    """CRC-32 of words; most words of a run are those of the runs before."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        value = self[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        return value


_HASHES = _Hashes()


class AuditError(ConfigError):
    """Pairs that cannot be audited; one paragraph that names value, place and fix."""


class TextView:
    """Counts of one text.

    Attributes:
        text: as given.
        byte_counts: [256] how often each byte of its UTF-8 form occurs.
        word_hashes, word_counts: its distinct lower-case words as sorted CRC-32 values, and how often each occurs.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._memory: dict[Callable, Any] = {}

    def once(self, function: Callable[[Any], Any]) -> Any:
        """``function(self)``, computed the first time it is asked for."""
        if function not in self._memory:
            self._memory[function] = function(self)
        return self._memory[function]

    @cached_property
    def byte_counts(self) -> np.ndarray:
        raw = self.text.encode("utf-8", "surrogatepass")
        return np.bincount(np.frombuffer(raw, np.uint8), minlength=256)

    @cached_property
    def _words(self) -> tuple[np.ndarray, np.ndarray]:
        counted = Counter(_WORD.findall(self.text.lower()))
        hashes = np.fromiter(map(_HASHES.__getitem__, counted), np.uint32, len(counted))
        unique, inverse = np.unique(hashes, return_inverse=True)
        return unique, np.bincount(inverse, weights=list(counted.values()), minlength=len(unique))

    @property
    def word_hashes(self) -> np.ndarray:
        return self._words[0]

    @property
    def word_counts(self) -> np.ndarray:
        return self._words[1]


@dataclass(frozen=True)
class ImageSize:
    """An image as its file says: encoded bytes, and pixels across and down. No pixel is decoded."""

    size: int
    width: int
    height: int


class ContextView(TextView):
    """One context: the text of all its turns, the turns, or its images.

    Attributes:
        digest: of the content; equal contexts of different pairs have equal digests.
        turns: (role, content) of each message; one turn without a role for plain text, none for images.
    """

    def __init__(self, context: Context, digest: str, where: str) -> None:
        self.kind = context.kind
        self.digest = digest
        self.turns = [(message.role, message.content) for message in context.messages or ()]
        if context.text is not None:
            self.turns = [("", context.text)]
        super().__init__("\n".join(content for _, content in self.turns))
        self.references = list(context.images or ())
        self._where = where

    @cached_property
    def images(self) -> list[ImageSize]:
        """Raises AuditError if a file is missing or is no image."""
        return [_image_size(reference, self._where) for reference in self.references]


def _image_size(reference: ImageRef, where: str) -> ImageSize:
    given = reference.bytes is not None
    name = f"an image of {len(reference.bytes)} bytes" if given else f"image {reference.path!r}"
    try:
        with Image.open(io.BytesIO(reference.bytes) if given else reference.path) as image:
            width, height = image.size
        return ImageSize(len(reference.bytes) if given else os.path.getsize(reference.path), width, height)
    except Exception as error:  # Pillow's readers meet broken files with OSError, SyntaxError, struct.error, ...
        raise AuditError(
            f"{where}: {name} cannot be read as an image ({error}). Fix: replace it or drop the pair."
        ) from None


def digest_of(context: Context) -> str:
    """A digest of a context's content."""
    state = hashlib.blake2b(context.kind.encode(), digest_size=16)

    def add(tag: bytes, part: bytes) -> None:
        state.update(b"%s%d:" % (tag, len(part)))
        state.update(part)

    if context.text is not None:
        add(b"t", context.text.encode("utf-8", "surrogatepass"))
    for message in context.messages or ():
        add(b"r", message.role.encode("utf-8", "surrogatepass"))
        add(b"c", message.content.encode("utf-8", "surrogatepass"))
    for image in context.images or ():
        if image.bytes is not None:
            add(b"b", image.bytes)
        else:
            add(b"p", (image.path or "").encode("utf-8", "surrogatepass"))
    return state.hexdigest()


class PairView:
    """A pair as feature groups see it. ``contexts[0]`` supports; features of a context must not depend on that.

    Attributes:
        pair: the record.
        index: its row in the file.
        contexts: in the record's order.
        answer: counts of the answer's text.
        seed: of the audit; decides the shown order.
    """

    def __init__(self, pair: ContrastivePair, index: int, contexts: list[ContextView], seed: int = 0) -> None:
        self.pair = pair
        self.index = index
        self.contexts = contexts
        self.answer = TextView(pair.answer)
        self.seed = seed

    @cached_property
    def shown(self) -> list[int]:
        """Position of each context in the prompt of epoch 0."""
        order = option_order(self.pair.pair_id, len(self.contexts), 0, self.seed)
        return [order.index(position) for position in range(len(order))]


class Views:
    """Makes views of pairs; equal contexts of neighbouring pairs share one."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._cache: OrderedDict[str, ContextView] = OrderedDict()

    def of(self, pair: ContrastivePair, index: int) -> PairView:
        """The pair's view, with its row for messages."""
        where = f"row {index}, pair {pair.pair_id!r}"
        return PairView(pair, index, [self._context(context, where) for context in pair.contexts], self._seed)

    def _context(self, context: Context, where: str) -> ContextView:
        digest = digest_of(context)
        view = self._cache.get(digest)
        if view is None:
            view = self._cache[digest] = ContextView(context, digest, where)
            if len(self._cache) > _CACHED_CONTEXTS:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(digest)
        return view
