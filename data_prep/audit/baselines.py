"""How far overlap of words gets when query and answer may be seen: evidence, not a shortcut, but worth knowing.

Nothing is trained; each baseline scores every context of a pair and picks the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.audit.view import ContextView, PairView

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
_TABLE = 1 << 18


@dataclass
class Terms:
    """The answer's distinct words in each context.

    Attributes:
        words: [words] hashes.
        counts: [contexts, words] how often.
        lengths: [contexts] words in all.
    """

    words: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray


class Frequencies:
    """In how many contexts a word occurs, in a table of fixed size by hash."""

    def __init__(self) -> None:
        self._table = np.zeros(_TABLE, np.int64)
        self.contexts = 0
        self.words = 0.0

    def add(self, context: ContextView) -> None:
        """Count one context."""
        self._table[np.unique(context.word_hashes % _TABLE)] += 1
        self.contexts += 1
        self.words += float(context.word_counts.sum())

    def score(self, terms: Terms) -> np.ndarray:
        """[contexts] BM25 of the answer's words."""
        seen = self._table[terms.words % _TABLE]
        rarity = np.log1p((self.contexts - seen + 0.5) / (seen + 0.5))
        mean = self.words / max(self.contexts, 1) or 1.0
        damped = 1.2 * (0.25 + 0.75 * terms.lengths / mean)[:, None]
        return (rarity * terms.counts * 2.2 / (terms.counts + damped)).sum(1)


def _counts_in(words: np.ndarray, context: ContextView) -> np.ndarray:
    if not len(context.word_hashes):
        return np.zeros(len(words))
    at = np.minimum(np.searchsorted(context.word_hashes, words), len(context.word_hashes) - 1)
    return np.where(context.word_hashes[at] == words, context.word_counts[at], 0)


def terms_of(view: PairView) -> Terms:
    """What tf-idf needs of a pair once the file has been read."""
    words = view.answer.word_hashes
    counts = np.stack([_counts_in(words, context) for context in view.contexts])
    lengths = np.asarray([context.word_counts.sum() for context in view.contexts])
    return Terms(words, np.minimum(counts, 60000).astype(np.uint16), lengths)


def _lines(text: str) -> list[str]:
    stripped = {line.lstrip("+-").strip() for line in text.splitlines()} | {text.strip()}
    return sorted((line for line in stripped if len(line) >= _LEAST_LINE), key=lambda line: (-len(line), line))


def overlap_scores(view: PairView) -> np.ndarray:
    """[contexts, 3] scores of the baselines jaccard, lines and fuzzy."""
    from rapidfuzz import fuzz

    lines = _lines(view.pair.answer)
    # A short answer such as "7" or "blue" has no line to speak of; it is looked for whole.
    needles = lines or [view.pair.answer.strip()]
    rows = []
    for context in view.contexts:
        shared = int((_counts_in(view.answer.word_hashes, context) > 0).sum())
        union = len(view.answer.word_hashes) + len(context.word_hashes) - shared
        found = [len(line) for line in needles if line in context.text]
        longest = max(found, default=0) / (1 + max(map(len, needles)))
        fuzzy = [fuzz.partial_ratio(line[:_FUZZY_CHARS], context.text) for line in needles[:_FUZZY_LINES]]
        rows.append([shared / max(union, 1), len(found) / len(needles) + longest / 1000, float(np.mean(fuzzy))])
    return np.asarray(rows)
