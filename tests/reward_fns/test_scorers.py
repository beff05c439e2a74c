"""The registry's names, exact match and the math answer on their own."""

from __future__ import annotations

from typing import Any

import pytest

from reward_fns import RewardConfigError
from reward_fns.math_answer import extract_answer, is_bounded, score_math
from reward_fns.registry import Registry
from reward_fns.short_answer import normalise, score_exact_match


def one(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    return 1.0


def two(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    return 2.0


@pytest.mark.parametrize(
    ("name", "served", "not_served"),
    [
        ("my/data", ["my/data"], ["my/data/a", "my/dat"]),
        ("my/", ["my/", "my/a/b"], ["my", "mya"]),
        ("my/*", ["my/", "my/a/b"], ["my", "mya"]),
        ("my*", ["my", "my/a", "mya"], ["m"]),
        ("*", ["", "anything"], []),
    ],
)
def test_names(name: str, served: list[str], not_served: list[str]) -> None:
    table = Registry()
    table.register(name, one)
    assert all(table.resolve(source)[1] is one for source in served)
    assert all(table.resolve(source) is None for source in not_served)


def test_registering_twice() -> None:
    table = Registry()
    table.register("x", one)
    table.register("x", one)
    table.register("x", f"{__name__}:one")
    with pytest.raises(RewardConfigError, match=r"'x' is already served by .*:one; .*:two"):
        table.register("x", two)
    table.register("x*", two)
    assert table.resolve("x")[1] is one


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_a_string(name: Any) -> None:
    with pytest.raises(RewardConfigError, match="non-empty string"):
        Registry().register(name, one)


@pytest.mark.parametrize(
    ("response", "truth", "score"),
    [
        ("The  Eiffel\tTower.", "eiffel tower", 1.0),
        ("It is <answer>Paris</answer>.", "paris", 1.0),
        ("\\boxed{Paris}", ["London", "Paris"], 1.0),
        ("<think>London</think> Paris", "Paris", 1.0),
        ("<think>Paris", "Paris", 0.0),
        ("Paris or London", "Paris", 0.0),
        ("5", "-5", 0.0),
        ("3.5", "35", 0.0),
        ("A", "a", 1.0),
        ("...", "a", 0.0),
        ("</answer>Paris", "Paris", 0.0),
    ],
)
def test_exact_match(response: str, truth: Any, score: float) -> None:
    assert score_exact_match("d", response, truth)["score"] == score


def test_normalise_keeps_words_that_are_all_articles() -> None:
    assert normalise("The A") == "the a"


@pytest.mark.parametrize(
    ("response", "truth", "score"),
    [
        ("\\boxed{\\frac{3}{4}}", "0.75", 1.0),
        ("first \\boxed{1}, then \\boxed{2}", "2", 1.0),
        ("Some work.\nAnswer: 42", "42", 1.0),
        ("Some work.\nIt is 42.", "42", 1.0),
        ("\\boxed{2^{2024}}", "\\boxed{2^{2024}}", 1.0),
        ("\\boxed{x+1}", "1 + x", 1.0),
        ("<think>\\boxed{2}", "2", 0.0),
        ("\\boxed{2", "2", 0.0),
        ("", "2", 0.0),
        ("9" * 1_000_000, "2", 0.0),
    ],
)
def test_math(response: str, truth: str, score: float) -> None:
    assert score_math("d", response, truth)["score"] == score


@pytest.mark.parametrize(
    "formula",
    [
        "9^{9^9}",
        "9^9^9",
        "2^{999}",
        "(x+y)^{99}",
        "100000!",
        "\\sum_{k=1}^{9} k",
        "x**9",
        "9^{(9^{9})}",
        "x" * 200,
        "(((x+1)^9+1)^9+1)^9",
        "{9^9}^{99}",
        "1" * 31,
        "\\binom{100000}{5000}",
        "2^{99*99}",
        "\\lim_{x\\to0} x",
    ],
)
def test_costly_formulas_are_not_simplified(formula: str) -> None:
    assert not is_bounded(formula)


@pytest.mark.parametrize("formula", ["x^2+2x+1", "(x+1)^2", "10^{-3}", "\\frac{1}{2}", "2^{n+1}", "\\sqrt[3]{5}"])
def test_ordinary_formulas_are_simplified(formula: str) -> None:
    assert is_bounded(formula)


def test_the_answer_is_the_last_line() -> None:
    assert extract_answer("1\n\n**Final Answer:** 7\n\n") == "7"
