"""parse_choice: what names an option and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_fns import parse_choice

ACCEPTED = [
    ("A", "A"),
    (" B\n", "B"),
    ("A.", "A"),
    ("(B)", "B"),
    ("B)", "B"),
    ("**A**", "A"),
    ("**(B)**.", "B"),
    ('"A"', "A"),
    ("`B`", "B"),
    ("Option A", "A"),
    ("\\boxed{A}", "A"),
    ("$\\boxed{B}$", "B"),
    ("\\boxed{\\text{B}}", "B"),
    ("\\boxed{(A)}", "A"),
    ("The dog is only in the first. So \\boxed{A}.", "A"),
    ("<answer>A</answer>", "A"),
    ("<answer> Option B </answer>", "B"),
    ("<answer>\\boxed{B}</answer>", "B"),
    ("The correct option is A", "A"),
    ("The correct option is **B**.", "B"),
    ("Answer: B", "B"),
    ("ANSWER: B", "B"),
    ("**Answer:** A", "A"),
    ("**Final Answer**: **B**", "B"),
    ("Answer:\nB", "B"),
    ("final answer is (B)", "B"),
    ("The answer is: A", "A"),
    ("My final choice is option B.", "B"),
    ("I choose option A", "A"),
    ("I would go with B because it shows the dog.", "B"),
    ("I'll pick A.", "A"),
    ("Therefore, the answer is clearly A.", "A"),
    ("The answer is A, since context B lacks the date.", "A"),
    ("The answer is B, not A.", "B"),
    ("It is not B, so the answer is A.", "A"),
    ("The wrong option is A. The correct option is B.", "B"),
    ("Answer: A) the dog", "A"),
    ("The answer to the question is B.", "B"),
    ("The option which best supports the answer is B.", "B"),
    ("İ İ Answer: B", "B"),
    ("The answer is B.\n\n**B**", "B"),
    ("The answer is A. Again, the final answer is A.", "A"),
    ("<think>The answer is B</think>The answer is A", "A"),
    ("maybe B</think>\nA", "A"),
    ("<think>a<think>b</think>B</think>A", "A"),
    ("If the answer is B, the date must match. It does not. The answer is A.", "A"),
    ("Option A: a dog. Option B: a cat.\nAnswer: B", "B"),
]
REJECTED = [
    "",
    "   ",
    "a",
    "C",
    "AB",
    "A or B",
    "A and B",
    "A/B",
    "A, B",
    "Both",
    "A context showing a dog",
    "A dog",
    "The answer is a dog",
    "Answer: A dog on the sofa",
    "Answer: A context with a dog",
    "The answer is A-frame",
    "The answer is A's opposite",
    "Answer: Apple",
    "Bananas",
    "the answer is not A",
    "The answer isn't A.",
    "The answer isn’t A.",
    "The answer cannot be A",
    "The answer is never A",
    "I do not choose option A",
    "I don't think the answer is A",
    "I doubt the correct option is B",
    "It is false that the answer is \\boxed{A}",
    "the answer is not \\boxed{A}",
    "The answer is A. No, the answer is not A.",
    "The answer is A. Actually it isn't A.",
    "The answer is A or B",
    "The answer is either A or B",
    "The answer is A, or possibly option B",
    "Answer: A and B",
    "Answer: A & B",
    "Answer: A\nB",
    "The answer is A.\n\n**B**",
    "I choose both A and B",
    "The answer is A. The correct option is B.",
    "\\boxed{A} or \\boxed{B}",
    "\\boxed{A}\\boxed{B}",
    "\\boxed{A or B}",
    "\\boxed{42}",
    "\\boxed{A",
    "<answer>A</answer><answer>B</answer>",
    "<answer>A or B</answer>",
    "<answer>A",
    "Answer: A\n<answer>A or B</answer>",
    "Option A: a dog. Option B: a cat.",
    "Which option supports the answer, A or B?",
    "Which option supports the answer: A or B?",
    "Reply with 'Answer: A' or 'Answer: B'.",
    "Is the answer A?",
    "The answer is A?",
    "If the answer is A, the dog is brown",
    "The answer is A if the dog is brown",
    "The other option is B",
    "The wrong answer is A",
    "The answer is A. On reflection the answer is unclear.",
    "The answer is neither A nor B",
    "<think>The answer is A",
    "<think>The answer is A</think>",
    "<think>A</think> <think> A",
]
OTHER_LABELS = [
    ("Answer: 2", ("1", "2"), "2"),
    ("2.", ("1", "2"), "2"),
    ("Answer: 1.5", ("1", "2"), None),
    ("Answer: 12", ("1", "2"), None),
    ("Answer: 12", ("1", "12"), "12"),
    ("\\boxed{10}", ("1", "10"), "10"),
    ("The answer is yes.", ("Yes", "No"), "Yes"),
    ("NO", ("Yes", "No"), "No"),
    ("The answer is not Yes", ("Yes", "No"), None),
    ("Answer: hıt", ("Hit", "Miss"), None),
    ("Answer: Yesterday", ("Yes", "No"), None),
    ("The correct option is C++.", ("C", "C++"), "C++"),
    ("Answer: I think so", ("H", "I"), None),
    ("The answer is D.", ("A", "B", "C", "D"), "D"),
    ("Answer: A, C or D", ("A", "B", "C", "D"), None),
]
PIECES = ["A", "B", " ", "\n", "answer", "is", "not", ":", "\\boxed{", "}", "<answer>", "</answer>", "<think>"]
PIECES += ["</think>", "I choose", "option", "or", "correct option is ", "(", "**", "'", "n't", ",", "?"]


@pytest.mark.parametrize(("text", "label"), ACCEPTED)
def test_accepted(text: str, label: str) -> None:
    assert parse_choice(text) == label


@pytest.mark.parametrize("text", REJECTED)
def test_rejected(text: str) -> None:
    assert parse_choice(text) is None


@pytest.mark.parametrize(("text", "labels", "label"), OTHER_LABELS)
def test_other_labels(text: str, labels: tuple[str, ...], label: str | None) -> None:
    assert parse_choice(text, labels) == label


@pytest.mark.parametrize(("text", "label"), ACCEPTED)
def test_labels_are_treated_alike(text: str, label: str) -> None:
    """A visible thought in front changes nothing, and no response names a label that is not offered."""
    assert parse_choice("<think>The answer is A. Or B?</think>\n" + text.rpartition("</think>")[2]) == label
    assert parse_choice(text, ("X", "Y")) is None


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
@settings(deadline=None)
def test_any_text_gives_a_label_or_none(text: str) -> None:
    assert parse_choice(text) in ("A", "B", None)


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=5))
@settings(deadline=None)
def test_any_labels(text: str, labels: list[str]) -> None:
    assert parse_choice(text, labels) in (*labels, None)


@given(
    st.sampled_from(["A", "B"]), st.sampled_from(["Answer: {}", "\\boxed{{{}}}", "<answer>{}</answer>", "I pick {}."])
)
@settings(deadline=None)
def test_a_second_different_statement_voids_the_first(label: str, form: str) -> None:
    other = "B" if label == "A" else "A"
    assert parse_choice(form.format(label)) == label
    assert parse_choice(f"{form.format(label)}\n{form.format(other)}") is None


@pytest.mark.parametrize(
    "piece", [" ", "answer is ", "answer", "A", "A ", "(", "\\boxed{", "<answer>", "not ", "<think>"]
)
def test_a_megabyte_is_read(piece: str) -> None:
    """Finishing at all is the point: a quadratic pattern would run into the suite's own limit."""
    filler = piece * (1_000_000 // len(piece))
    assert parse_choice(filler) in (None, "A")
    assert parse_choice("Answer: " + filler + " Answer: B") in (None, "B")
