"""compute_score: one dict for every data source, and errors that say what to do."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_fns import RewardConfigError, compute_score, registry
from reward_fns.dispatch import RESULT_KEYS
from reward_fns.registry import Registry

OWN = [
    ("contextrl/selection", "A", None, "A"),
    ("contextrl/selection/vqa", "2", {"labels": np.array(["1", "2"])}, "Answer: 2"),
    ("contextrl/exact_match", ["Paris", "Paris, France"], {}, "the  PARIS."),
    ("contextrl/multiple_choice", "J", {}, "The answer is (J)"),
    ("contextrl/math", "\\frac{1}{2}", {}, "So \\boxed{0.5}"),
]


def keys_of(source: str) -> tuple[str, ...]:
    return (*RESULT_KEYS, "verification") if source == "contextrl/math" else RESULT_KEYS


def yaml_scorer(data_source: str, solution_str: str, ground_truth: str, extra_info: Any, bonus: float = 0.0) -> float:
    return 0.25 + bonus


def failing(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
    raise KeyError(solution_str)


@pytest.mark.parametrize(("source", "truth", "extra", "response"), OWN)
def test_right_answers(source: str, truth: Any, extra: Any, response: str) -> None:
    result = compute_score(source, response, truth, extra)
    assert tuple(result) == keys_of(source)
    assert result["score"] == result["acc"] == 1.0
    assert isinstance(result["parsed"], str)
    assert result["parsed"]
    assert source.startswith(result["reward_fn"].rstrip("*"))


@pytest.mark.parametrize(("source", "truth", "extra", "_"), OWN)
@given(text=st.text())
@settings(deadline=None, max_examples=60)
def test_any_response_scores(source: str, truth: Any, extra: Any, _: str, text: str) -> None:
    for response in (text, f"\\boxed{{{text}}}"):
        result = compute_score(source, response, truth, extra)
        assert tuple(result) == keys_of(source)
        assert result["score"] in (0.0, 1.0)
        assert isinstance(result["parsed"], str)


@pytest.mark.parametrize("response", [None, 3, b"A", ["A"]])
@pytest.mark.parametrize(("source", "truth", "extra", "_"), OWN)
def test_a_response_that_is_no_string_scores_zero(source: str, truth: Any, extra: Any, _: str, response: Any) -> None:
    result = compute_score(source, response, truth, extra)
    assert (result["score"], result["acc"], result["parsed"]) == (0.0, 0.0, "")


@pytest.mark.parametrize("truth", [None, 7, "", {}, [1], []])
@pytest.mark.parametrize("source", [*(case[0] for case in OWN), "openai/gsm8k"])
def test_a_wrong_ground_truth_is_an_error(source: str, truth: Any) -> None:
    if source == "openai/gsm8k" and isinstance(truth, str | dict):
        pytest.skip("verl takes strings and mappings as they are")
    with pytest.raises(ValueError, match="ground_truth") as error:
        compute_score(source, "A", truth)
    assert repr(truth) in str(error.value)


def test_labels_and_option_counts_are_checked() -> None:
    with pytest.raises(RewardConfigError, match=r"'C'.*not one of"):
        compute_score("contextrl/selection", "C", "C")
    with pytest.raises(RewardConfigError, match="labels"):
        compute_score("contextrl/selection", "A", "A", {"labels": "AB"})
    with pytest.raises(RewardConfigError, match="distinct"):
        compute_score("contextrl/selection", "yes", "yes", {"labels": ["yes", "Yes"]})
    with pytest.raises(RewardConfigError, match="num_options"):
        compute_score("contextrl/multiple_choice", "A", "A", {"num_options": 1})
    assert compute_score("contextrl/multiple_choice", "C", "C", {"num_options": np.int64(3)})["score"] == 1.0


def test_verl_scores_its_own_sources() -> None:
    right = compute_score("openai/gsm8k", "so #### 42", "42", unused_option=1)
    assert right == {"score": 1.0, "acc": 1.0, "parsed": "", "reward_fn": "verl", "reward_error": ""}
    assert compute_score("openai/gsm8k", "so #### 41", "42")["score"] == 0.0
    dapo = compute_score("math_dapo", "Answer: 42", "42")
    assert tuple(dapo) == (*RESULT_KEYS, "pred")
    assert (dapo["score"], dapo["acc"], dapo["parsed"], dapo["pred"]) == (1.0, 1.0, "42", "42")


@pytest.mark.parametrize("truth", ["A", 3])
@pytest.mark.parametrize("source", ["nobody/knows", "contextrl/other", None])
def test_an_unknown_source_says_how_to_add_it(source: Any, truth: Any) -> None:
    with pytest.raises(LookupError) as error:
        compute_score(source, "A", truth)
    text = str(error.value)
    for part in (repr(source), "contextrl/selection*", "reward_kwargs.registry", "@reward_fns.reward"):
        assert part in text


def test_exact_beats_the_longest_prefix(fresh: Registry) -> None:
    def scorer(value: float) -> registry.Scorer:
        return lambda data_source, solution_str, ground_truth, extra_info: value

    fresh.register("d/*", scorer(0.1))
    fresh.register("d/e*", scorer(0.2))
    fresh.register("d/ef", scorer(0.3))
    fresh.register("openai/gsm8k", scorer(0.4))
    sources = {"d/x": 0.1, "d/e": 0.2, "d/efg": 0.2, "d/ef": 0.3, "openai/gsm8k": 0.4}
    assert {source: compute_score(source, "", "x")["score"] for source in sources} == sources
    assert compute_score("d/efg", "", "x")["reward_fn"] == "d/e*"


def test_the_yaml_registry(fresh: Registry) -> None:
    fresh.register("d/*", failing)
    entries = {"d/*": f"{__name__}:yaml_scorer", "broken": "no.such.module:fn"}
    result = compute_score("d/x", "A", "A", registry=entries, bonus=0.5, reward_router_address="unused")
    assert result == {"score": 0.75, "acc": 0.75, "parsed": "", "reward_fn": "d/", "reward_error": ""}
    assert compute_score("openai/gsm8k", "#### 1", "1", registry=entries)["score"] == 1.0
    with pytest.raises(RewardConfigError, match=r"'broken' to 'no.such.module:fn', which cannot be loaded"):
        compute_score("broken", "A", "A", registry=entries)
    assert compute_score("d/x", "A", "A")["score"] == 0.0


def test_verl_loads_it_with_reward_kwargs() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    pytest.importorskip("verl")
    from verl.trainer.ppo.reward import get_custom_reward_fn

    kwargs = {"registry": {"my/": f"{__name__}:yaml_scorer"}, "bonus": 0.25}
    function = {"path": "pkg://reward_fns.dispatch", "name": "compute_score", "reward_kwargs": kwargs}
    score = get_custom_reward_fn(omegaconf.OmegaConf.create({"reward": {"custom_reward_function": function}}))
    call = {"solution_str": "A", "ground_truth": "A", "extra_info": {"num_turns": None}}
    assert score(data_source="my/data", **call)["score"] == 0.5
    assert score(data_source="contextrl/selection", **call)["score"] == 1.0


def test_math_works_off_the_main_thread() -> None:
    results: list[dict[str, Any]] = []
    pairs = [("x^2+2x+1", "(x+1)^2"), ("2", "3"), ("x", "9^{9^{9^{9}}}")]

    def score(truth: str, answer: str) -> None:
        seconds = {"verification_seconds": 1.0 if "9" in answer else 120.0}
        results.append(compute_score("contextrl/math", f"\\boxed{{{answer}}}", truth, **seconds))

    tasks = [lambda p=p: score(*p) for p in pairs]
    for task in tasks:
        thread = threading.Thread(target=task)
        thread.start()
        thread.join()
    assert [result["score"] for result in results] == [1.0, 0.0, 0.0]
