"""Short answers to questions about pictures: yes and no, numbers, words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_fns import RewardConfigError, compute_score
from reward_fns.short_answer import score_vqa


@pytest.mark.parametrize(
    ("response", "truth", "tolerance", "score"),
    [
        ("<answer>Teal.</answer>", "teal", None, 1.0),
        ("It is \\boxed{the circle}", "circle", None, 1.0),
        ("<answer>circle or triangle</answer>", "circle", None, 0.0),
        ("<think>circle</think>triangle", "circle", None, 0.0),
        ("<think>circle", "circle", None, 0.0),
        ("<answer>Yes, there is one.</answer>", "yes", None, 1.0),
        ("<answer>yes</answer>", "no", None, 0.0),
        ("<answer>yes or no</answer>", "yes", None, 0.0),
        ("<answer>There is, yes</answer>", "yes", None, 0.0),
        ("<answer>yesterday</answer>", "yes", None, 0.0),
        ("<answer>3.0</answer>", "3", None, 1.0),
        ("<answer>three</answer>", "3", None, 1.0),
        ("<answer>4</answer>", "three", None, 0.0),
        ("<answer>1,234.50</answer>", "1234.5", None, 1.0),
        ("<answer>1,23</answer>", "123", None, 0.0),
        ("<answer>−5</answer>", "-5", None, 1.0),
        ("<answer>5</answer>", "-5", None, 0.0),
        ("<answer>12%</answer>", "12", None, 1.0),
        ("<answer>$12</answer>", "12%", 0.5, 0.0),
        ("<answer>104</answer>", "100", 0.05, 1.0),
        ("<answer>106</answer>", "100", 0.05, 0.0),
        ("<answer>101</answer>", "100", None, 0.0),
        ("<answer>2001</answer>", "2000", 0.05, 0.0),
        ("<answer>$2,050</answer>", "$2000", 0.05, 1.0),
        ("<ANSWER>Teal</ANSWER>", "teal", None, 1.0),
        ("Answer: yes", "yes", None, 1.0),
        ("Answer: Yes. There is a dog.", "yes", None, 1.0),
        ("No cars are there.\n<answer>3</answer>", "no", None, 0.0),
        ("The answer is 12.", "12", None, 1.0),
        ("The answer is 12. There are 12 birds.", "12", None, 1.0),
        ("The answer is 12. No, 13.", "12", None, 0.0),
        ("The answer is 12 or 13.", "12", None, 0.0),
        ("<answer>12cm</answer>", "12", None, 1.0),
        ("<answer>12 cm</answer>", "12cm", None, 1.0),
        ("<answer>12 centimetres</answer>", "12 cm", None, 1.0),
        ("<answer>12 m</answer>", "12 cm", None, 0.0),
        ("<answer>12 percent</answer>", "12%", None, 1.0),
        ("$12\\text{ cm}$", "12", None, 1.0),
        ("<answer>1.5 million</answer>", "1500000", None, 1.0),
        ("<answer>twenty-one</answer>", "21", None, 1.0),
        ("<answer>one hundred and five</answer>", "105", None, 1.0),
        ("<answer>two thousand three hundred</answer>", "2300", None, 1.0),
        ("<answer>twelve cm</answer>", "12", None, 1.0),
        ("<answer>five six</answer>", "11", None, 0.0),
        ("<answer>twenty thirty</answer>", "50", None, 0.0),
        ("<answer>~104</answer>", "100", 0.05, 1.0),
        ("<answer>about 104</answer>", "100", 0.05, 1.0),
        ("<answer>~106</answer>", "100", 0.05, 0.0),
        ("<answer>~100</answer>", "100", None, 0.0),
        ("<answer>100-104</answer>", "100", 0.05, 0.0),
        ("<answer>100 apples</answer>", "100", 0.05, 0.0),
        ("<answer>1e999</answer>", "1", 1.0, 0.0),
        ("<answer>0.0001</answer>", "0", 1.0, 0.0),
        ("", "0", None, 0.0),
        ("<answer>b</answer>", ["a", "B"], None, 1.0),
        ("<answer>1</answer>", "1", float("nan"), 1.0),
    ],
)
def test_answers(response, truth, tolerance, score):
    result = compute_score("contextrl/vqa/shapes", response, truth, {"tolerance": tolerance})
    assert (result["score"], result["reward_fn"]) == (score, "contextrl/vqa*")


@pytest.mark.parametrize(
    ("truth", "info"),
    [("", None), (3, None), ("?!", None), ([], None), ("a", {"tolerance": 2}), ("a", {"tolerance": "x"})],
)
def test_wrong_data_is_an_error(truth, info):
    with pytest.raises(RewardConfigError):
        score_vqa("contextrl/vqa", "a", truth, info)


@given(st.text(), st.sampled_from(["yes", "3", "circle", "12%"]), st.floats(0, 1))
def test_any_response_has_a_score(text, truth, tolerance):
    for response in (text, f"<answer>{text}</answer>", f"\\boxed{{{text}}}"):
        assert score_vqa("contextrl/vqa", response, truth, {"tolerance": tolerance})["score"] in (0.0, 1.0)


@given(st.integers(-(10**9), 10**9), st.floats(0, 0.3), st.floats(-0.5, 0.5))
def test_the_tolerance_is_of_the_right_number(truth, tolerance, off):
    year = 1000 <= truth < 3000
    wanted = off == 0 or (abs(off) < tolerance * 0.999 and not year)
    if not (wanted or abs(off) > max(tolerance * 1.001, 1e-6)):
        return
    answer = f"{truth * (1 + off):.12f}"
    assert score_vqa("contextrl/vqa", answer, str(truth), {"tolerance": tolerance})["score"] == (wanted or truth == 0)


@given(st.text(min_size=1), st.booleans())
def test_the_reference_itself_is_right(text, tagged):
    try:
        found = score_vqa("contextrl/vqa", f"<answer>{text}</answer>" if tagged else text, text)
    except RewardConfigError:
        return
    assert found["score"] == 1.0 or "<" in text or "\\" in text
