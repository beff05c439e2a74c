"""Exact pairs in every batch, each source passed through once an epoch, a function of the seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_plan import BatchPlan


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_every_batch_holds_exactly_its_pairs(data):
    batch = data.draw(st.integers(2, 24))
    pairs_per_batch = data.draw(st.integers(1, batch - 1))
    rows = data.draw(st.integers(batch, 60))
    pairs = data.draw(st.integers(pairs_per_batch, 60))
    epochs = data.draw(st.integers(1, 3))
    counts = {"rl_rows": rows, "pairs": pairs, "batch_size": batch, "pairs_per_batch": pairs_per_batch}
    plan = BatchPlan(**counts, epochs=epochs, seed=data.draw(st.integers(0, 9)))
    slots = [plan[i] for i in range(len(plan))]
    for start in range(0, len(plan), batch):
        kinds = Counter(slot.kind for slot in slots[start : start + batch])
        assert kinds["pair"] == pairs_per_batch
    for kind, size in (("rl", rows), ("pair", pairs)):
        of_kind = [slot for slot in slots if slot.kind == kind]
        assert [slot.epoch for slot in of_kind] == [i // size for i in range(len(of_kind))]
        for epoch in range(len(of_kind) // size):
            assert {slot.index for slot in of_kind[epoch * size : (epoch + 1) * size]} == set(range(size))
    assert plan.steps * plan.rl_per_batch + plan.unused_rl_rows == rows * epochs


def test_the_order_is_a_function_of_the_seed():
    def order(seed):
        plan = BatchPlan(rl_rows=50, pairs=30, batch_size=10, pairs_per_batch=4, steps=20, seed=seed)
        return [plan[i] for i in range(len(plan))]

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_both_orders_stand_in_one_batch():
    plan = BatchPlan(rl_rows=50, pairs=9, batch_size=10, pairs_per_batch=6, rotations=2, steps=3)
    for start in range(0, len(plan), 10):
        slots = [plan[i] for i in range(start, start + 10) if plan[i].kind == "pair"]
        assert Counter(slot.index for slot in slots) == dict.fromkeys({s.index for s in slots}, 2)
        assert Counter(slot.rotation for slot in slots) == {0: 3, 1: 3}


@pytest.mark.parametrize(
    ("numbers", "key"),
    [
        ({"pairs": 0}, "zero usable pairs"),
        ({"pairs": 3}, "contextrl.pairs.per_batch"),
        ({"pairs_per_batch": 10}, "data.train_batch_size"),
        ({"rl_rows": 5}, "data.train_files"),
        ({"pairs_per_batch": 3, "rotations": 2}, "multiple of 2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(numbers, key):
    values = {"rl_rows": 50, "pairs": 20, "batch_size": 10, "pairs_per_batch": 4, **numbers}
    with pytest.raises(ConfigError, match=key):
        BatchPlan(**values)
