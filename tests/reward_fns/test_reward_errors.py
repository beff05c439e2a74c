"""What a scorer may return, what is passed on, and that no failure of a scorer is a silent 0."""

from __future__ import annotations

import logging
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from reward_fns import RewardConfigError, compute_score
from reward_fns.dispatch import RESULT_KEYS
from reward_fns.registry import Registry

FAILED = 16


def returning(value: Any) -> Any:
    return lambda data_source, solution_str, ground_truth, extra_info: value


def undefined(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
    if solution_str == "good":
        return 1.0
    return x  # noqa: F821


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (0.5, 0.5),
        (True, 1.0),
        ((0.5, [{"error": "why"}]), 0.5),
        ((True, "pred"), 1.0),
        ([0.5], 0.5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), 1.0),
        (np.int64(1), 1.0),
        (np.array([0.5, 2.0]), 0.5),
        (np.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([0.5]), 0.5),
        (Decimal("0.5"), 0.5),
        ({"score": np.float32(0.5)}, 0.5),
        ({"score": torch.tensor(0.5), "acc": True}, 0.5),
    ],
)
def test_outcomes_that_are_numbers(fresh: Registry, value: Any, score: float) -> None:
    fresh.register("d", returning(value))
    result = compute_score("d", "A", "A")
    assert (result["score"], result["reward_error"]) == (score, "")
    assert type(result["score"]) is type(result["acc"]) is float


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, "TypeError: the score is None, not a number"),
        (math.nan, "ValueError: the score is nan, not a finite number"),
        (np.float64("inf"), "ValueError: the score is inf, not a finite number"),
        (torch.tensor(math.nan), "ValueError: the score is nan, not a finite number"),
        ("0.5", "TypeError: the score is '0.5', not a number"),
        (np.str_("0.5"), "TypeError: the score is '0.5', not a number"),
        ([], "IndexError: list index out of range"),
        (((1.0, 2.0),), "TypeError: the score is (1.0, 2.0), not a number"),
        ({}, "ValueError: the scorer's dict has no key 'score', only []"),
        ({"score": None}, "TypeError: the score is None, not a number"),
        ({"score": 1.0, "acc": math.nan}, "ValueError: the acc is nan, not a finite number"),
    ],
)
def test_outcomes_that_are_none_are_errors(fresh: Registry, value: Any, error: str) -> None:
    fresh.register("d", returning(value))
    expected = {"score": 0.0, "acc": 0.0, "parsed": "", "reward_fn": "d", "reward_error": error}
    assert compute_score("d", "A", "A") == expected


def test_an_error_is_one_short_line_and_is_logged_once(fresh: Registry, caplog: pytest.LogCaptureFixture) -> None:
    def long(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
        raise KeyError("two\nlines" + "s" * 400)

    def bare(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
        raise AssertionError

    for name, fn in {"long": long, "bare": bare, "undefined": undefined}.items():
        fresh.register(name, fn)
        found = [compute_score(name, "A", "A") for _ in range(3)]
        assert found[0] == found[2]
        assert (found[0]["score"], len(found[0]["reward_error"].splitlines())) == (0.0, 1)
        assert len(found[0]["reward_error"]) <= 200
    assert compute_score("bare", "A", "A")["reward_error"] == "AssertionError"
    assert compute_score("undefined", "A", "A")["reward_error"] == "NameError: name 'x' is not defined"
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert "undefined" in caplog.text


def test_a_source_whose_first_responses_all_failed_stops_the_run(fresh: Registry) -> None:
    fresh.register("d*", undefined)
    for _ in range(FAILED - 1):
        assert compute_score("d/a", "bad", "A")["reward_error"]
    message = r"16 responses for the data source 'd/a' .*:undefined fail.*NameError: name 'x' is not defined.* Fix: "
    for response in ("bad", "good", "bad"):
        with pytest.raises(RewardConfigError, match=message):
            compute_score("d/a", response, "A")
    assert compute_score("d/b", "good", "A")["score"] == 1.0
    for _ in range(2 * FAILED):
        assert compute_score("d/b", "bad", "A")["score"] == 0.0


def test_verls_own_scorer_that_always_fails_stops_the_run_too(fresh: Registry) -> None:
    for _ in range(FAILED - 1):
        assert compute_score("searchR1_nq", "<answer>a</answer>", "no mapping")["reward_error"].startswith("TypeError")
    with pytest.raises(RewardConfigError, match="verl's own scorer fail"):
        compute_score("searchR1_nq", "<answer>a</answer>", "no mapping")


def test_failures_are_counted_in_threads(fresh: Registry) -> None:
    together = threading.Barrier(8)

    def meet(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
        together.wait(10)
        raise OSError("judge is down")

    fresh.register("d", meet)

    def ask(number: int) -> str:
        try:
            return compute_score("d", "A", "A")["reward_error"]
        except RewardConfigError:
            return "stop"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(FAILED)))
        assert list(pool.map(ask, range(8))) == ["stop"] * 8
    assert FAILED - 8 < found.count("OSError: judge is down") < FAILED


def test_everything_a_scorer_returns_is_passed_on(fresh: Registry) -> None:
    more = {
        "format": 0.5,
        "steps": 3,
        "ok": True,
        "why": "so",
        "none": None,
        "list": [1, {"a": "b"}],
        "map": {"a": [1]},
    }
    scalars = {"np": np.float32(0.5), "torch": torch.tensor(2), "np_text": np.str_("t")}
    fresh.register("d", returning({"score": 1.0, **more, **scalars, "reward_fn": "mine"}))
    result = compute_score("d", "A", "A")
    assert result == {
        **{"score": 1.0, "acc": 1.0, "parsed": "", "reward_fn": "d", "reward_error": ""},
        **more,
        **{"np": 0.5, "torch": 2, "np_text": "t"},
    }
    assert result["list"] is more["list"]
    assert [type(result[key]) for key in scalars] == [float, int, str]
    assert type(result["ok"]) is bool


def test_the_rows_of_a_source_have_the_same_keys(fresh: Registry) -> None:
    def some(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> dict[str, Any]:
        return {"score": 1.0, solution_str: 2.0 if solution_str != "fail" else 1 / 0}

    fresh.register("d*", some)
    assert set(compute_score("d", "fail", "A")) == set(RESULT_KEYS)
    compute_score("d", "a", "A")
    second, failed = compute_score("d", "b", "A"), compute_score("d", "fail", "A")
    assert tuple(second) == tuple(failed) == (*RESULT_KEYS, "a", "b")
    assert (second["a"], second["b"], failed["a"], failed["b"]) == (None, 2.0, None, None)
    assert (failed["score"], failed["reward_error"]) == (0.0, "ZeroDivisionError: division by zero")
    assert tuple(compute_score("d/other", "c", "A")) == (*RESULT_KEYS, "c")


def test_a_scorer_that_hands_on_a_failure_hands_on_its_error(fresh: Registry) -> None:
    fresh.register("inner", undefined)
    fresh.register("outer", lambda data_source, **call: {**compute_score("inner", **call), "bonus": 1})
    result = compute_score("outer", "A", "A")
    assert (result["reward_fn"], result["reward_error"]) == ("outer", "NameError: name 'x' is not defined")


def test_what_verl_makes_of_none() -> None:
    """What compute_score's docstring says of verl."""
    from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    infos = {"format": [0.5, None], "reward_error": ["", "KeyError: 'x'"], "none": [None, None]}
    assert process_validation_metrics(["d"] * 2, ["u"] * 2, infos) == {"d": {"format": {"mean@1": 0.5}}}
    with pytest.raises(TypeError):
        process_validation_metrics(["d"] * 2, ["u"] * 2, {"map": [{"a": 1}] * 2})
    ones = torch.ones(2, 3)
    arguments = {
        "token_level_rewards": ones,
        "response_mask": ones,
        "index": np.array(["u", "u"]),
        "config": {"gdpo_reward_keys": ["format"]},
        "batch": {"prompts": torch.ones(2, 1), "attention_mask": torch.ones(2, 4, dtype=torch.long)},
    }
    good, _ = compute_gdpo_outcome_advantage(**arguments, non_tensor_batch={"format": np.array([0.5, 1.0])})
    spoilt, _ = compute_gdpo_outcome_advantage(**arguments, non_tensor_batch={"format": np.array([0.5, None])})
    assert good.isfinite().all()
    assert spoilt.isnan().all()
