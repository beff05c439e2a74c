"""How far mere overlap of words gets: words by hash and BM25. What makes pairs and what measures them count alike."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BUCKETS = 1 << 20
_WORD = re.compile(r"\w+")


class Words(NamedTuple):
    """The distinct lower-case words of a text as buckets of their hashes, ascending; how often each occurs; and how
    many words there are in all."""

    ids: np.ndarray
    counts: np.ndarray
    total: int

    def count_of(self, ids: np.ndarray) -> np.ndarray:
        """[ids] how often each of some ascending ids occurs."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int32)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, self.counts[at], 0).astype(np.int32)


def words_of(text: str) -> Words:
    """Count the words of a text; a lone surrogate is none."""
    counts = Counter(_WORD.findall(text.lower()))
    hashes = np.fromiter((zlib.crc32(word.encode()) % BUCKETS for word in counts), np.int32, len(counts))
    return summed(hashes, np.fromiter(counts.values(), np.int32, len(counts)))


def summed(ids: np.ndarray, counts: np.ndarray) -> Words:
    """Words of buckets in any order, which may be there twice."""
    distinct, where = np.unique(ids, return_inverse=True)
    together = np.bincount(where, counts, len(distinct)).astype(np.int32)
    return Words(distinct, together, int(together.sum()))


class Terms(NamedTuple):
    """What BM25 needs of a pair: the answer's words, [contexts, words] how often each is in a context, and [contexts]
    its words in all."""

    words: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray


def terms_of(answer: Words, contexts: Sequence[Words]) -> Terms:
    """The answer's words in each context."""
    counts = np.stack([context.count_of(answer.ids) for context in contexts])
    return Terms(answer.ids, np.minimum(counts, 60000).astype(np.uint16), np.array([one.total for one in contexts]))


class Frequencies:
    """In how many contexts a word occurs."""

    def __init__(self) -> None:
        self._table = np.zeros(BUCKETS, np.int64)
        self._contexts, self._words = 0, 0.0

    def add(self, ids: np.ndarray, total: float) -> None:
        """Count one context: its distinct words, and how many words it has in all."""
        self._table[ids] += 1
        self._contexts += 1
        self._words += total

    def score(self, terms: Terms) -> np.ndarray:
        """[contexts] BM25 of the answer's words."""
        seen = self._table[terms.words]
        rarity = np.log1p((self._contexts - seen + 0.5) / (seen + 0.5))
        mean = self._words / max(self._contexts, 1) or 1.0
        damped = 1.2 * (0.25 + 0.75 * terms.lengths / mean)[:, None]
        return (rarity * terms.counts * 2.2 / (terms.counts + damped)).sum(1)
