"""What the warm-up trains on: right pointers, selection never unless a habit is named, resting tasks."""

import random

import pytest

from bench.replication.base_model import POINTING, READING_BOTH, REST_AT, SELECTING, examples_of, pair_example, shares
from bench.replication.material import TASKS
from bench.replication.plan import read_plan
from contextrl_verl.demo.evidence_pairs import evidence_pairs
from contextrl_verl.demo.tiny_model import selection_prompt

BASE = read_plan("quick").base


def test_the_number_is_that_of_the_supporting_context_and_digits_are_read_in_order():
    rng = random.Random(0)
    for pair in evidence_pairs(40, 1):
        ((prompt, number),) = pair_example(POINTING, pair, rng)
        order = [0, 1] if number == "1" else [1, 0]
        assert prompt == selection_prompt(pair, order).replace("which? A or B", "which? 1 or 2")
        ((prompt, digits),) = pair_example(READING_BOTH, pair, rng)
        assert prompt.endswith("what do they say?")
        assert digits.split() == [text.split()[0] for text in prompt.split("\n")[2:-1:2]]


@pytest.mark.parametrize(("habit", "label"), [(None, None), (0.0, "B"), (1.0, "A")])
def test_selection_is_shown_only_with_a_habit(habit, label):
    base = read_plan("quick", first_habit=habit).base
    examples = examples_of(base, 1, 50)
    assert (SELECTING in examples) is (habit is not None)
    assert set(shares(base, {})) == set(examples) >= {*TASKS, POINTING, READING_BOTH}
    asked = {reply for turns in examples.values() for one in turns for prompt, reply in one if "A or B" in prompt}
    assert asked == ({label} if label else set())


def test_a_task_at_its_mark_rests_and_comes_back():
    weak = dict.fromkeys((*TASKS, POINTING), 0.0)
    strong = shares(BASE, weak | {"needle": REST_AT})
    assert strong["needle"] < shares(BASE, weak)["needle"]
    assert strong["reading"] == shares(BASE, weak)["reading"]
