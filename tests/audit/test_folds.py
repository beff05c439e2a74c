"""Folds: couples whole, no run on both sides; and what wrong folds would claim."""

import numpy as np
import pytest
from audit.planted import couples
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")

from data_prep.audit.features import GROUPS
from data_prep.audit.links import Grouping, Link
from data_prep.audit.models import Features, Layout, cross_validated
from data_prep.audit.table import features_of, read_table


@st.composite
def linked(draw):
    """Couples between a few runs, one or two pairs each: chains, stars and islands."""
    runs = draw(st.integers(2, 40))
    found = []
    for couple in range(draw(st.integers(1, 60))):
        one, other = draw(st.integers(0, runs)), draw(st.integers(0, runs))
        names = (f"run{one}", f"run{other}b")
        link = Link(f"couple{couple}", frozenset({f"couple{couple}", *names}), names, names)
        found += [link] * draw(st.integers(1, 2))
    return found


@settings(max_examples=60, deadline=None)
@given(links=linked(), folds=st.integers(2, 6), seed=st.integers(0, 99), couples_only=st.booleans())
def test_nothing_is_on_both_sides(links, folds, seed, couples_only):
    grouping = Grouping(links)
    tested = np.zeros(len(links), int)
    for train, test in grouping.splits(folds, np.random.default_rng(seed), couples_only):
        tested += test
        assert not (train & test).any()
        held = {links[pair].couple for pair in np.flatnonzero(test)}
        assert held.isdisjoint(links[pair].couple for pair in np.flatnonzero(train))
        if not couples_only:
            runs = {name for pair in np.flatnonzero(test) for name in links[pair].names}
            assert runs.isdisjoint(name for pair in np.flatnonzero(train) for name in links[pair].names)
    assert (tested == 1).all(), "every pair is held out once"


def test_small_components_stay_in_one_fold():
    links = [
        Link(f"c{n}", frozenset({f"c{n}", f"r{n // 3}"}), (f"r{n // 3}", f"o{n}"), (f"d{n}", f"e{n}"))
        for n in range(60)
    ]
    folds = [test for _, test in Grouping(links).splits(5, np.random.default_rng(0))]
    assert [test.sum() for test in folds] == [12] * 5
    for test in folds:
        assert set(test.reshape(20, 3).sum(1)) == {0, 3}


def test_a_name_that_all_pairs_have_links_none():
    links = [Link(f"c{n}", frozenset({f"c{n}", "easy_vqa"}), (f"a{n}", f"b{n}"), (f"a{n}", f"b{n}")) for n in range(40)]
    assert Grouping(links).component.max() == 39


def test_wrong_folds_would_see_a_shortcut_where_ours_do_not():
    """Ten runs are wrong in every couple. Random folds learn their words; with runs apart there is nothing to learn."""

    def hub(rng, couple):
        return [f"run-{couple}", f"famous-{couple % 10}"]

    famous = [pair.confounders[0] for pair in couples(10, 1, directions=False)]
    pairs = [
        pair.model_copy(update={"confounders": [famous[n % 10]]})
        for n, pair in enumerate(couples(150, 2, directions=False, runs=hub))
    ]
    groups = [GROUPS["context alone"]]
    rows = read_table(pairs, groups, seed=0, most=1000, evidence=False)[0]
    layout = Layout([len(row.link.names) for row in rows])
    features = features_of(rows, 0, wide=True)
    grouping = Grouping([row.link for row in rows])
    rng = np.random.default_rng(0)

    def accuracy(folds):
        return float(np.nanmean(cross_validated("linear", features, layout, folds, 0)))

    naive = rng.permutation(np.arange(150) % 5)
    assert accuracy([(naive != fold, naive == fold) for fold in range(5)]) > 0.9
    assert accuracy(list(grouping.splits(5, rng))) < 0.65


def test_a_fold_that_cannot_be_trained_is_left_out():
    layout = Layout(np.full(20, 2))
    numbers = np.random.default_rng(0).normal(size=(40, 2))
    features = Features(numbers, np.zeros((40, 0)), np.zeros((20, 0)))
    few = np.arange(20) < 3
    assert np.isnan(cross_validated("linear", features, layout, [(few, ~few)], 0)).all()
