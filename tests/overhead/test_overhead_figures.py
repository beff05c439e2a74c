"""Tokens worked out by hand, step times, and the figures and page that follow."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.common import BEGIN, END, Ratio, median_ratio, write_into
from bench.overhead.__main__ import (
    STAGES,
    TOKENS,
    check_tokens,
    markdown,
    released_markdown,
    seconds,
    summarise,
    verdict,
)
from bench.overhead.accounting import AGENT_ROWS, SCORED, Tokens, carrier, filler, filler_rows, ordinary, released
from contextrl_verl.errors import ConfigError, UserError
from contextrl_verl.grpo.option_rows import KEPT

# 136 rows of 256 tokens; three pairs of 256 and five filler rows of 128 on top.
PLAIN_TOKENS, PAIRED_TOKENS = 136 * 256, 136 * 256 + 3 * 256 + 5 * 128


def steps(whole: float, tokens: int) -> list[dict[str, float]]:
    one = {f"timing_s/{stage}": whole / (len(STAGES) + 1) for stage in STAGES}
    return [{**one, "timing_s/step": whole, TOKENS: tokens} for _ in range(5)]


@pytest.fixture
def found():
    measured = [steps(10.0, PLAIN_TOKENS), steps(10.5, PAIRED_TOKENS)]
    return summarise(measured, "python -m bench.overhead", [0.5, 1.5])


def test_an_ordinary_row_is_sampled_and_passes_three_forwards_and_one_backward():
    # 2 rows * 8 samples * (100 + 50) tokens = 2400 a pass; old log-prob, reference, update.
    tokens = ordinary(2, 8, 100, 50)
    assert tokens == Tokens(sampled=800, forward=7200, backward=2400)
    assert tokens.work == 7200 + 2 * 2400


def test_a_pair_is_one_row_with_one_label_and_nothing_is_sampled():
    # The update reads all of it; old log-prob and reference read its last two tokens.
    assert carrier(3, 255) == Tokens(sampled=0, forward=3 * (256 + 2 + 2), backward=3 * 256)
    assert SCORED == KEPT
    assert carrier(1, 99, scoring=0, epochs=2) == Tokens(0, 200, 200)
    assert carrier(1, 99, scoring=1) == Tokens(0, 102, 100)


@pytest.mark.parametrize(("rows", "mini_batch", "added"), [(136, 136, 0), (139, 144, 5), (368, 368, 0), (139, 72, 5)])
def test_filler_brings_the_rows_to_a_multiple_of_the_mini_batch(rows, mini_batch, added):
    assert filler_rows(rows, mini_batch) == added
    assert filler(rows, mini_batch) == Tokens(0, added * 128 * 3, added * 128)


def test_released_schedules_stand_next_to_carrier_rows():
    easyr1, same, as_many, skyrl, ours = released()["lines"]
    # EasyR1 runs each of its 32 pairs 16 times, padded to 16384; a GPU: the 2.1 million positions of paper.md 3.2.
    assert (easyr1["uses"], easyr1["forward_per_pair"], easyr1["backward_per_pair"]) == (4, 262_144, 262_144)
    assert easyr1["work"] == 3 * 4 * 2_097_152
    assert (same["pairs"], same["forward_per_pair"], same["backward_per_pair"]) == (32, 16_389, 16_385)
    assert (as_many["pairs"], as_many["work"]) == (128, 128 * (3 * 16_385 + 4))
    assert (skyrl["pairs"], skyrl["uses"], skyrl["forward_per_pair"]) == (16, 1, 32_768)
    # As much as SkyRL's, whose pairs are not scored either: 7 positions more in 98,304.
    assert ours["work"] / skyrl["work"] == pytest.approx(1 + 7 / 98_304)


def test_pairs_of_the_released_code_against_the_rows_of_its_steps():
    found, rows = released(), 128 * 30_910
    assert ordinary(*AGENT_ROWS, scoring=0).forward == rows
    assert found["break_even_length"] == pytest.approx(2457.6)  # 3 * 8,388,608 / (2048 sequences * 5)
    assert found["agent_seconds"]["released"] == pytest.approx(304 * 524_288 / (524_288 + rows))
    assert found["agent_seconds"]["carrier"] == pytest.approx(found["agent_seconds"]["released"], rel=1e-4)


def test_the_first_step_is_left_out_and_the_rest_is_what_no_timer_covers():
    times = dict(zip(STAGES, (4.0, 1.0, 1.0, 0.5, 2.0, 1.0), strict=True)) | {"step": 10.0}
    one = {f"timing_s/{stage}": value for stage, value in times.items()}
    table = seconds([dict.fromkeys(one, 99.0), one])
    assert table[["step", "training", "other"]].values.tolist() == [[10.0, 4.5, 0.5]]


def test_the_ratio_is_that_of_the_medians_with_its_interval_around_it():
    ratio = median_ratio([10.0, 10.0, 10.0, 50.0], [11.0, 11.0, 11.0, 11.0])
    assert ratio.value == pytest.approx(1.1)
    assert ratio.low <= 1.1 <= ratio.high
    # The machine is slow for both jobs of a round: that does not widen the interval.
    machine = np.random.default_rng(0).uniform(1, 3, 15)
    together, apart = median_ratio(machine, 1.05 * machine), median_ratio(machine, 1.05 * np.roll(machine, 7))
    assert together.high - together.low < 1e-9
    assert apart.high - apart.low > 0.2
    noise = np.random.default_rng(1).normal(1.0, 0.05, 40)
    first, second = median_ratio(np.ones(40), 1.05 * noise), median_ratio(np.ones(40), 1.05 * noise)
    assert first == second
    assert first.low < 1.05 < first.high
    assert first.high - first.low < 0.1


def test_the_figures_survive_json_and_say_what_made_them(found):
    assert json.loads(json.dumps(found)) == found
    assert found["made_by"] == "python -m bench.overhead"
    assert found["versions"]["verl"] == "0.9.1"
    assert found["seconds"]["grpo"]["step"] == [10.0] * 4  # the first of five is left out


def test_the_page_shows_ratio_and_tokens(found):
    page = markdown(found)
    assert "1.050 (1.050 to 1.050), within the promised 1.08" in page
    assert "| **whole step** | 10.000 | 10.500 | 1.050 (1.050 to 1.050) |" in page
    # One forward and one backward of 3 * 256 tokens, and two tokens scored twice: 1.3 % of 136 rows' work.
    assert "| pairs | 0 | 780 | 768 | 1.3% |" in page
    assert "| filler | 0 | 1,920 | 640 | 1.8% |" in page
    assert "3 pairs (15.0% of the items)" in page
    assert "Per pair: 0 sampled, 260 forwarded, 256 backwarded." in page
    assert f"({PLAIN_TOKENS:,} and {PAIRED_TOKENS:,})" in page


def test_the_released_schedules_are_a_table_and_the_docs_show_it(found):
    table = released_markdown(found["released"]["lines"])
    assert "| EasyR1 (images) | 32 | 4 | 262,144 | 262,144 | 25.17 M |" in table
    assert table in (Path(__file__).parents[2] / "docs" / "cost.md").read_text()


@pytest.mark.parametrize(
    ("value", "high", "words"),
    [
        (1.04, 1.07, "within the promised 1.08"),
        (1.04, 1.2, "but its interval is not"),
        (1.1, 1.2, "ABOVE the promised 1.08"),
    ],
)
def test_the_verdict_is_the_interval_s(value, high, words):
    assert words in verdict(Ratio(value, 1.01, high))


@pytest.mark.parametrize(("job", "tokens"), [(0, PLAIN_TOKENS), (1, PAIRED_TOKENS)])
def test_lost_rows_stop_the_benchmark(job, tokens):
    logged = steps(10.0, tokens)
    assert check_tokens(job, logged) == tokens
    logged[3][TOKENS] -= 256
    with pytest.raises(UserError, match=r"step 4 of the job (grpo|contextrl) had \d+ tokens"):
        check_tokens(job, logged)


def test_the_figures_go_between_the_marks_of_a_page(tmp_path):
    page = tmp_path / "cost.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert write_into(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ConfigError, match=r"lacks .* Fix: put them"):
        write_into(page, "new")
