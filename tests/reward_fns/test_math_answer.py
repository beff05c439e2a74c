"""The mathematical reward: a table of answers, beside verl's own math_verify."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.math_reward import read_hanging, read_table
from reward_fns import RewardConfigError
from reward_fns.math_answer import extract_answer, score_math

ROWS = read_table()
# On a busy machine an ordinary answer may take seconds.
PATIENT = 120.0
# What verl's scorer gives each row, its process pool left out.
VERLS = """
import importlib.util, json, logging, sys
logging.disable(logging.CRITICAL)
spec = importlib.util.spec_from_file_location("its_math_verify", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
ask = module._verify_in_subprocess
print(json.dumps([ask(f"\\\\boxed{{{truth}}}", response) for _, truth, response, _ in json.load(sys.stdin)]))
"""


@cache
def scored(response: str, truth: str) -> dict[str, Any]:
    return score_math("d", response, truth, verification_seconds=PATIENT)


@pytest.mark.parametrize(
    ("wanted", "truth", "response", "source"), ROWS, ids=[f"{row.truth}|{row.response}"[:60] for row in ROWS]
)
def test_table(wanted: float, truth: str, response: str, source: str) -> None:
    result = scored(response, truth)
    assert result["score"] == wanted, f"{result}, from {source}"
    assert list(result) == ["score", "parsed", "verification"]


def test_against_verls_own_scorer() -> None:
    path = Path(find_spec("verl").submodule_search_locations[0]) / "utils" / "reward_score" / "math_verify.py"
    command = [sys.executable, "-c", VERLS, str(path)]
    done = subprocess.run(command, input=json.dumps(ROWS), capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = [scored(row.response, row.truth)["score"] for row in ROWS]
    rows = list(zip(ROWS, ours, theirs, strict=True))
    assert len(rows) >= 150
    assert not [row for row, our, their in rows if our > their and not row.wanted]
    # Of the right answers every one that it pays, and more.
    assert not [row for row, our, their in rows if their > our and row.wanted]
    assert sum(ours) > sum(their * row.wanted for row, _, their in rows)


def test_the_hanging_formulas_are_of_many_kinds() -> None:
    assert len(set(map(tuple, read_hanging()))) >= 56


@pytest.mark.parametrize(
    ("truth", "answer", "outcome"),
    [
        ("1", "(a+b+c+d+e)^{40}-(a+b+c+d+e)^{41}", "timeout"),
        ("1", "9^{9^{9^9}}", "timeout"),
        ("x", "(" * 140 + "x" + ")" * 140, "timeout"),
        ("2^{2024}", "2^{2024}", "same text"),
        ("2", "2.0", "equal"),
        ("2", r"\frac{6}{4}", "different"),
        ("2", r"2 \oops 3", "unread"),
        ("2", "", "no answer"),
        ("2", "9" * 301, "no answer"),
    ],
)
def test_what_decided_is_named_and_the_next_answer_is_served(truth: str, answer: str, outcome: str) -> None:
    result = score_math(
        "d", rf"\boxed{{{answer}}}", truth, verification_seconds=1.0 if outcome == "timeout" else PATIENT
    )
    assert result["verification"] == outcome
    assert score_math("d", r"\boxed{\frac{2}{4}}", "1/2", verification_seconds=PATIENT)["score"] == 1.0


def test_the_limit_comes_from_the_jobs_reward_kwargs(fresh, monkeypatch) -> None:
    from reward_fns import compute_score, math_answer

    seen = []
    monkeypatch.setattr(math_answer._pool, "call", lambda seconds, pairs: seen.append(seconds) or "equal")
    fresh.register("contextrl/math*", score_math)
    for settings in ({}, {"verification_seconds": 0.25}):
        assert compute_score("contextrl/math", r"\boxed{x+1}", "1+x", **settings)["score"] == 1.0
    assert seen == [5.0, 0.25]
    for wrong in (0, -1, float("inf"), float("nan"), "5", None):
        with pytest.raises(RewardConfigError, match=r"verification_seconds is .*Fix it in"):
            score_math("d", "5", "5", verification_seconds=wrong)


@pytest.mark.parametrize("truth", ["", " ", "9" * 301, 5, None])
def test_a_reference_that_is_none_is_the_datas_fault(truth) -> None:
    with pytest.raises(RewardConfigError, match="ground_truth"):
        score_math("d", "5", truth)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("1\n\n**Final Answer:** 7\n\n", "7"),
        (r"\boxed{1}, \boxed{2} and \boxed{3}.", "1, 2, 3"),
        (r"\boxed{4}. So \boxed{4}" "\n\n" r"**Final Answer**" "\n" r"\boxed{4}", "4"),
        ("So\n\\[\n x = 2\n\\]", "$x = 2$"),
        ("9" * 1_000_000, ""),
    ],
)
def test_the_answer(response: str, answer: str) -> None:
    assert extract_answer(response) == answer
