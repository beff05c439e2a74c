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
    seconds,
    summarise,
    verdict,
)
from bench.overhead.jobs import SCORED, Tokens, carrier, filler, ordinary
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
    tokens = ordinary(2 * 8, 100, 50)
    assert tokens == Tokens(sampled=800, forward=7200, backward=2400)
    assert tokens.work == 7200 + 2 * 2400


def test_a_pair_is_one_row_with_one_label_and_nothing_is_sampled():
    # The update reads all of it; old log-prob and reference read its last two tokens.
    assert carrier(3, 255) == Tokens(sampled=0, forward=3 * (256 + 2 + 2), backward=3 * 256)
    assert SCORED == KEPT
    assert carrier(1, 99, scoring=0) == Tokens(0, 100, 100)
    assert carrier(1, 99, scoring=1) == Tokens(0, 102, 100)


@pytest.mark.parametrize(("rows", "mini_batch", "added"), [(136, 136, 0), (139, 144, 5), (368, 368, 0), (139, 72, 5)])
def test_filler_brings_the_rows_to_a_multiple_of_the_mini_batch(rows, mini_batch, added):
    assert filler(rows, mini_batch) == Tokens(0, added * 128 * 3, added * 128)


# The code released with the paper runs its pairs in a forward and backward of their own for each optimizer update. By
# trainer: different pairs of a step, updates that a pair takes part in, ranks that run it, and positions of one pass,
# padding included (where no length is published, the longest allowed). EasyR1 (paper, sections 3.2 and 4.2 of our
# notes): 256 items in mini-batches of 64, one batch of 32 pairs a step for all four updates, on every rank. SkyRL (3.1
# and 4.1): 16 items in mini-batches of 8, 8 new pairs an update, shared among the ranks.
SCHEDULES = {"EasyR1 (images)": (32, 4, 4, 16_384), "SkyRL (agents)": (16, 1, 1, 32_768)}


def test_the_released_schedules_on_the_page_add_up():
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
    works = []

    def row(name, pairs, uses, tokens):
        works.append(tokens.work)
        per_pair = f"{tokens.forward // pairs:,} | {tokens.backward // pairs:,}"
        assert f"| {name} | {pairs} | {uses} | {per_pair} | {tokens.work / 1e6:.2f} M |" in page

    for name, (pairs, uses, ranks, positions) in SCHEDULES.items():
        passes = pairs * uses * ranks * positions
        row(name, pairs, uses, Tokens(0, passes, passes))
        row("the same pairs as carrier rows", pairs, 1, carrier(pairs, positions))
        if uses > 1:
            row("as many new pairs as it has uses", pairs * uses, 1, carrier(pairs * uses, positions))
    easyr1, *_, skyrl, _ = works
    # The mean length at which all 2,048 sequences of an image step are as much work, and what pairs take of the logged
    # 304 s of policy training with 128 responses of 30,910 tokens, if these hold them and time follows tokens.
    assert f"these have {easyr1 / ordinary(2048, 1, 0).work:,.0f} tokens on average" in " ".join(page.split())
    agents = ordinary(128, 0, 30_910, scoring=0).work
    assert f"16 pairs of 32,768 tokens are {304 * skyrl / (agents + skyrl):.0f} s either way" in page


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
    assert markdown(json.loads(json.dumps(found))) == markdown(found)
    assert found["made_by"] == "python -m bench.overhead"
    assert found["versions"]["verl"] == "0.9.1"
    assert found["seconds"][0]["step"] == [10.0] * 4  # the first of five is left out


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
