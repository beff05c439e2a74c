"""Every pair of rows whose cosine reaches a threshold: exact, block by block, never all scores at once.

A float32 score decides only where its rounding cannot matter. Pairs near the threshold are scored again in float64,
and at the threshold itself with one rounding only, so the result is the same on every machine and for every block size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_prep.images.errors import ImagePairError
from data_prep.images.search_bound import heads_for

Engine = Literal["numpy", "faiss", "faiss-hnsw", "faiss-ivf"]
ENGINES: tuple[Engine, ...] = ("numpy", "faiss", "faiss-hnsw", "faiss-ivf")
BLOCK = 2048
# How far a row's length may be from 1: a vector that was stored in half precision passes, one never normalised fails.
_LENGTH_SLACK = 1e-3
# A pair scored by itself costs as much as so many within a block; beyond that, the whole block is scored.
_ALONE = 150
_GATHERED_FLOATS = 1 << 22


@dataclass(frozen=True)
class PairBlock:
    """Some of the pairs found.

    Attributes:
        i, j: (M,) int64 row numbers, ``i < j``.
        cosine: (M,) float64 scores; exact to about ``D * 6e-8``.
        group: number of the group they were found in; 0 without groups.
    """

    i: np.ndarray
    j: np.ndarray
    cosine: np.ndarray
    group: int = 0

    def __len__(self) -> int:
        return len(self.i)


def pairs_above(
    vectors: np.ndarray,
    threshold: float,
    *,
    upper: float | None = None,
    groups: Iterable[Sequence[int] | np.ndarray] | None = None,
    engine: Engine = "numpy",
    block: int = BLOCK,
    at_most: int | None = None,
) -> Iterator[PairBlock]:
    """Pairs with ``threshold <= cosine`` (and ``cosine <= upper``), in blocks; their order is fixed.

    Args:
        vectors: (N, D) float32 rows of length 1.
        groups: row numbers that are compared with each other; a row may be in several groups. None compares all.
        engine: ``numpy`` and ``faiss`` are exact; ``faiss-hnsw`` and ``faiss-ivf`` miss pairs, but report no wrong one.
        block: rows of a block; memory beside the vectors is a few times ``block ** 2 * 4`` bytes.
        at_most: stop with an error when more pairs are found; None sets no bound.

    Raises:
        ImagePairError: vectors of another form, a bad threshold, more than ``at_most`` pairs, or faiss is missing.
    """
    check_rows(vectors)
    if not math.isfinite(threshold) or (upper is not None and not upper >= threshold):
        raise ImagePairError(
            f"The band of cosines is {threshold} to {upper}. Fix: give finite bounds, the lower one first."
        )
    if engine not in ENGINES:
        raise ImagePairError(f"The search engine is {engine!r}. Fix: one of {', '.join(ENGINES)}.")
    if block < 1:
        raise ImagePairError(f"The search block is {block} rows. Fix: at least 1.")
    found = 0
    for number, rows in enumerate([None] if groups is None else groups):
        for i, j, cosine in _search(vectors, rows, _Band(threshold, upper), engine, block):
            found += len(i)
            if at_most is not None and found > at_most:
                raise ImagePairError(
                    f"The search finds more than {at_most:,} pairs with a cosine of at least {threshold}; it stops "
                    "instead of leaving some out. Fix: raise the threshold, or the bound on the number of pairs."
                )
            if len(i):
                yield PairBlock(i, j, cosine, number)


def check_rows(vectors: np.ndarray) -> None:
    """Raises ImagePairError unless the array is (N, D) float32 with finite rows of length 1."""
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.shape[1]:
        what = (
            f"{vectors.dtype} of shape {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        )
        raise ImagePairError(f"Vectors to search are {what}. Fix: a float32 array of shape (rows, dimensions).")
    for start in range(0, len(vectors), BLOCK):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors[start : start + BLOCK], vectors[start : start + BLOCK]))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_SLACK))
        if len(wrong):
            raise ImagePairError(
                f"Row {start + wrong[0]} of the vectors to search has length {lengths[wrong[0]]:.6g}, not 1, so its "
                "products are not cosines. Fix: divide every row by its length; leave out rows of zeros."
            )


@dataclass(frozen=True)
class _Band:
    low: float
    high: float | None

    def holds(self, scores: np.ndarray) -> np.ndarray:
        inside = scores >= self.low
        return inside if self.high is None else inside & (scores <= self.high)

    def near(self, scores: np.ndarray, margin: float) -> np.ndarray:
        near = np.abs(scores - self.low) <= margin
        return near if self.high is None else near | (np.abs(scores - self.high) <= margin)


Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def _search(
    vectors: np.ndarray, rows: Sequence[int] | np.ndarray | None, band: _Band, engine: Engine, block: int
) -> Iterator[Found]:
    if rows is None:
        part, names = vectors, None
    else:
        names = np.unique(np.asarray(rows, dtype=np.int64))
        if len(names) < 2:
            return
        part = vectors[names]
    if engine == "numpy":
        found = _by_blocks(part, band, block)
    else:
        from data_prep.images.search_faiss import candidates

        margin = _margin(part.shape[1], 2.0**-24)
        found = (
            _decided(part, i, j, scores, band) for i, j, scores in candidates(part, band.low - margin, engine, block)
        )
    for i, j, cosine in found:
        yield (i, j, cosine) if names is None else (names[i], names[j], cosine)


def _margin(dimensions: int, unit: float) -> float:
    """The most by which a product of two rows of length 1 can be off, whatever the order of its additions."""
    return (dimensions + 8) * unit * (1 + 4 * _LENGTH_SLACK)


def _by_blocks(vectors: np.ndarray, band: _Band, block: int) -> Iterator[Found]:
    count, dimensions = vectors.shape
    margin = _margin(dimensions, 2.0**-24)
    heads = heads_for(vectors, band.low, alone=_ALONE)
    factors = vectors if heads is None else heads
    limit = np.float32(band.low - _margin(factors.shape[1], 2.0**-24) - 2.0**-22)
    size = min(block, count)
    held = np.empty(size * size, dtype=np.float32)

    def product(rows: np.ndarray, start: int, other: int) -> np.ndarray:
        left, right = rows[start : start + block], rows[other : other + block]
        shape = (len(left), len(right))
        return np.matmul(left, right.T, out=held[: shape[0] * shape[1]].reshape(shape))

    for start in range(0, count, block):
        for other in range(start, count, block):
            scores = product(factors, start, other)
            at = np.flatnonzero(scores >= limit)
            if not len(at):
                continue
            whole = heads is None
            if heads is not None and len(at) * _ALONE > scores.size:
                scores, whole = product(vectors, start, other), True
                at = np.flatnonzero(scores >= np.float32(band.low - margin))
            i, j = np.divmod(at, scores.shape[1])
            values = scores.ravel()[at].astype(np.float64) if whole else None
            i, j = i + start, j + other
            if start == other:
                upper = i < j
                i, j, values = i[upper], j[upper], None if values is None else values[upper]
            yield _decided(vectors, i, j, values, band)


def _decided(vectors: np.ndarray, i: np.ndarray, j: np.ndarray, scores: np.ndarray | None, band: _Band) -> Found:
    """Those of the candidates whose true score is in the band; without scores all are computed in float64."""
    if scores is None:
        scores = _float64(vectors, i, j)
    else:
        near = np.flatnonzero(band.near(scores, _margin(vectors.shape[1], 2.0**-24)))
        scores[near] = _float64(vectors, i[near], j[near])
    for at in np.flatnonzero(band.near(scores, _margin(vectors.shape[1], 2.0**-53))):
        # Products of two float32 numbers are exact in float64, and fsum rounds their sum once.
        scores[at] = math.fsum(vectors[i[at]].astype(np.float64) * vectors[j[at]].astype(np.float64))
    kept = band.holds(scores)
    return i[kept], j[kept], scores[kept]


def _float64(vectors: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    scores = np.empty(len(i))
    step = max(1, _GATHERED_FLOATS // vectors.shape[1])
    for start in range(0, len(i), step):
        at = slice(start, start + step)
        scores[at] = np.einsum("ij,ij->i", vectors[i[at]], vectors[j[at]], dtype=np.float64)
    return scores
