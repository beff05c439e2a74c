"""The numbers of a probe against closed forms, enumeration and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from data_prep.audit.models import Layout
from data_prep.probe.statistics import (
    effective_number,
    interval,
    mcnemar,
    order_free_accuracy,
    paired_difference,
    terciles,
)


def test_independent_questions_count_one_each_and_copies_count_nothing():
    credit = np.asarray([1.0] * 60 + [0.0] * 40)
    alone = np.arange(100)
    # The unbiased variance takes one away.
    assert effective_number(credit, alone, 1000) == pytest.approx(99)
    assert effective_number(np.repeat(credit, 4), np.repeat(alone, 4), 1000) == pytest.approx(99)
    assert effective_number(np.repeat(credit, 4), np.repeat(alone, 4), 50) == 50


def test_orders_that_contradict_each_other_are_not_counted_twice():
    """Always the first option: one of two orders is right, so there is no spread; pairs are the limit."""
    credit, pairs = np.tile([0.0, 1.0], 30), np.repeat(np.arange(30), 2)
    assert effective_number(credit, pairs, 30) == 30
    assert effective_number(np.ones(60), pairs, 60) == 30


def test_the_interval_is_wilsons_where_questions_are_independent():
    credit, alone = np.asarray([1.0] * 700 + [0.0] * 301), np.arange(1001)
    low, high = interval(credit, [alone], 1001)
    scipys = binomtest(700, 1001).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((scipys.low, scipys.high), abs=2e-4)


def test_small_samples_use_students_quantile():
    low, high = interval(np.ones(5), [np.arange(5)], 5)
    quantile = t.ppf(0.975, 4)
    assert high == 1
    assert low == pytest.approx(5 / (5 + quantile**2))
    assert interval(np.ones(5), [np.zeros(5)], 5) == (0, 1)


def test_the_widest_clustering_counts_and_few_coarse_clusters_do_not():
    credit = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 5).astype(float)
    fine, coarse = np.arange(200), np.repeat(np.arange(40), 5)
    low, high = interval(credit, [fine], 200)
    wide_low, wide_high = interval(credit, [fine, coarse], 200)
    assert wide_low < low < high < wide_high
    assert interval(credit, [fine, coarse // 5], 200) == (low, high)


def test_intervals_hold_what_they_promise():
    """Couples of four questions of one skill: a 95 % interval must hold the truth about that often."""
    rng = np.random.default_rng(1)
    held = naive = 0
    for _ in range(400):
        skill = rng.beta(2, 2, 40)
        credit = rng.binomial(1, np.repeat(skill, 4)).astype(float)
        low, high = interval(credit, [np.repeat(np.arange(40), 4)], 160)
        held += low <= 0.5 <= high
        scipys = binomtest(int(credit.sum()), 160).proportion_ci(method="wilson")
        naive += scipys.low <= 0.5 <= scipys.high
    assert 0.93 <= held / 400 <= 0.98
    assert naive / 400 < 0.92


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6)), min_size=1, max_size=40))
def test_an_interval_holds_its_accuracy_and_stays_inside(rows):
    credit, clusters = np.asarray([c for c, _ in rows]), np.asarray([k for _, k in rows])
    low, high = interval(credit, [clusters], len(rows))
    assert 0 <= low <= credit.mean() + 1e-9
    assert credit.mean() - 1e-9 <= high <= 1


@pytest.mark.parametrize("size", range(1, 9))
def test_mcnemar_is_exact(size):
    """Against all equally likely ways in which the differing units could have fallen."""
    for better in range(size + 1):
        extreme = abs(better - size / 2)
        signs = [sum(way) for way in product((0, 1), repeat=size)]
        p = np.mean([abs(way - size / 2) >= extreme for way in signs])
        one = np.asarray([1] * better + [0] * (size - better) + [1, 0, 1])
        other = np.asarray([0] * better + [1] * (size - better) + [1, 0, 1])
        found = mcnemar(one, other)
        assert (found["units"], found["better"], found["worse"]) == (size + 3, better, size - better)
        assert found["p"] == pytest.approx(p)


def test_equal_models_do_not_differ():
    assert mcnemar(np.ones(4), np.ones(4))["p"] == 1
    assert paired_difference(np.ones(4), np.ones(4), np.arange(4)) == (0, 0, 0)


def test_the_difference_of_independent_units_is_a_paired_t_interval():
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 2, 50).astype(float), rng.integers(0, 2, 50).astype(float)
    mean, low, high = paired_difference(one, other, np.arange(50))
    gains = one - other
    assert (low, high) == pytest.approx(t.interval(0.95, 49, gains.mean(), gains.std(ddof=1) / 50**0.5))
    assert mean == pytest.approx(gains.mean())


@given(st.lists(st.one_of(st.none(), st.integers(-50, 50)), min_size=1, max_size=60))
def test_thirds_are_ordered_and_keep_equal_values_together(values):
    names = list(terciles(pd.Series(values, dtype=float)))
    assert all((name == "unknown") == (value is None) for name, value in zip(names, values, strict=True))
    of_value = {}
    for name, value in zip(names, values, strict=True):
        assert of_value.setdefault(value, name) == name
    order = ["low", "middle", "high"]
    known = sorted((value, name) for value, name in of_value.items() if value is not None)
    places = [order.index(name.partition(":")[0]) for _, name in known]
    assert places == sorted(places)


def test_distinct_values_fall_into_three_equal_thirds():
    names = terciles(pd.Series(range(30)))
    assert list(names.value_counts()) == [10, 10, 10]


def test_ties_of_a_baseline_are_shared():
    credit = Layout([2, 2, 3]).credit(np.asarray([2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0]))
    assert credit.tolist() == [1, 0.5, 0]


def test_order_free_accuracy_does_not_see_what_a_place_adds():
    """Contexts are worth 1, 0 and 2 in pair b; every first place adds 9, so each order by itself is wrong somewhere."""
    worth = {"a": [1.0, 0.0], "b": [1.0, 0.0, 2.0], "c": [1.0, 1.0]}
    rows = []
    for name, values in worth.items():
        contexts = list(range(len(values)))
        for turn in contexts:
            order = contexts[turn:] + contexts[:turn]
            scores = [values[context] + 9 * (place == 0) for place, context in enumerate(order)]
            rows.append({"pair_id": name, "order": order, "scores": scores})
    table = pd.DataFrame(rows)
    # a is right, b prefers another context, c is a tie.
    assert order_free_accuracy(table) == pytest.approx(1 / 3)
    table.loc[0, "scores"] = None
    assert order_free_accuracy(table) is None
