"""What the warm-up trains on: replies and nothing else, right pointers, selection never unless a habit is named."""

import random

import pytest

from bench.replication.base_model import (
    POINTING,
    SELECTING,
    _encoded,
    examples_of,
    pointing_example,
    selection_prompt,
    shares,
)
from bench.replication.material import TASKS, pairs
from bench.replication.plan import read_plan, with_first_habit
from contextrl_verl.demo.tiny_model import make_tokenizer

PLAN = read_plan("quick")


def test_only_replies_and_their_ends_are_trained():
    tokenizer = make_tokenizer()
    ((ids, where),) = _encoded(tokenizer, [[("what is port?", "3"), ("which? 1 or 2", "1")]])
    assert tokenizer.decode([ids[at + 1] for at in where]) == "3<|im_end|>1<|im_end|>"


def test_the_number_is_that_of_the_supporting_context():
    rng = random.Random(0)
    for pair in pairs(40, 1, "train"):
        ((prompt, number),) = pointing_example(pair, rng)
        order = [0, 1] if number == "1" else [1, 0]
        assert prompt == selection_prompt(pair, order).replace("which? A or B", "which? 1 or 2")


@pytest.mark.parametrize(("habit", "first"), [(None, None), (0.0, 0), (1.0, 1)])
def test_selection_is_shown_only_with_a_habit(habit, first):
    base = PLAN.base if habit is None else with_first_habit(PLAN, habit).base
    examples = examples_of(base, 1)
    assert (SELECTING in examples) is (SELECTING in shares(base, {})) is (habit is not None)
    assert set(shares(base, {})) == set(examples)
    if habit is None:
        prompts = [prompt for turns in examples.values() for one in turns for prompt, _ in one]
        assert not [prompt for prompt in prompts if "A or B" in prompt]
    else:
        assert {turns[0][1] for turns in examples[SELECTING]} == {"A" if first else "B"}


def test_a_task_at_its_mark_rests_and_comes_back():
    weak = dict.fromkeys((*TASKS, POINTING), 0.0)
    strong = shares(PLAN.base, weak | {"needle": PLAN.base.rest_at})
    assert strong["needle"] < shares(PLAN.base, weak)["needle"]
    assert strong["reading"] == shares(PLAN.base, weak)["reading"]
