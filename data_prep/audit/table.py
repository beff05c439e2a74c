"""From a stream of pairs to arrays of features, and how far overlap of words gets, in bounded memory.

Of each pair only its numbers are kept. When there are more pairs than ``most``, whole couples are drawn by a hash of
their name, so that the sample depends on the seed and the data, not on how far the stream has been read.

Overlap of words may see query and answer: evidence, not a shortcut, but worth knowing. Nothing is trained; each
baseline scores every context of a pair and picks the best.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.features import FeatureGroup
from data_prep.audit.links import Link, link
from data_prep.audit.models import Features
from data_prep.audit.view import ContextView, PairView, TextView, views_of
from data_prep.common.lexical import Frequencies, Terms, Words, terms_of, words_of
from data_prep.common.splits import draw

# Those by BM25 first: of all of a context, of its first message of a user (an issue), of the last word of its agent.
BASELINES = {
    "overlap: tf-idf": "the answer's words in the context, rare ones more, saturated and by length (BM25)",
    "overlap: opening": "the same in the first message of a user, which states the task, alone",
    "overlap: ending": "the same in the last message of an assistant, which sums up, alone",
    "overlap: jaccard": "shared distinct words of answer and context, over all their words",
    "overlap: lines": "share of the answer's lines that stand in the context, then the longest of them",
    "overlap: fuzzy": "how well the answer's longest lines match somewhere in the context (rapidfuzz)",
    "overlap: numbers": "how many of the answer's numbers of two digits or more stand in the context",
}
# Pairs up to which starting processes takes longer than the work; pairs given to a process at a time.
ALONE = 1000
_CHUNK = 32
_LEAST_LINE = 8
_FUZZY_LINES = 4
# rapidfuzz compares up to 64 characters in one machine word.
_FUZZY_CHARS = 64
_NUMBER = re.compile(r"\b\d{2,}\b")
# Of one pair and group: numbers of the contexts, numbers of the contexts to be crossed, and of the pair.
_Block = tuple[np.ndarray, np.ndarray, np.ndarray]


class Row(NamedTuple):
    """What is kept of a pair; ``overlap`` and ``terms`` are for the baselines."""

    index: int
    pair_id: str
    domain: str
    kind: str
    split: str
    link: Link
    blocks: list[_Block]
    overlap: np.ndarray | None
    terms: list[Terms] | None


class _Read(NamedTuple):
    """A pair's drawn number; its row, unless that number was too high; distinct words of each context, and in all."""

    drawn: bytes
    row: Row | None
    words: list[tuple[np.ndarray, int]]


def read_table(
    pairs: Iterable[ContrastivePair],
    groups: Sequence[FeatureGroup],
    *,
    seed: int,
    most: float,
    evidence: bool,
    workers: int = 1,
) -> tuple[list[Row], int, Frequencies]:
    """Every group's numbers of every pair.

    Args:
        most: how many pairs to keep, to the nearest couple. ``evidence``: whether to compute the overlap baselines too.
        workers: processes; the result does not depend on it.

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

    def found() -> Iterator[_Read]:
        numbered = enumerate(pairs)
        first = numbered if workers == 1 else islice(numbered, ALONE)
        yield from _read(first, groups, seed, evidence, lambda: limit)
        if workers != 1:
            from joblib import Parallel, delayed

            several = iter(lambda: list(islice(numbered, _CHUNK)), [])
            # How far the sample has been narrowed when a chunk is given out; here it is looked at again.
            jobs = (delayed(_read_chunk)(chunk, groups, seed, evidence, limit) for chunk in several)
            yield from chain.from_iterable(Parallel(n_jobs=workers, return_as="generator")(jobs))

    for drawn, row, words in found():
        read += 1
        for ids, count in words:
            frequencies.add(ids, count)
        if row is None or drawn >= limit:
            continue
        _same_shapes(row, groups, shapes)
        kept.setdefault(drawn, []).append(row)
        total += 1
        while total > most and len(kept) > 1:
            limit = max(kept)
            total -= len(kept.pop(limit))
    return sorted(chain.from_iterable(kept.values()), key=lambda row: row.index), read, frequencies


def _read(
    numbered: Iterable[tuple[int, ContrastivePair]],
    groups: Sequence[FeatureGroup],
    seed: int,
    evidence: bool,
    limit: Callable[[], bytes],
) -> Iterator[_Read]:
    for view in views_of(numbered, seed):
        pair, one = view.pair, link(view)
        words = [(context.words.ids, context.words.total) for context in view.contexts] if evidence else []
        drawn, row = draw(seed, one.couple), None
        if drawn < limit():
            blocks = [_block(view, group) for group in groups]
            baselines = (_overlap(view), _terms(view)) if evidence else (None, None)
            kind = str(pair.provenance.get("kind") or "")
            row = Row(view.index, pair.pair_id, pair.domain, kind, pair.split, one, blocks, *baselines)
        yield _Read(drawn, row, words)


def _read_chunk(
    numbered: list[tuple[int, ContrastivePair]], groups: Sequence[FeatureGroup], seed: int, evidence: bool, limit: bytes
) -> list[_Read]:
    return list(_read(numbered, groups, seed, evidence, lambda: limit))


def features_of(rows: Sequence[Row], group: int, wide: bool) -> Features:
    """The numbers of one of the groups for all rows."""
    columns, crossed, of_pair = zip(*(row.blocks[group] for row in rows), strict=True)
    return Features(np.concatenate(columns), np.concatenate(crossed), np.stack(of_pair), wide)


def baseline_scores(rows: Sequence[Row], frequencies: Frequencies) -> dict[str, np.ndarray]:
    """[contexts] scores of every baseline; none if they were not asked for."""
    if rows[0].overlap is None:
        return {}
    by_rarity = [np.stack([frequencies.score(part) for part in row.terms], 1) for row in rows]
    scores = np.concatenate([np.concatenate(by_rarity), np.concatenate([row.overlap for row in rows])], 1)
    return dict(zip(BASELINES, scores.T, strict=True))


def shared_words(one: TextView, other: TextView) -> float:
    """Distinct words that both texts have over those that either has (Jaccard); 0 where there is none."""
    a, b = one.words.ids, other.words.ids
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)


def _block(view: PairView, group: FeatureGroup) -> _Block:
    count = len(view.contexts)
    crossed = [function(view) for function in group.crossed] if group.crossed else [np.zeros((count, 0)), []]
    columns = group.columns(view) if group.columns else np.zeros((count, 0))
    block = tuple(map(np.asarray, (columns, *crossed)))
    if odd := [array.shape for array in block[:2] if array.ndim != 2 or len(array) != count]:
        problem = f"has shape {odd[0]} for {count} contexts. Fix: return one row of numbers for each context."
    elif not all(np.isfinite(array).all() for array in block):
        problem = "has numbers that are not finite. Fix: guard its divisions and logarithms."
    else:
        return block
    raise _bad_group(view.index, view.pair.pair_id, group, problem)


def _same_shapes(row: Row, groups: Sequence[FeatureGroup], shapes: dict[str, tuple]) -> None:
    for group, block in zip(groups, row.blocks, strict=True):
        widths = tuple(array.shape[-1] for array in block)
        if (before := shapes.setdefault(group.name, widths)) != widths:
            problem = f"has {widths} columns, and {before} before. Fix: give every pair the same columns."
            raise _bad_group(row.index, row.pair_id, group, problem)


def _bad_group(index: int, pair_id: str, group: FeatureGroup, problem: str) -> ConfigError:
    return ConfigError(f"row {index}, pair {pair_id!r}: feature group {group.name!r} {problem}")


def _opening(context: ContextView) -> Words:
    return words_of(next((content for role, content in context.turns if role == "user"), context.text))


def _ending(context: ContextView) -> Words:
    return words_of(next((content for role, content in reversed(context.turns) if role == "assistant"), context.text))


def _terms(view: PairView) -> list[Terms]:
    """What BM25 needs of a pair once the file has been read, of whole contexts and of parts: how rare a word is shows
    only then."""
    parts = (
        [context.words for context in view.contexts],
        *([context.once(part) for context in view.contexts] for part in (_opening, _ending)),
    )
    return [terms_of(view.answer.words, part) for part in parts]


def _numbers(text: TextView) -> set[str]:
    return set(_NUMBER.findall(text.text))


def _overlap(view: PairView) -> np.ndarray:
    """[contexts, 4] scores of the baselines jaccard, lines, fuzzy and numbers."""
    from rapidfuzz import fuzz

    answer = view.pair.answer
    lines = {line.lstrip("+-").strip() for line in answer.splitlines()} | {answer.strip()}
    # A short answer such as "7" or "blue" has no line to speak of; it is looked for whole.
    needles = sorted((line for line in lines if len(line) >= _LEAST_LINE), key=lambda line: (-len(line), line))
    needles = needles or [answer.strip()]
    numbers, rows = _numbers(view.answer), []
    for context in view.contexts:
        found = [len(line) for line in needles if line in context.text]
        longest = max(found, default=0) / (1 + len(needles[0]))
        fuzzy = [fuzz.partial_ratio(line[:_FUZZY_CHARS], context.text) for line in needles[:_FUZZY_LINES]]
        jaccard, known = shared_words(view.answer, context), len(numbers & context.once(_numbers))
        rows.append([jaccard, len(found) / len(needles) + longest / 1000, float(np.mean(fuzzy)), known])
    return np.asarray(rows)
