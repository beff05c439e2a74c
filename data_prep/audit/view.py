"""What feature groups look at: a pair with the statistics of its contexts, each computed once and kept for its couple.

The other direction of a couple shows the same contexts, so a small cache halves the work of a file that holds both.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.prompting import option_order
from data_prep.common.lexical import Words, words_of

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
    def words(self) -> Words:
        """How often each word occurs."""
        return words_of(self.text)


class ContextView(TextView):
    """One context: the text of all its turns, the turns, or its images.

    Attributes:
        digest: of the content; equal contexts of different pairs have equal digests.
        turns: (role, content) of each message; one turn without a role for plain text, none for images.
    """

    def __init__(self, context: Context, digest: str, where: str) -> None:
        self.kind, self.digest, self._images, self._where = context.kind, digest, context.images or (), where
        text = [] if context.text is None else [("", context.text)]
        self.turns = text or [(message.role, message.content) for message in context.messages or ()]
        super().__init__("\n".join(content for _, content in self.turns))

    @cached_property
    def images(self) -> list[tuple[int, int, int]]:
        """Bytes, width and height of each image, as its file says; no pixel is decoded."""
        return self.of_images(lambda data: (len(data), *Image.open(io.BytesIO(data)).size))

    def of_images(self, function: Callable[[bytes], Any]) -> list[Any]:
        """``function`` of each encoded image; raises ConfigError if one is missing or is none."""
        found = []
        for image in self._images:
            try:
                found.append(function(Path(image.path).read_bytes() if image.bytes is None else image.bytes))
            except Exception as error:  # Pillow meets broken files with OSError, SyntaxError, struct.error, ...
                name = f"image {image.path!r}" if image.bytes is None else f"an image of {len(image.bytes)} bytes"
                raise ConfigError(
                    f"{self._where}: {name} cannot be read as an image ({error}). Fix: replace it or drop the pair."
                ) from None
        return found


class PairView:
    """A pair, which is row ``index`` of its file, as feature groups see it: its contexts and its answer.

    ``contexts[0]`` supports; features of a context must not depend on that. ``shown`` has the position of each context
    in the prompt of epoch 0.
    """

    def __init__(self, pair: ContrastivePair, index: int, contexts: list[ContextView], seed: int) -> None:
        self.pair, self.index, self.contexts, self.answer = pair, index, contexts, TextView(pair.answer)
        self.shown = np.argsort(option_order(pair.pair_id, len(contexts), 0, seed))


def views_of(numbered: Iterable[tuple[int, ContrastivePair]], seed: int) -> Iterator[PairView]:
    """A view of each pair of a file, given with its row; equal contexts of neighbouring pairs share one."""
    known: OrderedDict[str, ContextView] = OrderedDict()
    for index, pair in numbered:
        contexts = []
        for context in pair.contexts:
            content = repr(context.model_dump()).encode("utf-8", "surrogatepass")
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            view = known.pop(digest, None) or ContextView(context, digest, f"row {index}, pair {pair.pair_id!r}")
            known[digest] = view
            if len(known) > _CACHED_CONTEXTS:
                known.popitem(last=False)
            contexts.append(view)
        yield PairView(pair, index, contexts, seed)
