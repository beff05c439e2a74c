"""From logged steps to the figures, the page and the picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from overhead_figures import PAIRED_TOKENS, PLAIN_TOKENS, SIZES, found, measured

from bench.overhead.picture import draw
from bench.overhead.report import BEGIN, END, markdown, released_markdown, verdict, write_into
from bench.overhead.results import TOKENS, OverheadError, check_tokens
from contextrl_verl.errors import ConfigError


def test_the_figures_survive_json_and_say_what_made_them():
    figures = found()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["made_by"] == "python -m bench.overhead"
    assert figures["versions"]["verl"] == "0.9.1"
    assert figures["stages"]["step"]["ratio"]["value"] == pytest.approx(1.05)
    assert figures["seconds"]["grpo"]["step"] == [10.0] * 4  # the first of five is left out


def test_the_page_shows_ratio_tokens_and_memory():
    page = markdown(found())
    assert "1.050 (1.050 to 1.050), within the promised 1.08" in page
    assert "| **whole step** | 10.000 | 10.500 | 1.050 (1.050 to 1.050) |" in page
    # One forward and one backward of 3 * 256 tokens, and two tokens scored twice: 1.3 % of 136 rows' work.
    assert "| pairs | 0 | 780 | 768 | 1.3% |" in page
    assert "| filler | 0 | 1,920 | 640 | 1.8% |" in page
    assert "Per pair: 0 sampled, 260 forwarded, 256 backwarded." in page
    assert "| all processes of the job | 6.00 GiB | 7.00 GiB |" in page


def test_the_released_schedules_are_a_table_and_the_docs_show_it():
    table = released_markdown(found()["released"])
    assert "| EasyR1 (images) | 32 | 4 | 262,144 | 262,144 | 25.17 M |" in table
    assert table in (Path(__file__).parents[2] / "docs" / "cost.md").read_text()


@pytest.mark.parametrize(
    ("low", "high", "value", "words"),
    [
        (1.01, 1.07, 1.04, "within the promised 1.08"),
        (1.01, 1.2, 1.04, "but its interval is not"),
        (1.05, 1.2, 1.1, "ABOVE the promised 1.08"),
    ],
)
def test_the_verdict_is_the_interval_s(low, high, value, words):
    figures = found()
    figures["stages"]["step"]["ratio"] = {"value": value, "low": low, "high": high}
    assert words in verdict(figures)


@pytest.mark.parametrize("job", [0, 1])
def test_lost_rows_stop_the_benchmark(job):
    logged = [each.steps for each in measured(1.0)]
    assert check_tokens(SIZES, tuple(logged)) == (PLAIN_TOKENS, PAIRED_TOKENS)
    logged[job][3][TOKENS] -= 256
    with pytest.raises(OverheadError, match=r"step 4 of the job (grpo|contextrl) had \d+ tokens"):
        check_tokens(SIZES, tuple(logged))


def test_without_filler_the_tokens_are_those_of_rows_and_pairs():
    sizes = replace(SIZES, rows=45)
    assert sizes.pairs == 8
    assert sizes.mini_batch(0) == 360
    assert sizes.mini_batch(1) == 368


def test_the_figures_go_between_the_marks_of_a_page(tmp_path):
    page = tmp_path / "cost.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert write_into(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ConfigError, match=r"has no lines .* Fix: put them"):
        write_into(page, "new")


def test_the_picture_is_drawn(tmp_path):
    draw(tmp_path / "results.png", found())
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
