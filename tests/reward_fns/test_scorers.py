"""The registry's names and exact match on their own."""

from __future__ import annotations

from typing import Any

import pytest

from reward_fns import RewardConfigError
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
        ("It is in France.\n\nParis", "paris", 1.0),
        ("The answer is Paris. It is the capital.", "Paris", 1.0),
        ("The answer is Paris. No, it is London.", "Paris", 0.0),
        ("The answer is Mr. Smith", "Mr. Smith", 1.0),
        ("La réponse est Paris.", "Paris", 1.0),
        ("答えはParisです。", "Paris", 1.0),
        ("\\boxed{\\text{the Seine}}", "Seine", 1.0),
        ("<answer>Paris</answer> or <answer>London</answer>", "Paris", 0.0),
        ("<answer>\\boxed{Paris} or \\boxed{London}</answer>", "London", 0.0),
        ("12 Rue\nParis", "12 rue paris", 1.0),
    ],
)
def test_exact_match(response: str, truth: Any, score: float) -> None:
    assert score_exact_match("d", response, truth)["score"] == score


def test_normalise_keeps_words_that_are_all_articles() -> None:
    assert normalise("The A") == "the a"
