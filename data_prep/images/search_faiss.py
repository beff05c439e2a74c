"""faiss as the engine of a search: a flat index, which is exact, or one of two approximate ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_prep.images.errors import ImagePairError

_LINKS, _BUILD, _LOOK = 32, 80, 256
# Inverted lists: about so many rows in each, and one in so many of them is looked into.
_ROWS_PER_LIST, _SHARE_OF_LISTS = 200, 8


def candidates(
    vectors: np.ndarray, above: float, engine: str, block: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Row numbers ``i < j`` and float64 copies of faiss's float32 scores above a bound, a block of queries at a time.

    Args:
        vectors: (N, D) float32 rows.
        engine: ``faiss``, ``faiss-hnsw`` or ``faiss-ivf``.

    Raises:
        ImagePairError: faiss is not installed.
    """
    index = _index(np.ascontiguousarray(vectors), engine)
    for start in range(0, len(vectors), block):
        ends, scores, j = index.range_search(vectors[start : start + block], np.float32(above).item())
        i = np.repeat(np.arange(start, start + len(ends) - 1), np.diff(ends).astype(np.int64))
        # By row and column: faiss hands them over in the order of its threads.
        kept = np.flatnonzero(j > i)
        kept = kept[np.lexsort((j[kept], i[kept]))]
        i, j, scores = i[kept], j[kept], scores[kept].astype(np.float64)
        once = np.ones(len(i), dtype=bool)
        once[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
        yield i[once], j[once], scores[once]


def _index(vectors: np.ndarray, engine: str) -> Any:
    try:
        import faiss
    except ImportError:
        raise ImagePairError(
            f"The search engine {engine!r} needs faiss, which is not installed. Fix: pip install faiss-cpu, or use the "
            "engine numpy, which is exact too."
        ) from None
    count, dimensions = vectors.shape
    if engine == "faiss":
        index = faiss.IndexFlatIP(dimensions)
    elif engine == "faiss-hnsw":
        index = faiss.IndexHNSWFlat(dimensions, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD, _LOOK
    else:
        lists = max(1, count // _ROWS_PER_LIST)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimensions), dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, lists // _SHARE_OF_LISTS)
        index.cp.min_points_per_centroid = 1
    threads = faiss.omp_get_max_threads()
    # The graph depends on the order in which threads add to it; one thread builds the same one every time.
    faiss.omp_set_num_threads(1 if engine == "faiss-hnsw" else threads)
    try:
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
    finally:
        faiss.omp_set_num_threads(threads)
    return index
