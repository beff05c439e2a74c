"""Groups that ask whether place, name or one side alone tells: position, identity, answer alone, context alone."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from data_prep.audit.features import answer_form
from data_prep.audit.links import context_names
from data_prep.audit.registry import FeatureGroup, register
from data_prep.audit.view import PairView, TextView

_PARTS = re.compile(r"[A-Za-z]+|\d+")
_WORD_BUCKETS = 1024
_ANSWER_BUCKETS = 256
_NAME_BUCKETS = 512
_ID_BUCKETS = 64


def hashed_words(text: TextView, buckets: int) -> np.ndarray:
    """[buckets] signed hashed bag of words: 1 + log of counts, unit length."""
    hashes = text.word_hashes
    signs = np.where(hashes >> 31, 1.0, -1.0)
    bag = np.bincount(hashes % buckets, weights=signs * (1 + np.log(text.word_counts)), minlength=buckets)
    return (bag / (np.linalg.norm(bag) or 1.0)).astype(np.float16)


def _bucketed(parts: Iterable[str], buckets: int) -> np.ndarray:
    found = np.zeros(buckets, np.float16)
    for part in parts:
        found[zlib.crc32(part.encode("utf-8", "surrogatepass")) % buckets] += 1
    return found


def _between(ranks: np.ndarray) -> np.ndarray:
    return 2 * ranks / max(len(ranks) - 1, 1) - 1


def slots(view: PairView) -> np.ndarray:
    """[contexts, 2] what tells the contexts of a pair apart without looking in: shown position; longer or shorter.

    Of pictures the number of pixels counts: how many bytes they take follows from what they show.
    """
    sizes = np.asarray([len(c.text) + sum(image.width * image.height for image in c.images) for c in view.contexts])
    longer = (sizes[:, None] > sizes).sum(1) + ((sizes[:, None] == sizes).sum(1) - 1) / 2
    return np.stack([_between(np.asarray(view.shown, float)), _between(longer)], 1).astype(np.float32)


def _shown(view: PairView) -> np.ndarray:
    return slots(view)[:, :1]


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}")
    elif isinstance(value, int | float):
        yield path, float(np.clip(np.nan_to_num(float(value)), -1e12, 1e12))


def _place(view: PairView) -> np.ndarray:
    """[columns] row number: parities, blocks, size; numbers of the provenance in eight buckets by key."""
    index = view.index
    found = np.zeros(8, np.float32)
    for path, number in _numbers(view.pair.provenance):
        found[zlib.crc32(path.encode("utf-8", "surrogatepass")) % 8] += np.sign(number) * np.log1p(abs(number))
    parities = [index % 2, index // 2 % 2, index // 4 % 2, index % 3 == 0, index % 3 == 1]
    return np.concatenate([np.asarray([*parities, np.log1p(index), index / 1000], np.float32), found])


def _names(view: PairView) -> np.ndarray:
    """[contexts, buckets] each context's name (from the provenance, or its content's digest) whole and in parts."""
    return np.stack([_bucketed([name, *_PARTS.findall(name)], _NAME_BUCKETS) for name in context_names(view)])


def _id_parts(view: PairView) -> np.ndarray:
    # An id may name the supporting run; the model is never shown ids, and that name is not what is asked about here.
    named = {part for name in context_names(view) for part in _PARTS.findall(name)}
    return _bucketed((part for part in _PARTS.findall(view.pair.pair_id) if part not in named), _ID_BUCKETS)


def _words(view: PairView) -> np.ndarray:
    return np.stack([context.once(_context_words) for context in view.contexts])


def _context_words(context: TextView) -> np.ndarray:
    return hashed_words(context, _WORD_BUCKETS)


def _answer_words(view: PairView) -> np.ndarray:
    return np.concatenate([answer_form(view), hashed_words(view.answer, _ANSWER_BUCKETS)])


register(
    FeatureGroup(
        "position",
        "position in the prompt; row number and numbers of the provenance, matched with position and length",
        columns=_shown,
        crossed=(slots, _place),
    )
)
register(
    FeatureGroup(
        "identity",
        "which run or image it is, learned from its other couples; parts of the pair's id",
        columns=_names,
        crossed=(slots, _id_parts),
        wide=True,
        memorises=True,
    )
)
register(
    FeatureGroup(
        "answer alone",
        "words, length and shape of the answer, matched with position and length only",
        sees="one side",
        crossed=(slots, _answer_words),
        wide=True,
    )
)
register(
    FeatureGroup(
        "context alone",
        "hashed words of each context, without query and answer",
        sees="one side",
        columns=_words,
        wide=True,
    )
)
