"""Words in common: BM25 by its formula, of couples from what the scan stored, and the cap on what it gets right."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextrl_verl.pairs import Context, ContrastivePair, Message
from data_prep.common.lexical import Frequencies, terms_of, words_of
from data_prep.trajectories import overlap
from data_prep.trajectories.run import AgentRun

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


def bm25(answer: str, contexts: list[list[str]], every: list[list[str]]) -> list[float]:
    """By the book, k1 = 1.2 and b = 0.75."""
    mean = sum(map(len, every)) / len(every)
    scores = []
    for context in contexts:
        total, counts = 0.0, Counter(context)
        for word in set(answer.split()):
            seen = sum(word in other for other in every)
            rarity = math.log(1 + (len(every) - seen + 0.5) / (seen + 0.5))
            damped = 1.2 * (0.25 + 0.75 * len(context) / mean)
            total += rarity * counts[word] * 2.2 / (counts[word] + damped)
        scores.append(total)
    return scores


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_bm25_is_that_of_the_book(seed):
    draw = random.Random(seed)
    every = [draw.choices(WORDS, k=draw.randint(1, 30)) for _ in range(6)]
    answer = " ".join(draw.choices(WORDS, k=draw.randint(1, 5)))
    frequencies = Frequencies()
    for context in every:
        words = words_of(" ".join(context))
        frequencies.add(words.ids, words.total)
    terms = terms_of(words_of(answer), [words_of(" ".join(context)) for context in every[:2]])
    assert frequencies.score(terms) == pytest.approx(bm25(answer, every[:2], every))


def test_words_are_counted_without_case_and_a_lone_surrogate_is_none():
    words = words_of("Ab ab, c_d \ud800 12\n")
    assert (sorted(words.counts), words.total) == ([1, 1, 2], 4)
    assert words.count_of(words_of("AB zz").ids).sum() == 2
    assert words_of("").count_of(words.ids).tolist() == [0, 0, 0]


def run(number: int, text: str, issue: str = "", added: str = "") -> AgentRun:
    patch = f"--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-old\n+{added}\n"
    turns = [Message(role="system", content="never counted"), Message(role="user", content=f"do {issue} now")]
    turns.append(Message(role="assistant", content=text))
    return AgentRun(
        instance_id=f"o__p-{number}", repository="o/p", issue=issue, messages=tuple(turns), patch=patch, source="made"
    )


class Stored:
    """As much of a light record as is asked for."""

    def __init__(self, path, row):
        self.repository, self.stored = "o/p", (str(path), row)


def couples_of(tmp_path, runs, answers, issue=True):
    path = tmp_path / "part.parquet"
    rows = [overlap.keys(run, answer) for run, answer in zip(runs, answers, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(overlap.FIELDS)), path)
    lights = [Stored(path, row) for row in range(len(runs))]
    couples = [(one, other) for one in range(len(runs)) for other in range(one + 1, len(runs))]
    return overlap.of_couples(lights, couples, issue)


def test_couples_that_words_tell_apart_have_a_large_margin(tmp_path):
    runs = [run(0, "alpha alpha beta"), run(1, "gamma delta"), run(2, "delta gamma")]
    found = couples_of(tmp_path, runs, ["alpha beta", "gamma delta", "gamma delta"])
    assert found[0, 1] == found[0, 2] == pytest.approx(1)
    assert found[1, 2] == pytest.approx(0)
    # Each run speaks of the other's answer.
    assert couples_of(tmp_path, runs[:2], ["gamma", "alpha"])[0, 1] == pytest.approx(-1)


def test_added_lines_do_not_count_and_the_issue_only_where_it_shows(tmp_path):
    line = "value = alpha(beta)"
    runs = [run(0, f"I write\n+  {line}", issue="kappa kappa", added=f"  {line}"), run(1, "nothing", issue="iota")]
    answers = [f"{line} kappa", "iota"]
    assert couples_of(tmp_path, runs, answers)[0, 1] == pytest.approx(1)
    assert couples_of(tmp_path, runs, answers, issue=False)[0, 1] == 0


def pair(number: int, kind: str, direction: int, texts: list[str], answers: list[str]) -> ContrastivePair:
    contexts = [Context(kind="messages", messages=[Message(role="user", content=f"{t} {number}")]) for t in texts]
    order = contexts if direction == 0 else contexts[::-1]
    return ContrastivePair(
        pair_id=f"{kind}-{number}-{direction}", domain="trajectory", query="which?", answer=answers[direction],
        supporting=order[0], confounders=order[1:], provenance={"kind": kind},
    )  # fmt: skip


def made(kind: str, right: int, wrong: int, level: int = 0) -> list[ContrastivePair]:
    """Couples that words solve in both directions, in none, or not at all (``level`` of them)."""
    ways = ["alpha beta".split()] * right + ["beta alpha".split()] * wrong + ["kappa kappa".split()] * level
    couples = ((n, answers) for n, answers in enumerate(ways))
    return [pair(n, kind, d, ["alpha", "beta"], answers) for n, answers in couples for d in (0, 1)]


def test_the_cap_holds_for_each_kind_and_takes_whole_couples_but_no_more_than_needed():
    pairs = [*made("related", right=8, wrong=2), *made("same", right=1, wrong=3, level=2)]
    read = overlap.scored(pairs)
    before = overlap.baseline(read)
    assert before["related"] == {"pairs": 20, "right": 0.8}
    assert before["same"] == {"pairs": 12, "right": round((2 + 0.5 * 4) / 12, 4)}
    gone = overlap.over_cap(read, 0.6)
    after = overlap.baseline([one for one in read if one.pair_id not in gone])
    # Three of five right; one more would be four of six.
    assert after["related"] == {"pairs": 10, "right": 0.6}
    assert after["same"] == before["same"]
    assert after["all"]["pairs"] == 22
    assert len(gone) == 2 * len({name[:-2] for name in gone})
    assert overlap.over_cap(read, 1.0) == set()


def test_a_cap_that_nothing_meets_leaves_nothing():
    read = overlap.scored(made("related", right=3, wrong=0))
    assert overlap.over_cap(read, 0.4) == {one.pair_id for one in read}


def test_the_clearest_go_first():
    """Of couples that words solve, the ones with the smaller margin stay."""
    clear = [pair(0, "any", d, ["alpha alpha", "beta beta"], ["alpha", "beta"]) for d in (0, 1)]
    near = [pair(1, "any", d, ["alpha alpha beta", "alpha beta beta"], ["alpha", "beta"]) for d in (0, 1)]
    wrong = [pair(2, "any", d, ["alpha", "beta"], ["beta", "alpha"]) for d in (0, 1)]
    assert overlap.over_cap(overlap.scored([*clear, *near, *wrong]), 0.5) == {"any-0-0", "any-0-1"}


def test_ties_count_half():
    assert overlap.margin(np.array([0.0, 0.0])) == 0
    assert overlap.baseline(overlap.scored(made("same", 0, 0, level=3)))["same"]["right"] == 0.5
