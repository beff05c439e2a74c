"""Every answer again by another rule, from the prompt alone; splits are apart; pairs are balanced."""

import re
from itertools import pairwise

import pytest

from bench.replication.material import TASKS, held_out, items, pairs, split_of
from contextrl_verl.errors import ConfigError


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
    assert len({item.prompt for item in found}) == 300
    for item in found:
        assert ANSWERS[task](item.prompt) == item.answer
        context = item.prompt.rpartition("\n")[0]
        for question, answer in item.more:
            assert ANSWERS[task](f"{context}\n{question}") == answer


@pytest.mark.parametrize("task", TASKS)
def test_no_digit_is_a_good_guess(task):
    answers = [item.answer for item in items(task, 1000, 1, "heldout")]
    assert max(map(answers.count, "0123456789")) < 150


def test_splits_share_nothing_and_seeds_repeat():
    train, heldout = (items("needle", 200, 1, split) for split in ("train", "heldout"))
    assert {split_of(item.prompt) for item in train} == {"train"}
    assert {split_of(item.prompt) for item in heldout} == {"heldout"}
    assert items("needle", 200, 1, "heldout") == heldout
    assert items("needle", 200, 2, "heldout") != heldout


@pytest.mark.parametrize(("task", "split"), [("nedle", "train"), ("needle", "test")])
def test_unknown_names(task, split):
    with pytest.raises(ConfigError, match="Fix: one of"):
        items(task, 1, 1, split)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_couple_is_one_digit_apart_and_serves_twice(split):
    found = list(pairs(200, 5, split))
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.supporting.text == second.confounders[0].text
        assert second.supporting.text == first.confounders[0].text
        differ = [
            at for at, (a, b) in enumerate(zip(first.supporting.text, second.supporting.text, strict=True)) if a != b
        ]
        assert len(differ) == 1
        key = re.fullmatch(r"what is (\w+)\?", first.query)[1]
        for pair in (first, second):
            assert _by_call(f"{pair.supporting.text}\n{pair.query}", 2) == pair.answer
        assert held_out(key, (first.answer, second.answer)) is (split == "heldout")
