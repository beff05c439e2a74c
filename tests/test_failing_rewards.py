"""A source whose first responses all fail ends the job; one response that is scored is enough not to."""

from __future__ import annotations

import pytest

from contextrl_verl.grpo.failing_rewards import FailingRewards

FAILED = ("mine", {"reward_error": "NameError: name 'x' is not defined"})
SCORED = ("mine", {"reward_error": ""})


def test_eight_failures_over_several_batches_end_it_and_name_source_and_error():
    rewards = FailingRewards()
    rewards.look([FAILED] * 5)
    rewards.look([("other", {"reward_error": ""}), ("contextrl/selection", {"acc": 0.0})])
    with pytest.raises(RuntimeError, match=r"first 8 responses of the data source 'mine', with NameError: name 'x'"):
        rewards.look([FAILED] * 3)


@pytest.mark.parametrize("at", [0, 4, 19])
def test_a_source_that_was_ever_scored_may_fail(at):
    rewards = FailingRewards()
    rewards.look([FAILED] * at + [SCORED] + [FAILED] * (19 - at))
    rewards.look([FAILED] * 20)


def test_rewards_that_do_not_tell_are_not_judged():
    FailingRewards().look([("mine", {}), ("mine", {"acc": 0.0})] * 20)
