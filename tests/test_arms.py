"""The same items, rollouts and updates a step in every arm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextrl_verl.arms import ARMS, StepSize, arm_keys, pairs_of
from contextrl_verl.errors import ConfigError

MINI = "actor_rollout_ref.actor.ppo_mini_batch_size"
SIZES = st.tuples(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(1, 16), st.integers(1, 4))


@given(SIZES, st.sampled_from(sorted(ARMS)))
def test_a_step_has_the_updates_asked_for(size, arm):
    items, ratio, rollouts, updates = size
    pairs = min(pairs_of(items, ratio), items - 1)
    keys = arm_keys(arm, StepSize(items, pairs, rollouts, updates))
    assert keys["data.train_batch_size"] == items
    assert keys["contextrl.pairs.per_batch"] == (pairs if arm in ("contextrl", "da_rl", "da_qca") else 0)
    rows = items * rollouts if arm != "contextrl" else (items - pairs) * rollouts + pairs
    # verl takes mini-batches of MINI prompts of n rows each, and fills the last one up.
    mini_rows = keys[MINI] * rollouts
    assert -(-rows // mini_rows) <= updates
    # One prompt less would be an update too many.
    assert keys[MINI] == 1 or -(-rows // ((keys[MINI] - 1) * rollouts)) > updates


def test_pairs_that_are_a_multiple_of_n_leave_nothing_to_fill_up():
    keys = arm_keys("contextrl", StepSize(items=144, pairs=16, rollouts=8, updates=2))
    assert keys[MINI] * 8 * 2 == 128 * 8 + 16


def test_the_paper_s_ratio():
    assert pairs_of(256, 0.15) == 38
    assert pairs_of(16, 0.125) == 2
    assert pairs_of(4, 0.01) == 1


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_a_ratio_outside_is_refused(ratio):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        pairs_of(16, ratio)


@pytest.mark.parametrize("size", [(8, 0, 2, 1), (8, 8, 2, 1), (8, 2, 0, 1), (8, 2, 2, 0)])
def test_impossible_steps_are_refused(size):
    with pytest.raises(ConfigError, match="Fix: "):
        StepSize(*size)


def test_an_unknown_arm_is_named():
    with pytest.raises(ConfigError, match=r"ARM is 'sft'.*contextrl, grpo, da_rl, da_sft, da_qca"):
        arm_keys("sft", StepSize(8, 2, 2))
