"""When questions are the same and answers differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.images.item import answer_key, question_key

SAME = [
    ("What colour is it?", "what  colour is it"),
    ("Is it “red” ?", 'is it "red"?'),
    ("How many, if any, are red?", "how many if any are red"),
    ("What is shown here:\n", "What is shown here."),
    ("Café?", "Cafe\N{COMBINING ACUTE ACCENT}?"),
]
OTHER = [
    ("What is 1.5 + 2?", "What is 15 + 2?"),
    ("What is -5 + 3?", "What is 5 + 3?"),
    ("What is 5! ?", "What is 5?"),
    ("Is x < 3?", "Is x > 3?"),
    ("What is x²?", "What is x2?"),
    ("Is it 1,5?", "Is it 15?"),
    ("Is it red?", "Is it not red?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_questions_are_the_same_up_to_case_blanks_and_punctuation(one, other):
    assert question_key(one) == question_key(other)
    assert question_key(one, "exact") != question_key(other, "exact")


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_changes_the_question_is_kept(one, other):
    assert question_key(one) != question_key(other)


@given(st.text(max_size=40))
def test_a_question_s_key_is_its_own_key(text):
    assert question_key(question_key(text)) == question_key(text)
    assert question_key(text, "exact") == text


EQUAL = [
    ("1", "1.0"), ("1", "one"), ("1,000", "1000"), ("-2", "−2"), ("50%", "50 %"), ("50%", "50"), ("$5", "5"),
    ("Red.", "red"), ("the dog", "Dog"), ("a dog", "an dog"), ("yes", "Yes, it is."), ("New  York", "new york"),
    ("1e3", "1000"), (".5", "0.5"),
]  # fmt: skip
DIFFERENT = [
    ("1", "-1"), ("1.5", "15"), ("yes", "no"), ("red", "dark red"), ("$5", "5%"), ("two", "3"), ("5", "5 dogs"),
    ("yes or no", "yes"), ("2012", "2013"), ("rectangle", "triangle"), ("0.1", "0.10001"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_answers_that_can_both_be_right_do_not_differ(one, other):
    assert not answer_key(one).differs(answer_key(other))
    assert not answer_key(other).differs(answer_key(one))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_answers_that_differ(one, other):
    assert answer_key(one).differs(answer_key(other))
    assert answer_key(other).differs(answer_key(one))


@given(st.text(max_size=30), st.text(max_size=30))
def test_difference_goes_both_ways_and_nothing_differs_from_itself(one, other):
    a, b = answer_key(one), answer_key(other)
    assert a.differs(b) == b.differs(a)
    assert not a.differs(a)


@pytest.mark.parametrize("text", ["", " ", "...", "?!"])
def test_an_answer_of_punctuation_has_no_words(text):
    assert answer_key(text).words == ""
