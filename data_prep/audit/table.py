"""From a stream of pairs to arrays of features, and how far overlap of words gets, in bounded memory.

Of each pair only its numbers are kept. When there are more pairs than ``most``, whole couples are drawn by a hash of
their name, so that the sample depends on the seed and the data, not on how far the stream has been read.

Overlap of words may see query and answer: evidence, not a shortcut, but worth knowing. Nothing is trained; each
baseline scores every context of a pair and picks the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.features import FeatureGroup
from data_prep.audit.links import Link, link
from data_prep.audit.models import Features
from data_prep.audit.view import WORD_BUCKETS, ContextView, PairView, TextView, views_of
from data_prep.common.splits import draw

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
# Of one pair and group: numbers of the contexts, numbers of the contexts to be crossed, and of the pair.
_Block = tuple[np.ndarray, np.ndarray, np.ndarray]
# The answer's distinct words by hash; how often each is in each context; words of each context in all.
_Terms = tuple[np.ndarray, np.ndarray, np.ndarray]


class Row(NamedTuple):
    """What is kept of a pair; ``overlap`` and ``terms`` are for the baselines."""

    index: int
    pair_id: str
    domain: str
    split: str
    link: Link
    blocks: list[_Block]
    overlap: np.ndarray | None
    terms: _Terms | None


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

    def score(self, words: np.ndarray, counts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """[contexts] BM25 of the answer's words."""
        seen = self._table[words]
        rarity = np.log1p((self._contexts - seen + 0.5) / (seen + 0.5))
        mean = self._words / max(self._contexts, 1) or 1.0
        damped = 1.2 * (0.25 + 0.75 * lengths / mean)[:, None]
        return (rarity * counts * 2.2 / (counts + damped)).sum(1)


def read_table(
    pairs: Iterable[ContrastivePair], groups: Sequence[FeatureGroup], *, seed: int, most: float, evidence: bool
) -> tuple[list[Row], int, Frequencies]:
    """Every group's numbers of every pair.

    Args:
        most: how many pairs to keep, to the nearest couple. ``evidence``: whether to compute the overlap baselines too.

    Returns:
        Rows of the pairs that are kept in the file's order, how many were read, and words over all contexts read.

    Raises:
        ConfigError: a group's numbers are not finite or of another shape than before, or an image is broken.
    """
    frequencies = Frequencies()
    # Couples by a drawn number; those of the largest are left out when there are too many.
    kept: dict[bytes, list[Row]] = {}
    limit, total, read = b"\xff" * 9, 0, 0
    shapes: dict[str, tuple] = {}
    for view in views_of(pairs, seed):
        pair, one, read = view.pair, link(view), view.index + 1
        for context in view.contexts if evidence else ():
            frequencies.add(context)
        drawn = draw(seed, one.couple)
        if drawn >= limit:
            continue
        blocks = [_block(view, group, shapes) for group in groups]
        baselines = (_overlap(view), _terms(view)) if evidence else (None, None)
        row = Row(view.index, pair.pair_id, pair.domain, pair.split, one, blocks, *baselines)
        kept.setdefault(drawn, []).append(row)
        total += 1
        while total > most and len(kept) > 1:
            limit = max(kept)
            total -= len(kept.pop(limit))
    return sorted(chain.from_iterable(kept.values()), key=lambda row: row.index), read, frequencies


def features_of(rows: Sequence[Row], group: int, wide: bool) -> Features:
    """The numbers of one of the groups for all rows."""
    columns, crossed, of_pair = zip(*(row.blocks[group] for row in rows), strict=True)
    return Features(np.concatenate(columns), np.concatenate(crossed), np.stack(of_pair), wide)


def baseline_scores(rows: Sequence[Row], frequencies: Frequencies) -> dict[str, np.ndarray]:
    """[contexts] scores of every baseline; none if they were not asked for."""
    if rows[0].overlap is None:
        return {}
    jaccard, lines, fuzzy = np.concatenate([row.overlap for row in rows]).T
    tf_idf = np.concatenate([frequencies.score(*row.terms) for row in rows])
    return dict(zip(BASELINES, (jaccard, tf_idf, lines, fuzzy), strict=True))


def shared_words(one: TextView, other: TextView) -> float:
    """Distinct words that both texts have over those that either has (Jaccard); 0 where there is none."""
    shared = len(np.intersect1d(one.words.indices, other.words.indices, assume_unique=True))
    return shared / max(one.words.nnz + other.words.nnz - shared, 1)


def _block(view: PairView, group: FeatureGroup, shapes: dict[str, tuple]) -> _Block:
    count = len(view.contexts)
    crossed = [function(view) for function in group.crossed] if group.crossed else [np.zeros((count, 0)), []]
    columns = group.columns(view) if group.columns else np.zeros((count, 0))
    block = tuple(map(np.asarray, (columns, *crossed)))
    widths = tuple(array.shape[-1] for array in block)
    if odd := [array.shape for array in block[:2] if array.ndim != 2 or len(array) != count]:
        problem = f"has shape {odd[0]} for {count} contexts. Fix: return one row of numbers for each context."
    elif not all(np.isfinite(array).all() for array in block):
        problem = "has numbers that are not finite. Fix: guard its divisions and logarithms."
    elif (before := shapes.setdefault(group.name, widths)) != widths:
        problem = f"has {widths} columns, and {before} before. Fix: give every pair the same columns."
    else:
        return block
    raise ConfigError(f"row {view.index}, pair {view.pair.pair_id!r}: feature group {group.name!r} {problem}")


def _terms(view: PairView) -> _Terms:
    """What tf-idf needs of a pair once the file has been read: how rare a word is shows only then."""
    words = view.answer.words.indices
    counts = np.concatenate([context.words[:, words].toarray() for context in view.contexts])
    lengths = np.asarray([context.words.sum() for context in view.contexts])
    return words, np.minimum(counts, 60000).astype(np.uint16), lengths


def _overlap(view: PairView) -> np.ndarray:
    """[contexts, 3] scores of the baselines jaccard, lines and fuzzy."""
    from rapidfuzz import fuzz

    answer = view.pair.answer
    lines = {line.lstrip("+-").strip() for line in answer.splitlines()} | {answer.strip()}
    # A short answer such as "7" or "blue" has no line to speak of; it is looked for whole.
    needles = sorted((line for line in lines if len(line) >= _LEAST_LINE), key=lambda line: (-len(line), line))
    needles = needles or [answer.strip()]
    rows = []
    for context in view.contexts:
        found = [len(line) for line in needles if line in context.text]
        longest = max(found, default=0) / (1 + len(needles[0]))
        fuzzy = [fuzz.partial_ratio(line[:_FUZZY_CHARS], context.text) for line in needles[:_FUZZY_LINES]]
        jaccard = shared_words(view.answer, context)
        rows.append([jaccard, len(found) / len(needles) + longest / 1000, float(np.mean(fuzzy))])
    return np.asarray(rows)
