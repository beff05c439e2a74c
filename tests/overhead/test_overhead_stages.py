"""Medians, ratios and intervals of step times."""

import numpy as np
import pytest

from bench.overhead.stages import STAGES, median_ratio, seconds


def step(**times):
    return {f"timing_s/{stage}": times.get(stage, 0.0) for stage in (*STAGES, "step")}


def test_the_first_step_is_left_out_and_the_rest_is_what_no_timer_covers():
    table = seconds(
        [
            step(step=99.0),
            step(step=10.0, gen=4.0, old_log_prob=1.0, ref=1.0, adv=0.5, update_actor=2.0, update_weights=1.0),
        ]
    )
    assert table["step"] == [10.0]
    assert table["training"] == [4.5]
    assert table["other"] == pytest.approx([0.5])


def test_the_ratio_is_that_of_the_medians_with_its_interval_around_it():
    ratio = median_ratio([10.0, 10.0, 10.0, 50.0], [11.0, 11.0, 11.0, 11.0])
    assert ratio.value == pytest.approx(1.1)
    assert ratio.low <= 1.1 <= ratio.high


def test_a_machine_slow_for_both_jobs_of_a_round_does_not_widen_the_interval():
    machine = np.random.default_rng(0).uniform(1, 3, 15)
    together = median_ratio(machine, 1.05 * machine)
    apart = median_ratio(machine, 1.05 * np.roll(machine, 7))
    assert together.high - together.low < 1e-9
    assert apart.high - apart.low > 0.2


def test_the_interval_is_the_same_for_the_same_seed_and_covers_the_noise():
    noise = np.random.default_rng(1).normal(1.0, 0.05, 40)
    first, second = median_ratio(np.ones(40), 1.05 * noise), median_ratio(np.ones(40), 1.05 * noise)
    assert first == second
    assert first.low < 1.05 < first.high
    assert first.high - first.low < 0.1


@pytest.mark.parametrize(("plain", "paired"), [([1.0], [1.0, 2.0]), ([], [])])
def test_rounds_have_a_step_of_each_job(plain, paired):
    with pytest.raises(ValueError, match="a round has one of each"):
        median_ratio(plain, paired)
