"""verl's trainer on a user's own job - yaml, data set, reward, DAPO, two epochs - and on a reward that always fails."""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from small_job import HELD_OUT, PAIRS, ROLLOUTS, ROWS, job_keys, write_data

from contextrl_verl.demo.evidence_pairs import DATA_SOURCE as SOURCE
from contextrl_verl.launch import JobError, overrides_of, run_trainer, watch
from contextrl_verl.patches.cpu.environment import cpu_environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

USERS = Path(__file__).parent.parent / "users_own"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    shutil.copy(USERS / "mine.py", folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The user's yaml in small: a step an epoch, two epochs, and replacements of groups in each."""
    out = tmp_path_factory.mktemp("run")
    keys = job_keys(data, out) | {
        "data.train_max_samples": ROWS,
        "actor_rollout_ref.model.external_lib": ["json", "contextrl_verl.grpo.register"],
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 512,
        "algorithm.filter_groups.enable": True,
        "algorithm.filter_groups.metric": "acc",
        "trainer.total_epochs": 2,
        "trainer.total_training_steps": None,
        "trainer.test_freq": 2,
        "trainer.save_freq": -1,
    }
    theirs = ["--config-path", str(USERS), "--config-name=users_grpo", "+platform=cpu"]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *theirs, *overrides_of(keys)]
    history = watch(command, out, {**cpu_environment(), "DATA": str(data)}, cwd=out, timeout=900)
    return out, [metrics for _, metrics in history if "actor/contextrl/loss" in metrics], history


def test_two_epochs_are_two_passes_and_no_more(run):
    assert len(run[1]) == 2


def test_every_batch_has_its_pairs_and_groups_that_differ(run):
    out, steps, _ = run
    for step, metrics in enumerate(steps, 1):
        rows = [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        pairs = [row for row in rows if "which? A or B" in row["input"]]
        assert len(pairs) == PAIRS
        assert metrics["actor/contextrl/pairs"] == PAIRS / 2
        groups = defaultdict(list)
        for row in rows:
            if row not in pairs:
                groups[row["input"]].append(row["score"])
        # Replacements may show a question twice in a batch.
        assert sum(map(len, groups.values())) == ROWS * ROLLOUTS
        assert all(len(set(scores)) == 2 for scores in groups.values())
        assert not any("say 0 " in question for question in groups)
        assert metrics["training/filter_groups/evicted_samples"] > 0
        assert 0 <= metrics["contextrl/pairs_waiting"] <= PAIRS


def test_the_users_function_scores_the_users_rows_and_ours_the_pairs(run):
    last = run[2][-1][1]
    accuracy = last["val-core/contextrl/selection/acc/mean@1"]
    assert accuracy * 2 * HELD_OUT == pytest.approx(round(accuracy * 2 * HELD_OUT))
    assert "val-aux/mine/copy/length/mean@1" in last
    assert "val-aux/contextrl/selection/length/mean@1" not in last


@pytest.mark.slow
def test_a_reward_that_always_fails_ends_the_job_and_names_its_error(data, tmp_path):
    keys = job_keys(data, tmp_path) | {
        "+reward.custom_reward_function.reward_kwargs.registry": f"{{{SOURCE}: '{data}/mine.py:broken'}}",
        "trainer.total_training_steps": 2,
    }
    with pytest.raises(JobError):
        run_trainer(keys, tmp_path, timeout=900)
    log = (tmp_path / "trainer.log").read_text()
    assert "contextrl: the reward function failed on each of the first" in log
    assert "NameError: name 'undefined_name' is not defined" in log
    assert not (tmp_path / "checkpoints").exists()
