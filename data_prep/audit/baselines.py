"""How far overlap of words gets when query and answer may be seen: evidence, not a shortcut, but worth knowing.

Nothing is trained; each baseline scores every context of a pair and picks the best.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_prep.audit.view import WORD_BUCKETS, ContextView, PairView

BASELINES = {
    "overlap: jaccard": "shared distinct words of answer and context, over all their words",
    "overlap: tf-idf": "the answer's words in the context, rare ones more, saturated and by length (BM25)",
    "overlap: lines": "share of the answer's lines that stand in the context, then the longest of them",
    "overlap: fuzzy": "how well the answer's longest lines match somewhere in the context (rapidfuzz)",
}
_LEAST_LINE = 8
_FUZZY_LINES = 4
# rapidfuzz compares up to 64 characters in one machine word.
_FUZZY_CHARS = 64


class Terms(NamedTuple):
    """The answer's distinct words by hash; how often each is in each context; words of each context in all."""

    words: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray


class Frequencies:
    """In how many contexts a word occurs, by its hash."""

    def __init__(self) -> None:
        self._table = np.zeros(WORD_BUCKETS, np.int64)
        self._contexts, self._words = 0, 0.0

    def add(self, context: ContextView) -> None:
        """Count one context."""
        self._table[context.words.indices] += 1
        self._contexts += 1
        self._words += float(context.words.sum())

    def score(self, terms: Terms) -> np.ndarray:
        """[contexts] BM25 of the answer's words."""
        seen = self._table[terms.words]
        rarity = np.log1p((self._contexts - seen + 0.5) / (seen + 0.5))
        mean = self._words / max(self._contexts, 1) or 1.0
        damped = 1.2 * (0.25 + 0.75 * terms.lengths / mean)[:, None]
        return (rarity * terms.counts * 2.2 / (terms.counts + damped)).sum(1)


def terms_of(view: PairView) -> Terms:
    """What tf-idf needs of a pair once the file has been read."""
    words = view.answer.words.indices
    counts = np.concatenate([context.words[:, words].toarray() for context in view.contexts])
    lengths = np.asarray([context.words.sum() for context in view.contexts])
    return Terms(words, np.minimum(counts, 60000).astype(np.uint16), lengths)


def overlap_scores(view: PairView) -> np.ndarray:
    """[contexts, 3] scores of the baselines jaccard, lines and fuzzy."""
    from rapidfuzz import fuzz

    answer = view.pair.answer
    lines = {line.lstrip("+-").strip() for line in answer.splitlines()} | {answer.strip()}
    # A short answer such as "7" or "blue" has no line to speak of; it is looked for whole.
    needles = sorted((line for line in lines if len(line) >= _LEAST_LINE), key=lambda line: (-len(line), line))
    needles = needles or [answer.strip()]
    rows = []
    for context in view.contexts:
        shared = len(np.intersect1d(view.answer.words.indices, context.words.indices, assume_unique=True))
        union = view.answer.words.nnz + context.words.nnz - shared
        found = [len(line) for line in needles if line in context.text]
        longest = max(found, default=0) / (1 + len(needles[0]))
        fuzzy = [fuzz.partial_ratio(line[:_FUZZY_CHARS], context.text) for line in needles[:_FUZZY_LINES]]
        rows.append([shared / max(union, 1), len(found) / len(needles) + longest / 1000, float(np.mean(fuzzy))])
    return np.asarray(rows)
