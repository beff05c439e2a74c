"""Where a response states its final answer, for every scorer alike."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_fns import compute_score
from reward_fns.final_answer import final_answer, find_marks, strip_thinking

MARKS = [
    "\\boxed{}",
    "<answer>{}</answer>",
    "<ANSWER>{}</ANSWER>",
    "<final_answer>{}</final_answer>",
    '{{"answer": "{}"}}',
]
MARKS += [
    '```json\n{{"why": "x", "final_answer": "{}"}}\n```',
    "[ANSWER]{}[/ANSWER]",
    "<|begin_of_box|>{}<|end_of_box|>",
]
MARKERS = [
    "Answer: {}",
    "The answer is {}.",
    "**Final Answer:** {}",
    "### Final Answer\n\n**{}**",
    "Answer:\n{}",
    "**Answer: {}**",
]
MARKERS += [
    "最终答案是：{}。",
    "答案：{}",
    "答えは{}です。",
    "正解: {}",
    "정답은 {}입니다.",
    "Die Antwort lautet {}.",
    "Antwort: {}",
]
MARKERS += ["La réponse est {}.", "Réponse : {}", "La respuesta es {}.", "First I look.\n\n{}", "#### {}"]
THOUGHTS = ["<think>{}</think>", "<thinking>{}</thinking>", "[THINK]{}[/THINK]", "{}</think>", "◁think▷{}◁/think▷"]
THOUGHTS += [
    "<seed:think>{}</seed:think>",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
]
THOUGHTS += ["analysisSo {}.assistantfinal", "<think>a<think>{}</think>b</think>"]
SCORERS = [("contextrl/exact_match", "B", "B"), ("contextrl/vqa", "B", "b"), ("contextrl/selection", "B", "B")]
SCORERS += [("contextrl/multiple_choice", "B", "B"), ("contextrl/math", "12", "12"), ("contextrl/vqa", "12", "12")]
SCORERS += [("contextrl/question_answering", "B", "B")]


def fill(form: str, answer: str) -> str:
    return form.replace("\\boxed{}", f"\\boxed{{{answer}}}") if form.startswith("\\") else form.format(answer)


@pytest.mark.parametrize("form", MARKS + MARKERS)
@pytest.mark.parametrize(("source", "answer", "truth"), SCORERS)
def test_every_scorer_reads_every_form(form: str, source: str, answer: str, truth: str) -> None:
    assert final_answer(fill(form, answer)) == answer
    assert compute_score(source, fill(form, answer), truth)["score"] == 1.0
    assert compute_score(source, fill(form, "7" if answer == "12" else "A"), truth)["score"] == 0.0


@pytest.mark.parametrize("thought", THOUGHTS)
def test_thinking_is_no_answer(thought: str) -> None:
    assert final_answer(thought.format("The answer is A") + "The answer is B.") == "B"
    assert strip_thinking(thought.format("x") + "B").strip() == "B"


@pytest.mark.parametrize(
    "text", ["<think>B", "[THINK]B", "<|channel|>analysis<|message|>B", "analysisIt is B", "<answer>B", "\\boxed{B"]
)
def test_what_never_ends_has_no_answer(text: str) -> None:
    assert final_answer(text) == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{1} and then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1}, so <answer>2</answer>", "2"),
        ("<answer>\\boxed{4}</answer>", "4"),
        ("<answer>\\boxed{4} or \\boxed{5}</answer>", "\\boxed{4} or \\boxed{5}"),
        ('<answer>{"answer": "\\\\boxed{4}"}</answer>', "4"),
        ("<answer>The answer is 4.</answer>", "4"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("Answer: 3\nAnswer: 4", "4"),
        ("5 apples\n- x", "- x"),
        ("The answer is 5. It was 6 before.", "5"),
        ("The answer is 5. Wait, it is 6.", "5. Wait, it is 6"),
        ("Answer:", ""),
        ("", ""),
    ],
)
def test_which_answer_is_the_final_one(text: str, answer: str) -> None:
    assert final_answer(text) == answer


PIECES = [
    "\\boxed{",
    "\\boxed{}",
    "{",
    "}",
    "<answer>",
    "</answer>",
    "[",
    "<",
    '{"answer": "',
    '{"answer": "\\',
    "answer is ",
]
PIECES += [
    "answer",
    "réponse est ",
    "答案",
    "답은",
    "<think>",
    "</think>",
    "<|channel|>final<|message|>",
    "<|channel|>",
    "analysis",
]
PIECES += [
    " ",
    "\n",
    "*",
    "#",
    "\u0130",
    "assistantfinal",
    "\\",
    "{'answer':'",
    "<answer>\\boxed{",
    "answer   ",
    "A. ",
    "12 ",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("tail", ["", "}" * 50_000 + "</answer>"])
def test_hostile_text_is_read(piece: str, tail: str) -> None:
    """Finishing at all is the point: a quadratic pattern would run into the suite's own limit."""
    text = piece * (200_000 // len(piece)) + (tail if "{" in piece else "")
    # The selection reward has a test of its own.
    source = "contextrl/vqa" if tail else "contextrl/question_answering"
    assert compute_score(source, text, "B")["score"] == 0.0


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
@settings(deadline=None)
def test_marks_stand_in_order_and_apart(text: str) -> None:
    marks = find_marks(text)
    assert all(one.stop <= other.start for one, other in pairwise(marks))
    assert all(mark.start < mark.stop <= len(text) for mark in marks)
    assert isinstance(final_answer(text), str)
