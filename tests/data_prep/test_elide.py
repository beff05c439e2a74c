"""Contexts fit the budget, keep their evidence word for word, and say what is missing."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES

from contextrl_verl.errors import ConfigError
from data_prep.trajectories.elide import elide, evidence_lines, rough_count, token_counter
from data_prep.trajectories.run import Message

ELIDED = re.compile(r"<ELIDED (\d+) tokens>")


def conversation(sizes, line="word number {} of the turn"):
    """A system prompt, an issue, and turns of so many lines, agent and environment in turn."""
    messages = [Message(role="system", content="You are an agent."), Message(role="user", content="The issue.")]
    for index, size in enumerate(sizes):
        text = "\n".join(f"{index}: " + line.format(number) for number in range(size))
        messages.append(Message(role="user" if index % 2 else "assistant", content=text))
    return messages


def tokens_of(messages, count=rough_count, per_message=0):
    return sum(count([message.content for message in messages])) + per_message * len(messages)


def test_what_fits_is_left_alone():
    messages = conversation([3, 50, 3, 50])
    assert elide(messages, 10_000) == tuple(messages)


def test_longest_observations_are_cut_to_one_length_at_both_ends():
    messages = conversation([5, 300, 5, 30, 5, 200, 5])
    shown = elide(messages, 3000)
    assert len(shown) == len(messages)
    assert [number for number, (old, new) in enumerate(zip(messages, shown, strict=True)) if old != new] == [3, 7]
    sizes = [tokens_of([shown[index]]) for index in (3, 7)]
    assert abs(sizes[0] - sizes[1]) < 30
    assert 2800 < tokens_of(shown) <= 3000
    lines, before = shown[3].content.split("\n"), messages[3].content.split("\n")
    mark = next(number for number, line in enumerate(lines) if ELIDED.fullmatch(line))
    assert abs(sum(rough_count(lines[:mark])) - sum(rough_count(lines[mark + 1 :]))) <= 20
    assert (lines[0], lines[-1]) == (before[0], before[-1])
    hidden = before[mark : 300 - (len(lines) - 1 - mark)]
    assert int(ELIDED.fullmatch(lines[mark])[1]) == sum(rough_count([line + "\n" for line in hidden]))


def test_head_and_tail_keep_the_same_number_of_equal_lines_and_all_that_fit():
    def count(texts):
        return [10 * len(text.splitlines()) for text in texts]

    (shown,) = elide([Message(role="user", content="\n".join(map(str, range(100))))], 250, count=count)
    # 22 lines and a mark with its line break; 23 would fit, one end longer than the other.
    assert shown.content.split("\n") == [*map(str, range(11)), "<ELIDED 780 tokens>", *map(str, range(89, 100))]


def test_then_the_agents_longest_turns_are_cut_before_any_turn_goes():
    messages = conversation([400, 20, 5, 20, 3, 20])
    shown = elide(messages, 2000)
    assert len(shown) == len(messages)
    changed = [number for number, (old, new) in enumerate(zip(messages, shown, strict=True)) if old != new]
    assert changed[0] == 2
    assert shown[4] == messages[4]
    assert shown[2].content.startswith("0: word number 0 of")
    assert shown[2].content.endswith(messages[2].content[-30:])


def test_then_turns_go_from_the_middle():
    messages = conversation([30] * 40)
    shown = elide(messages, 3000, per_message=5)
    (gone,) = (number for number, message in enumerate(shown) if ELIDED.fullmatch(message.content))
    assert shown[:2] == tuple(messages[:2])
    assert shown[-2].role == messages[-2].role
    assert abs(gone - (len(shown) - 1 - gone)) <= 1
    assert 2000 < tokens_of(shown, per_message=5) <= 3000


def test_turns_around_the_first_edit_go_last_and_the_issue_never():
    messages = conversation([30] * 40)
    messages[1] = Message(role="user", content="\n".join(f"line {n} of the issue" for n in range(100)))
    edit = 20
    shown = elide(messages, 2600, issue=1, edit=edit)
    assert messages[1] in shown
    starts = {message.content[:20] for message in shown}
    kept = [number for number, message in enumerate(messages) if message.content[:20] in starts]
    assert set(range(edit - 2, edit + 3)) <= set(kept)
    near = [number for number in kept if 5 < number < 36]
    assert near == list(range(near[0], near[-1] + 1))
    assert abs((edit - near[0]) - (near[-1] - edit)) <= 1
    # What the agent said there is left longest.
    assert messages[edit] in shown
    assert elide(messages, 600, issue=1, edit=edit) is None
    assert elide(messages, 600, edit=edit) is not None


def test_evidence_too_long_leaves_nothing():
    messages = conversation([3, 300])
    assert elide(messages, 500, {(3, number) for number in range(300)}) is None


MARKED = st.text(alphabet="ab cd.\n\t(é=1", max_size=400)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["assistant", "user", "tool"]), MARKED), min_size=1, max_size=12),
    st.integers(30, 900),
    st.integers(0, 6),
    st.data(),
)
def test_elision_by_properties(turns, budget, per_message, data):
    messages = [Message(role=role, content=text * data.draw(st.integers(1, 6))) for role, text in turns]
    texts = [message.content.split("\n") for message in messages]
    lines = [(index, number) for index, text in enumerate(texts) for number in range(len(text))]
    evidence = set(data.draw(st.lists(st.sampled_from(lines), max_size=4)))
    places = st.none() | st.integers(0, len(messages) - 1)
    options = {"per_message": per_message, "issue": data.draw(places), "edit": data.draw(places)}
    result = elide(messages, budget, evidence, **options)
    assert result == elide(messages, budget, sorted(evidence), **options)
    if result is None:
        assert tokens_of(messages, per_message=per_message) > budget
        return
    assert tokens_of(result, per_message=per_message) <= budget
    shown = [line for message in result for line in message.content.split("\n")]
    assert {texts[index][number] for index, number in evidence} <= set(shown)
    if options["issue"] is not None:
        assert messages[options["issue"]] in result
    marks = [line for line in shown if "<ELIDED" in line]
    assert all(ELIDED.fullmatch(line) for line in marks)
    kept = [line for line in shown if line not in marks]
    every = [texts[index][number] for index, number in lines]
    left_out = sum(rough_count([line + "\n" for line in every])) - sum(rough_count([line + "\n" for line in kept]))
    assert sum(int(ELIDED.fullmatch(line)[1]) for line in marks) == left_out
    # What is shown besides the marks is text of the run in its order.
    rest = iter(every)
    assert all(any(line == other for other in rest) for line in kept)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_budget_holds_with_real_tokenizers(family):
    count = token_counter(FAMILIES[family]())
    messages = conversation([20, 200, 3, 80, 9, 120], line="def function_{}(self, value='é'):  # why?")
    for budget in (700, 3000):
        shown = elide(messages, budget, {(3, 100)}, count)
        assert tokens_of(shown, count) <= budget
        assert any("function_100(" in message.content for message in shown)


def test_budget_holds_when_joined_lines_take_more():
    def awkward(texts):
        return [len(text.split()) + 2 * sum(line != "" for line in text.split("\n")[1:]) for text in texts]

    messages = conversation([20, 200, 3, 80, 9, 120])
    for budget in (200, 400, 1000, 2000):
        assert tokens_of(elide(messages, budget, (), awkward), awkward) <= budget


def test_a_tokenizer_that_is_none_is_told():
    assert token_counter("")(["a b", ""]) == [2, 0]
    with pytest.raises(ConfigError, match=r"no-such-folder.*Fix:"):
        token_counter("./no-such-folder")


PATCH = """--- a/pkg/core/base.py
+++ b/pkg/core/base.py
@@ -10,3 +10,3 @@ class Reader:
     def load(self, limit):
-        return self.read(limit)
+        return self.read(limit, 3)
         # the end of it
"""
FILE = """import os

class Reader:
    def load(self, limit):
        check(limit)
        return self.read(limit)
    def other(self):
        pass"""


def run_with(view):
    turns = [("user", "Issue: load is broken")]
    turns += [("assistant", "nl -ba pkg/core/base.py"), ("user", view), ("assistant", "python -m pytest")]
    turns += [("user", "setup of load\nE  TypeError in load()\nload_all ran\n3 failed"), ("assistant", "cat pkg/a.py")]
    turns += [("user", "def loads(): pass\nnothing here")]
    return [Message(role=role, content=content) for role, content in turns]


@pytest.mark.parametrize("numbered", [False, True])
def test_evidence_is_the_patched_place_and_the_tests_that_name_it(numbered):
    lines = FILE.split("\n")
    if numbered:
        lines = [f"{number:6}\t{line}" for number, line in enumerate(lines, 1)]
    found = evidence_lines(run_with("\n".join(lines)), [("pkg/core/base.py", "Reader.load")], [PATCH], 0)
    assert found == [(2, 3), (2, 4), (2, 5), (4, 0), (4, 1)]


def test_each_line_is_evidence_once_however_often_it_is_shown():
    run = run_with(FILE)
    numbered = "\n".join(f"{number:6}\t{line}" for number, line in enumerate(FILE.split("\n"), 1))
    view = [
        Message(role="assistant", content="nl pkg/core/base.py"),
        Message(role="user", content=numbered + "\n" + FILE),
    ]
    places = [("pkg/core/base.py", "Reader.load")]
    once = evidence_lines(run, places, [PATCH], 0)
    assert evidence_lines([*run, *view, *view], places, [PATCH], 0) == once
    longer = Message(
        role="user", content=FILE.replace("        check(limit)\n", "        check(limit)\n        more()\n")
    )
    found = evidence_lines([*run, *view[:1], longer], places, [PATCH], 0)
    assert found == [*once, (len(run) + 1, 5)]


def test_places_without_symbols_still_find_the_old_lines():
    found = evidence_lines(run_with(FILE), [("pkg/core/base.py", "")], [PATCH], 0)
    assert found == [(2, 3), (2, 5)]


def test_long_bodies_and_long_logs_are_limited():
    run = run_with("def load():\n" + "\n".join(f"    step({number})" for number in range(500)))
    found = evidence_lines(run, [("pkg/core/base.py", "load")], [PATCH], 0)
    assert sum(index == 2 for index, _ in found) == 40
