"""The blocked search against brute force: same pairs for any threshold, block size, grouping and engine."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.images import search, search_bound
from data_prep.images.errors import ImagePairError
from data_prep.images.search import pairs_above
from data_prep.images.search_bound import heads_for


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def true_cosine(vectors: np.ndarray, i: int, j: int) -> float:
    """The product of two float32 rows, rounded once."""
    return math.fsum(float(a) * float(b) for a, b in zip(vectors[i], vectors[j], strict=True))


def brute_force(vectors, threshold, upper=math.inf, groups=None):
    rows = [sorted(set(group)) for group in groups] if groups is not None else [range(len(vectors))]
    return [
        (number, i, j)
        for number, group in enumerate(rows)
        for i, j in combinations(group, 2)
        if threshold <= true_cosine(vectors, i, j) <= upper
    ]


def found(*arguments, **options):
    return sorted(
        (block.group, int(i), int(j))
        for block in pairs_above(*arguments, **options)
        for i, j in zip(block.i, block.j, strict=True)
    )


def clustered(seed: int, count: int, dimensions: int) -> np.ndarray:
    """Rows around a few centres, some of them equal."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((max(2, count // 6), dimensions))
    rows = centres[draw.integers(0, len(centres), count)]
    rows = rows + draw.choice([0.0, 0.05, 0.3, 1.0], (count, 1)) * draw.standard_normal((count, dimensions))
    return unit(rows)


@given(st.data())
def test_it_finds_the_pairs_of_brute_force_at_the_very_threshold(data):
    count, dimensions = data.draw(st.integers(2, 24)), data.draw(st.integers(1, 24))
    vectors = clustered(data.draw(st.integers(0, 2**32 - 1)), count, dimensions)
    # A threshold that is a pair's own cosine, or the next number above or below it.
    i, j = data.draw(st.sampled_from(list(combinations(range(count), 2))))
    threshold = true_cosine(vectors, i, j)
    way = data.draw(st.sampled_from([None, -math.inf, math.inf]))
    threshold = threshold if way is None else math.nextafter(threshold, way)
    upper = data.draw(st.none() | st.sampled_from([threshold, threshold + 0.05, 1.0 + 1e-6]))
    upper = None if upper is None or upper < threshold else upper
    groups = data.draw(st.none() | st.lists(st.lists(st.integers(0, count - 1)), max_size=4))
    block = data.draw(st.sampled_from([1, 3, 7, 64]))
    expected = brute_force(vectors, threshold, math.inf if upper is None else upper, groups)
    assert found(vectors, threshold, upper=upper, groups=groups, block=block) == expected


@pytest.fixture
def always_bounded(monkeypatch):
    """Short rows also for few and small vectors, and an engine that has to use them."""
    monkeypatch.setattr(search_bound, "_FEWEST_ROWS", 50)
    monkeypatch.setattr(search_bound, "_FEWEST_DIMENSIONS", 8)
    monkeypatch.setattr(search_bound, "_FITTED", 30)
    monkeypatch.setattr(search_bound, "_TRIED", 20)
    monkeypatch.setattr(search_bound, "_HEADS", (2, 4, 6))
    monkeypatch.setattr(search_bound, "_PASS", 0)


@pytest.mark.parametrize("seed", range(4))
def test_short_rows_lose_no_pair_and_give_no_wrong_one(always_bounded, monkeypatch, seed):
    # Axes as in real vectors: a common part and a falling spectrum.
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((120, 32)) * np.arange(1, 33.0) ** -1.5
    rows[:, 0] += 1
    rows[60:90] = rows[:30] + 0.02 * draw.standard_normal((30, 32))
    vectors = unit(rows)
    for threshold in (0.85, 0.97, true_cosine(vectors, 0, 60), true_cosine(vectors, 7, 67)):
        heads = heads_for(vectors, threshold, alone=0.01)
        assert heads is not None
        assert heads.shape[1] in (3, 5, 7)
        bound = heads.astype(np.float64) @ heads.astype(np.float64).T
        assert (bound + 1e-6 >= vectors.astype(np.float64) @ vectors.astype(np.float64).T).all()
        expected = brute_force(vectors, threshold)
        assert expected
        for alone in (1e-9, 2, 1e9):
            # Every candidate by itself, as it comes, and whole blocks only.
            monkeypatch.setattr(search, "_ALONE", alone)
            monkeypatch.setattr(search, "heads_for", lambda *_, alone, known=heads: known)
            assert found(vectors, threshold, block=32) == expected


def test_many_rows_of_many_dimensions_go_through_short_rows(monkeypatch):
    monkeypatch.setattr(search_bound, "_FEWEST_ROWS", 6_200)
    draw = np.random.default_rng(3)
    vectors = draw.standard_normal((6_300, 128), dtype=np.float32)
    pairs = draw.choice(len(vectors), (200, 2), replace=False)
    vectors[pairs[:, 1]] = vectors[pairs[:, 0]] + 0.5 * draw.standard_normal((200, 128), dtype=np.float32)
    vectors = unit(vectors)
    assert heads_for(vectors, 0.85, alone=search._ALONE) is not None
    scores = np.triu(vectors @ vectors.T, 1)
    assert np.abs(scores[scores > 0.5] - 0.85).min() > 1e-5
    assert found(vectors, 0.85) == [(0, int(i), int(j)) for i, j in zip(*np.nonzero(scores >= 0.85), strict=True)]


def test_scores_are_the_cosines_and_come_in_a_fixed_order():
    vectors = clustered(5, 200, 16)
    blocks = list(pairs_above(vectors, 0.5, block=32))
    again = list(pairs_above(vectors, 0.5, block=32))
    for one, other in zip(blocks, again, strict=True):
        assert (one.i < one.j).all()
        assert one.i.dtype == np.int64
        np.testing.assert_array_equal(one.cosine, other.cosine)
        np.testing.assert_array_equal(one.i, other.i)
        for i, j, cosine in zip(one.i, one.j, one.cosine, strict=True):
            assert abs(cosine - true_cosine(vectors, i, j)) < 1e-6


def test_rows_of_a_group_may_come_twice_in_any_order_and_in_other_groups():
    vectors = clustered(6, 40, 4)
    groups = [[3, 1, 2, 3, 9], [], [5], np.array([9, 8, 3, 30, 31])]
    assert found(vectors, 0.2, groups=groups) == brute_force(vectors, 0.2, groups=groups)


@pytest.mark.parametrize("block", [16, 4096])
def test_faiss_gives_the_same_pairs(block):
    pytest.importorskip("faiss")
    vectors = clustered(7, 300, 24)
    for threshold in (0.85, true_cosine(vectors, 0, 1), true_cosine(vectors, 10, 250)):
        expected = found(vectors, threshold, upper=0.999)
        assert found(vectors, threshold, upper=0.999, engine="faiss", block=block) == expected
    groups = [range(0, 300, 2), range(10)]
    assert found(vectors, 0.85, groups=groups, engine="faiss") == found(vectors, 0.85, groups=groups)


@pytest.mark.parametrize("engine", ["faiss-hnsw", "faiss-ivf"])
def test_an_approximate_index_gives_only_true_pairs_and_most_of_them(engine):
    pytest.importorskip("faiss")
    vectors = clustered(8, 2000, 24)
    exact, roughly = set(found(vectors, 0.9)), found(vectors, 0.9, engine=engine)
    assert len(roughly) == len(set(roughly))
    assert set(roughly) <= exact
    assert len(roughly) > 0.5 * len(exact)
    assert found(vectors, 0.9, engine=engine) == roughly


def test_more_pairs_than_allowed_are_an_error_not_a_shorter_list():
    vectors = unit(np.ones((10, 3)))
    assert len(found(vectors, 0.9, at_most=45)) == 45
    with pytest.raises(ImagePairError, match=r"more than 44 pairs .*instead of leaving some out. Fix: raise"):
        found(vectors, 0.9, at_most=44)


BAD = {
    "integers": (np.eye(3, dtype=np.int64), "int64 of shape"),
    "float64": (np.eye(3), "float64 of shape"),
    "one row": (np.ones(3, np.float32), r"shape \(3,\)"),
    "a list": ([[1.0]], "list"),
    "not of length 1": (np.full((3, 2), 0.5, np.float32), r"Row 0 .* length 0\.7071"),
    "zeros": (np.array([[1, 0], [0, 0]], np.float32), "Row 1 .* length 0"),
    "not a number": (np.array([[1, 0], [np.nan, 0]], np.float32), "Row 1 .* length nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_vectors_that_cannot_be_searched_are_named(case):
    vectors, message = BAD[case]
    with pytest.raises(ImagePairError, match=rf"{message}.*Fix:"):
        list(pairs_above(vectors, 0.85))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": math.nan}, "band of cosines is nan"),
        ({"threshold": 0.9, "upper": 0.8}, r"band of cosines is 0\.9 to 0\.8"),
        ({"threshold": 0.9, "engine": "magic"}, "engine is 'magic'"),
        ({"threshold": 0.9, "block": 0}, "block is 0"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(ImagePairError, match=rf"{message}.*Fix:"):
        list(pairs_above(np.eye(3, dtype=np.float32), **options))


def test_without_faiss_its_engine_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImagePairError, match=r"needs faiss, which is not installed. Fix: pip install faiss-cpu"):
        list(pairs_above(np.eye(3, dtype=np.float32), 0.5, engine="faiss"))
    assert list(pairs_above(np.eye(3, dtype=np.float32), 0.5)) == []


def test_no_rows_and_no_groups_give_nothing():
    empty = np.zeros((0, 4), np.float32)
    assert list(pairs_above(empty, 0.5)) == []
    assert list(pairs_above(np.eye(3, dtype=np.float32), 0.5, groups=[])) == []
