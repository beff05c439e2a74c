"""What feature groups look at: a pair with the statistics of its contexts, each computed once and kept for its couple.

The other direction of a couple shows the same contexts, so a small cache halves the work of a file that holds both.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.prompting import option_order

WORD_BUCKETS = 1 << 20
_WORDS = HashingVectorizer(n_features=WORD_BUCKETS, token_pattern=r"\w+", norm=None, alternate_sign=False)
_CACHED_CONTEXTS = 64


class TextView:
    """A text and counts of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._known: dict[Callable, Any] = {}

    def once(self, function: Callable[[Any], Any]) -> Any:
        """``function(self)``, computed the first time it is asked for."""
        if function not in self._known:
            self._known[function] = function(self)
        return self._known[function]

    @cached_property
    def byte_counts(self) -> np.ndarray:
        """[256] how often each byte of its UTF-8 form occurs."""
        return np.bincount(np.frombuffer(self.text.encode("utf-8", "surrogatepass"), np.uint8), minlength=256)

    @cached_property
    def words(self) -> csr_matrix:
        """[1, WORD_BUCKETS] how often each lower-case word occurs, by hash; a lone surrogate is no word."""
        return _WORDS.transform([self.text])


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
        self._images = list(context.images or ())
        self._where = where

    @cached_property
    def images(self) -> list[tuple[int, int, int]]:
        """Bytes, width and height of each image, as its file says; no pixel is decoded."""
        return self.of_images(lambda data: (len(data), *Image.open(io.BytesIO(data)).size))

    def of_images(self, function: Callable[[bytes], Any]) -> list[Any]:
        """``function`` of each encoded image; raises ConfigError if one is missing or is none."""
        return [self._of(image, function) for image in self._images]

    def _of(self, image: ImageRef, function: Callable[[bytes], Any]) -> Any:
        try:
            return function(Path(image.path).read_bytes() if image.bytes is None else image.bytes)
        except Exception as error:  # Pillow's readers meet broken files with OSError, SyntaxError, struct.error, ...
            name = f"image {image.path!r}" if image.bytes is None else f"an image of {len(image.bytes)} bytes"
            raise ConfigError(
                f"{self._where}: {name} cannot be read as an image ({error}). Fix: replace it or drop the pair."
            ) from None


class PairView:
    """A pair as feature groups see it. ``contexts[0]`` supports; features of a context must not depend on that.

    Attributes:
        pair: the record.
        index: its row in the file.
        contexts: in the record's order.
        answer: counts of the answer's text.
        shown: position of each context in the prompt of epoch 0.
    """

    def __init__(self, pair: ContrastivePair, index: int, contexts: list[ContextView], seed: int) -> None:
        self.pair = pair
        self.index = index
        self.contexts = contexts
        self.answer = TextView(pair.answer)
        order = option_order(pair.pair_id, len(contexts), 0, seed)
        self.shown = [order.index(position) for position in range(len(order))]


class Views:
    """Makes views of pairs; equal contexts of neighbouring pairs share one."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._cache: OrderedDict[str, ContextView] = OrderedDict()

    def of(self, pair: ContrastivePair, index: int) -> PairView:
        """The pair's view; ``index`` is its row."""
        where = f"row {index}, pair {pair.pair_id!r}"
        return PairView(pair, index, [self._context(context, where) for context in pair.contexts], self._seed)

    def _context(self, context: Context, where: str) -> ContextView:
        content = repr(context.model_dump()).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        view = self._cache.pop(digest, None) or ContextView(context, digest, where)
        self._cache[digest] = view
        if len(self._cache) > _CACHED_CONTEXTS:
            self._cache.popitem(last=False)
        return view
