"""The parser of questions about shapes: every real one, and everything that is none."""

from __future__ import annotations

import re

import easy_vqa
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_shape import right_answer

from data_prep.images.edit.rules import COLOURS, SHAPES, Asked, Thing, answer_of, parse_question

REAL = sorted({*easy_vqa.get_train_questions()[0], *easy_vqa.get_test_questions()[0]})
SCENES = [Thing(shape, colour) for shape in SHAPES for colour in COLOURS]


def test_every_question_of_the_source_is_understood():
    assert [question for question in REAL if parse_question(question) is None] == []
    assert len(REAL) > 100


@given(st.sampled_from(REAL), st.sampled_from(SCENES))
@settings(max_examples=600)
def test_answers_are_those_of_the_second_reader(question, thing):
    assert answer_of(parse_question(question), thing) == right_answer(question, [(thing.shape, thing.colour)])


@given(st.sampled_from(REAL), st.sampled_from([str.upper, str.title, lambda text: f"  {text.replace(' ', '  ')} "]))
def test_case_and_blanks_do_not_matter(question, change):
    assert parse_question(change(question)) == parse_question(question)


@given(
    st.sampled_from(["is there {a/not a} {}?", "does the image {contain/not contain} a {}?", "is {a/no} {} present?"]),
    st.sampled_from(SCENES),
    st.sampled_from(SCENES),
)
def test_a_negation_turns_the_answer_around(form, thing, shown):
    said, thing = form.replace("{}", f"{thing.colour} shape"), Thing(None, thing.colour)
    plain, negated = (parse_question(re.sub(r"{(.*)/(.*)}", part, said)) for part in (r"\1", r"\2"))
    assert plain == Asked("existence", thing)
    assert negated == Asked("existence", thing, negated=True)
    assert {answer_of(plain, shown), answer_of(negated, shown)} == {"yes", "no"}


@given(st.text(max_size=80))
def test_any_text_is_understood_or_not_and_never_an_error(text):
    found = parse_question(text)
    assert found is None or isinstance(found, Asked)


@given(st.sampled_from(REAL), st.integers(0, 12), st.sampled_from(["very", "two", "purple", "is", "not"]))
def test_a_word_more_is_another_question(question, place, word):
    words = question.rstrip("?").split()
    changed = " ".join([*words[:place], word, *words[place:]])
    found = parse_question(changed)
    # Some places give a question of the table again ("is there not a circle"); its meaning must be that of its words.
    if found is not None:
        for thing in SCENES[:6]:
            assert answer_of(found, thing) == right_answer(changed, [(thing.shape, thing.colour)])


def test_what_is_not_understood():
    for text in ("is there a shape?", "what color is it?", "is there a purple shape?", "not is there a circle?", "",
        "?",        "is there a circle? is there a square?", "what shape is",
    ):  # fmt: skip
        assert parse_question(text) is None, text
