"""Tokens of a step, each figure worked out by hand."""

import pytest

from bench.overhead.accounting import EASYR1, SCORED, SKYRL, Passes, Tokens, carrier, filler, filler_rows, ordinary
from bench.overhead.released import agent_seconds, agent_shares, break_even_length, lines
from contextrl_verl.grpo.option_rows import KEPT


def test_an_ordinary_row_is_sampled_and_passes_three_forwards_and_one_backward():
    # 2 rows * 8 samples * (100 + 50) tokens = 2400 a pass; old log-prob, reference, update.
    tokens = ordinary(2, 8, 100, 50)
    assert tokens == Tokens(sampled=800, forward=7200, backward=2400)
    assert tokens.work == 7200 + 2 * 2400


def test_a_pair_is_one_row_with_one_label_and_nothing_is_sampled():
    # The update reads all of it; old log-prob and reference read its last two tokens.
    assert carrier(3, 255) == Tokens(sampled=0, forward=3 * (256 + 2 + 2), backward=3 * 256)
    assert SCORED == KEPT


def test_without_reference_and_scoring_a_row_passes_the_update_alone():
    assert carrier(1, 99, Passes(old_log_prob=False, reference=False, epochs=2)) == Tokens(0, 200, 200)
    assert carrier(1, 99, Passes(reference=False)) == Tokens(0, 102, 100)


@pytest.mark.parametrize(("rows", "mini_batch", "added"), [(136, 136, 0), (139, 144, 5), (368, 368, 0), (139, 72, 5)])
def test_filler_brings_the_rows_to_a_multiple_of_the_mini_batch(rows, mini_batch, added):
    assert filler_rows(rows, mini_batch) == added
    assert filler(rows, mini_batch).backward == added * 128


def test_tokens_add_up():
    assert Tokens(1, 2, 3) + Tokens(10, 20, 30) == Tokens(11, 22, 33)


def test_easyr1_runs_each_of_its_32_pairs_16_times_padded_to_16384():
    assert (EASYR1.drawn, EASYR1.uses, EASYR1.runs) == (32, 4, 32 * 4 * 4)
    tokens = EASYR1.tokens()
    assert tokens.forward == tokens.backward == 8_388_608
    assert tokens.forward // 4 == 2_097_152  # a GPU: the 2.1 million positions of paper.md 3.2
    assert tokens.sampled == 0


def test_skyrl_runs_16_fresh_pairs_once_each():
    assert (SKYRL.drawn, SKYRL.uses, SKYRL.runs) == (16, 1, 16)
    assert SKYRL.tokens() == Tokens(0, 524_288, 524_288)


def test_released_lines_stand_next_to_carrier_rows():
    easyr1, same, as_many, skyrl, ours = lines()
    assert (easyr1.forward_per_pair, easyr1.backward_per_pair) == (262_144, 262_144)
    assert (same.pairs, same.forward_per_pair, same.backward_per_pair) == (32, 16_389, 16_385)
    assert as_many.pairs == 128
    assert as_many.tokens.work == 128 * (3 * 16_385 + 4)
    assert skyrl.forward_per_pair == 32_768
    # As much as SkyRL's, whose pairs are not scored either: 7 positions more in 98,304.
    assert ours.tokens.work / skyrl.tokens.work == pytest.approx(1 + 7 / 98_304)


def test_image_pairs_of_the_released_code_cost_as_much_as_all_rows_of_2458_tokens():
    # 3 * 8,388,608 / (2048 sequences * 5)
    assert break_even_length() == pytest.approx(2457.6)


def test_agent_pairs_against_the_logged_step():
    shares, seconds = agent_shares(), agent_seconds()
    rows = 128 * 30_910
    assert shares["released"] == pytest.approx(16 * 32_768 * 3 / (rows * 5))
    assert shares["carrier"] == pytest.approx(16 * (3 * 32_769 + 4) / (rows * 5))
    assert seconds["released"] == pytest.approx(304 * 524_288 / (524_288 + rows))
    assert seconds["carrier"] == pytest.approx(seconds["released"], rel=1e-4)
