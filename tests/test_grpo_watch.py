"""A run whose wrong pairs have no gradient is told of once; one whose rewards all fail is ended."""

from __future__ import annotations

import pytest

from contextrl_verl.grpo.watch import FailingRewards, StuckPairs


def run(watch: StuckPairs, *steps: tuple[float, float], margin: str = "each") -> list[str | None]:
    """Steps as (share of pairs that are wrong, share that are stuck)."""
    told = []
    for wrong, stuck in steps:
        for _ in range(2):  # two micro-batches
            watch.add(8 * stuck, 8 * wrong, 8)
        told.append(watch.end_of_step(margin))
    return told


ONE_PLACE = (0.5, 0.5)  # always the first option: right in half of the orders, stuck in the others


def test_three_steps_in_a_row_are_told_once_with_the_keys_that_help():
    *before, told, after = run(StuckPairs(), *[ONE_PLACE] * 4)
    assert before == [None, None]
    assert after is None
    for key in ("contextrl.loss.margin=averaged", "contextrl.pairs.orders=both", "contextrl.loss.clip_mode=one_sided"):
        assert key in told


def test_an_averaged_margin_is_not_recommended_to_who_has_it():
    told = run(StuckPairs(), *[ONE_PLACE] * 3, margin="averaged")[-1]
    assert "clip_mode=one_sided" in told
    assert "margin=averaged" not in told


@pytest.mark.parametrize("fine", [(0.5, 0.25), (0.1, 0.1), (0.0, 0.0)])
def test_a_step_with_gradients_or_few_wrong_pairs_starts_the_count_again(fine):
    assert run(StuckPairs(), ONE_PLACE, ONE_PLACE, fine, ONE_PLACE, ONE_PLACE) == [None] * 5


def test_a_step_without_pairs_counts_for_nothing():
    watch = StuckPairs()
    assert run(watch, ONE_PLACE, ONE_PLACE) == [None, None]
    assert watch.end_of_step("each") is None
    assert run(watch, ONE_PLACE)[0] is not None


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
