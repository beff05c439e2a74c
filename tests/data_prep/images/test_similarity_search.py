"""The search against brute force: same pairs for any threshold, block size and engine that promises them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.images.retrieve import pairs_above


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(vectors, threshold):
    """The pairs above the threshold, and those so near to it that float32 may see either."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    above = np.triu(cosines >= threshold, 1)
    near = np.triu(np.abs(cosines - threshold) < 1e-6, 1)
    return [set(zip(*map(np.ndarray.tolist, np.nonzero(which)), strict=True)) for which in (above, near)]


def found(vectors, threshold, **options):
    blocks = pairs_above(vectors, threshold, **options)
    return [pair for i, j, _ in blocks for pair in zip(i.tolist(), j.tolist(), strict=True)]


def clustered(seed: int, count: int, dimensions: int) -> np.ndarray:
    """Rows around a few centres, some of them equal."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((max(2, count // 6), dimensions))
    rows = centres[draw.integers(0, len(centres), count)]
    rows = rows + draw.choice([0.0, 0.05, 0.3, 1.0], (count, 1)) * draw.standard_normal((count, dimensions))
    return unit(rows)


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 24), st.integers(1, 24), st.floats(-1, 1), st.sampled_from([1, 3, 7, 64])
)
def test_it_finds_the_pairs_of_brute_force(seed, count, dimensions, threshold, block):
    vectors = clustered(seed, count, dimensions)
    above, near = brute_force(vectors, threshold)
    pairs = found(vectors, threshold, block=block)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) - near == above - near


def test_a_pair_at_the_very_threshold_is_found():
    vectors = np.array([[1, 0], [0.5, 0.75**0.5], [0, 1]], np.float32)
    assert found(vectors, 0.5) == [(0, 1), (1, 2)]
    assert found(vectors, float(np.nextafter(np.float32(0.5), np.float32(1)))) == [(1, 2)]


def test_scores_are_the_cosines_and_come_in_a_fixed_order():
    vectors = clustered(5, 200, 16)
    for one, other in zip(pairs_above(vectors, 0.5, block=32), pairs_above(vectors, 0.5, block=32), strict=True):
        np.testing.assert_array_equal(one, other)
        i, j, cosine = one
        assert (i < j).all()
        true = np.einsum("ij,ij->i", vectors[i], vectors[j], dtype=np.float64)
        np.testing.assert_allclose(cosine, true, atol=1e-6)


def test_memory_is_bounded_however_much_there_is_to_find(monkeypatch):
    monkeypatch.setattr("data_prep.images.retrieve._SCORES", 4_000)
    blocks = list(pairs_above(unit(np.ones((400, 3))), 0.9))
    assert sum(len(i) for i, _, _ in blocks) == 400 * 399 / 2
    assert max(len(i) for i, _, _ in blocks) <= 4_000


@pytest.mark.parametrize("engine", ["faiss-hnsw", "faiss-ivf"])
def test_an_approximate_index_gives_only_true_pairs_and_most_of_them(engine):
    vectors = clustered(8, 1000, 24)
    exact, roughly = set(found(vectors, 0.9)), found(vectors, 0.9, engine=engine)
    assert len(roughly) == len(set(roughly))
    assert set(roughly) <= exact
    assert len(roughly) > 0.5 * len(exact)
    assert found(vectors, 0.9, engine=engine) == roughly
