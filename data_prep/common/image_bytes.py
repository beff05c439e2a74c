"""Pairs that go into another folder take their images along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from contextrl_verl.pairs import ContrastivePair


def with_bytes(pairs: Iterable[ContrastivePair]) -> Iterator[ContrastivePair]:
    """The same pairs; images given by path are held by their bytes."""
    for pair in pairs:
        for context in pair.contexts:
            for image in context.images or ():
                if image.bytes is None:
                    image.bytes, image.path = Path(image.path).read_bytes(), None
        yield pair
