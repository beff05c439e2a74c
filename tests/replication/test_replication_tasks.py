"""Every answer again by another rule, from the prompt alone; splits are apart; pairs are balanced."""

import re
from itertools import pairwise

import pytest

from bench.replication.material import TASKS, items, split_of


def _asked(prompt: str) -> tuple[list[str], str]:
    *lines, question = prompt.split("\n")
    return lines, re.fullmatch(r"what (?:is|did) (\w+)(?: say)?\?", question)[1]


def _by_call(prompt: str, word: int) -> str:
    lines, asked = _asked(prompt)
    calls = [line.split() + after.split() for line, after in pairwise(lines) if line.startswith("$ ")]
    found = [words[3] for words in calls if words[word] == asked]
    assert len(found) == 1
    return found[0]


def _told(prompt: str) -> str:
    lines, asked = _asked(prompt)
    found = [line.split()[3] for line in lines if line.startswith(f"say {asked} is ")]
    assert len(found) == 1
    return found[0]


def _followed(prompt: str) -> str:
    lines, asked = _asked(prompt)
    given = dict(re.fullmatch(r"\$ (\w+) = (\w+)", line).groups() for line in lines)
    while not asked.isdigit():
        asked = given[asked]
    return asked


def _last(prompt: str) -> str:
    lines, asked = _asked(prompt)
    return [line.split()[3] for line in lines if line.split()[1] == asked][-1]


ANSWERS = {
    "reading": lambda prompt: _by_call(prompt, 2),
    "trace_qa": lambda prompt: _by_call(prompt, 1),
    "needle": _told,
    "multi_key_needle": _told,
    "variable_tracking": _followed,
    "last_write_wins": _last,
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_answers_are_right(task, split):
    found = items(task, 300, 3, split)
    assert len({prompt for (prompt, _), *_ in found}) == 300
    for (prompt, answer), *more in found:
        assert ANSWERS[task](prompt) == answer
        context = prompt.rpartition("\n")[0]
        for question, other in more:
            assert ANSWERS[task](f"{context}\n{question}") == other


@pytest.mark.parametrize("task", TASKS)
def test_no_digit_is_a_good_guess(task):
    answers = [answer for (_, answer), *_ in items(task, 1000, 1, "heldout")]
    assert max(map(answers.count, "0123456789")) < 150


def test_splits_share_nothing_and_seeds_repeat():
    train, heldout = (items("needle", 200, 1, split) for split in ("train", "heldout"))
    assert {split_of(prompt) for (prompt, _), *_ in train} == {"train"}
    assert {split_of(prompt) for (prompt, _), *_ in heldout} == {"heldout"}
    assert items("needle", 200, 1, "heldout") == heldout
    assert items("needle", 200, 2, "heldout") != heldout
