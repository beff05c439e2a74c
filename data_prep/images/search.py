"""Every pair of rows whose cosine reaches a threshold, found by faiss; memory is bounded whatever there is to find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

# faiss is exact; the other two are quicker among hundreds of thousands of rows and may miss some pairs.
Engine = Literal["faiss", "faiss-hnsw", "faiss-ivf"]
_BLOCK = 2048
# Scores of a block at most, 12 bytes each.
_SCORES = 1 << 24
# Inverted lists: about so many rows in each, and one in so many of them is looked into.
_ROWS_PER_LIST, _SHARE_OF_LISTS = 200, 8


def pairs_above(
    vectors: np.ndarray, threshold: float, *, engine: Engine = "faiss", block: int = _BLOCK
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs with ``cosine >= threshold`` in float32, block by block in a fixed order.

    Args:
        vectors: (N, D) float32 rows of length 1.
        block: rows of a block at most.

    Yields:
        (M,) int64 row numbers ``i < j``, and (M,) float64 copies of their cosines.
    """
    import faiss

    count = len(vectors)
    if count < 2:
        return
    vectors = np.ascontiguousarray(vectors, np.float32)
    index = _index(vectors, engine)
    # faiss leaves out what equals the bound.
    bound = float(np.nextafter(np.float32(threshold), np.float32(-2)))
    block = max(1, min(block, _SCORES // count))
    threads = faiss.omp_get_max_threads()
    for start in range(0, count, block):
        rows = vectors[start : start + block]
        # A graph depends on the order in which threads add to it; one thread builds the same one every time.
        faiss.omp_set_num_threads(1 if engine == "faiss-hnsw" else threads)
        # Rows meet only those before them, so each pair is scored once.
        index.add(rows)
        faiss.omp_set_num_threads(threads)
        ends, cosine, i = index.range_search(rows, bound)
        j = np.repeat(np.arange(start, start + len(rows)), np.diff(ends).astype(np.int64))
        before = np.flatnonzero(i < j)
        # In order and once: faiss hands them over as its threads come to them, a graph some of them twice.
        kept = before[np.unique(i[before] * count + j[before], return_index=True)[1]]
        yield i[kept], j[kept], cosine[kept].astype(np.float64)


def _index(vectors: np.ndarray, engine: Engine) -> Any:
    import faiss

    lists = max(1, len(vectors) // _ROWS_PER_LIST)
    form = {"faiss": "Flat", "faiss-hnsw": "HNSW32", "faiss-ivf": f"IVF{lists},Flat"}[engine]
    index = faiss.index_factory(vectors.shape[1], form, faiss.METRIC_INNER_PRODUCT)
    if engine == "faiss-hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 256
    elif engine == "faiss-ivf":
        index.nprobe = max(1, lists // _SHARE_OF_LISTS)
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
    return index
