"""verl's reward managers by their names; pairs are scored by our registry, all else by the job's own function."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from job_factory import compose_job
from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
from verl.trainer.ppo.reward import load_reward_manager, resolve_reward_manager_cls

from contextrl_verl.grpo.reward_managers import by_source

PAIR = {
    "data_source": "contextrl/selection",
    "solution_str": "B",
    "ground_truth": "B",
    "extra_info": {"labels": ["A", "B"]},
}
ROW = {**PAIR, "data_source": "mine/copy"}


def plain(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "mine/copy"
    return 0.25


async def awaited(data_source, solution_str, ground_truth, extra_info=None):
    return plain(data_source, solution_str, ground_truth)


def scored(function, arguments):
    result = function(**arguments)
    return asyncio.run(result) if inspect.isawaitable(result) else result


@pytest.mark.parametrize("theirs", [plain, awaited])
def test_rows_go_to_the_jobs_function_and_pairs_to_ours(theirs):
    score = by_source(theirs)
    # verl's managers ask this, and call in a thread or await accordingly.
    assert inspect.iscoroutinefunction(score) == inspect.iscoroutinefunction(theirs)
    assert scored(score, ROW) == 0.25
    assert scored(score, PAIR)["score"] == 1.0
    assert scored(score, {**PAIR, "solution_str": "A"})["score"] == 0.0


@pytest.mark.parametrize("name", sorted(REWARD_MANAGER))
def test_every_manager_of_verls_is_found_by_its_name(name):
    found = resolve_reward_manager_cls(compose_job(f"reward.reward_manager.name={name}"))
    assert issubclass(found, REWARD_MANAGER[name])
    assert found is not REWARD_MANAGER[name]


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="prime"):
        resolve_reward_manager_cls(compose_job("reward.reward_manager.name=prime"))


def test_a_job_with_a_reward_of_its_own_scores_pairs_with_ours(tmp_path, verl_tokenizer):
    (tmp_path / "mine.py").write_text(inspect.getsource(plain))
    own = ("custom_reward_function.path=" + str(tmp_path / "mine.py"), "custom_reward_function.name=plain")
    config = compose_job(*(f"reward.{key}" for key in own), "reward.reward_manager.name=dapo")

    async def build():
        return load_reward_manager(config, verl_tokenizer).compute_score

    score = asyncio.run(build())
    assert scored(score, ROW) == 0.25
    assert scored(score, PAIR)["score"] == 1.0
