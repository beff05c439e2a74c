"""verl's trainer, Ray, FSDP2 and vLLM: a user's own job (yaml, data set, reward, DAPO, two epochs), and resuming."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from small_job import HELD_OUT, PAIRS, ROLLOUTS, ROWS, STEPS, job_keys, rows_of_step, write_data

from contextrl_verl.demo.evidence_pairs import DATA_SOURCE as SOURCE
from contextrl_verl.launch import JobError, overrides_of, run_trainer, watch
from contextrl_verl.patches.cpu.environment import cpu_environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

USERS = Path(__file__).parent.parent / "users_own"
METRICS = (
    "loss accuracy order_free_accuracy margin_mean clipped_fraction stuck_fraction option_mass position_bias "
    "position_logit pairs coef zero_grpo_gradient"
).split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    shutil.copy(USERS / "mine.py", folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The user's yaml in small: two epochs of two steps, and replacements of groups in each."""
    out = tmp_path_factory.mktemp("run")
    keys = job_keys(data, out) | {
        "data.train_max_samples": STEPS // 2 * ROWS,
        "actor_rollout_ref.model.external_lib": ["json", "contextrl_verl.grpo.register"],
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 512,
        "algorithm.filter_groups.enable": True,
        "algorithm.filter_groups.metric": "acc",
        "trainer.total_epochs": 2,
        "trainer.total_training_steps": None,
        "trainer.save_freq": -1,
    }
    theirs = ["--config-path", str(USERS), "--config-name=users_grpo", "+platform=cpu"]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *theirs, *overrides_of(keys)]
    history = watch(command, out, {**cpu_environment(), "DATA": str(data)}, cwd=out, timeout=900)
    return out, [metrics for _, metrics in history if "actor/contextrl/loss" in metrics], history


def test_two_epochs_are_two_passes_and_every_step_reports_every_metric(run):
    _, steps, _ = run
    assert len(steps) == STEPS
    for metrics in steps:
        assert {f"actor/contextrl/{name}" for name in METRICS} <= set(metrics)
        # Means over the two mini-batches of a step.
        assert metrics["actor/contextrl/pairs"] == PAIRS / 2
        assert 0 < metrics["actor/contextrl/loss"] < 10
        assert 0 <= metrics["actor/contextrl/accuracy"] <= 1
        assert metrics["actor/grad_norm"] > 0
        # Rollout and trainer agree on the ordinary rows.
        assert metrics["training/rollout_probs_diff_max"] < 1e-3


def test_lambda_follows_its_schedule(run):
    _, steps, _ = run
    # The engine learns the step from the rows; 0.5 is reached at the last one.
    assert [metrics["actor/contextrl/coef"] for metrics in steps] == pytest.approx([0.125, 0.25, 0.375, 0.5])


def test_every_batch_has_its_pairs_and_groups_that_differ(run):
    out, steps, _ = run
    for step, metrics in enumerate(steps, 1):
        rows = [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        pairs = [row["input"] for row in rows if "which? A or B" in row["input"]]
        assert len(pairs) == PAIRS
        groups = defaultdict(list)
        for row in rows:
            if row["input"] not in pairs:
                groups[row["input"]].append(row["score"])
        # Replacements may show a question twice in a batch.
        assert sum(map(len, groups.values())) == ROWS * ROLLOUTS
        assert all(len(scores) % ROLLOUTS == 0 and len(set(scores)) == 2 for scores in groups.values())
        assert not any("say 0 " in question for question in groups)
        assert 0 <= metrics["contextrl/pairs_waiting"] <= PAIRS
    assert sum(metrics.get("training/filter_groups/evicted_samples", 0) for metrics in steps) > 0


def test_the_users_function_scores_the_users_rows_and_ours_the_pairs(run):
    last = run[2][-1][1]
    # Every held-out pair in both orders.
    accuracy = last["val-core/contextrl/selection/acc/mean@1"]
    assert 0 <= accuracy <= 1
    assert accuracy * 2 * HELD_OUT == pytest.approx(round(accuracy * 2 * HELD_OUT))
    assert "val-aux/mine/copy/length/mean@1" in last
    assert "val-aux/contextrl/selection/length/mean@1" not in last


# Engine, data set and agent loop are tested for it by themselves.
@pytest.mark.slow
def test_two_steps_with_averaged_margins(data, tmp_path):
    keys = job_keys(data, tmp_path) | {
        "contextrl.loss.margin": "averaged",
        "contextrl.loss.mass_coef": 0.1,
        "contextrl.pairs.orders": "both",
        "trainer.total_training_steps": 2,
        "trainer.test_freq": 2,
        "trainer.save_freq": -1,
    }
    history = run_trainer(keys, tmp_path, timeout=900)
    steps = [metrics for _, metrics in history if "actor/contextrl/loss" in metrics]
    assert len(steps) == 2
    for metrics in steps:
        # Two mini-batches; a pair is one row in both of its orders, and verl scores and counts it as that.
        assert metrics["actor/contextrl/pairs"] == PAIRS / 2
        assert 0 < metrics["actor/contextrl/loss"] < 6
        assert metrics["training/rollout_probs_diff_max"] < 1e-3
        twice = metrics["actor/contextrl/accuracy"] * 2 * PAIRS
        assert twice == pytest.approx(round(twice), abs=1e-4)
        assert 0 <= metrics["actor/contextrl/order_free_accuracy"] <= 1
    for step in (1, 2):
        rows = rows_of_step(tmp_path, step)
        assert sum(row.count("which? A or B") == 2 for row in rows) == PAIRS
        assert len(rows) == PAIRS + ROWS * ROLLOUTS
    assert 0 <= history[-1][1]["val-core/contextrl/selection/acc/mean@1"] <= 1


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


# What the data set restores is tested with verl's own loader in tests/test_dataset_resume.py.
@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_rows(data, tmp_path):
    whole, tmp_path = tmp_path / "straight", tmp_path / "killed"
    run_trainer(job_keys(data, whole), whole, timeout=900)
    seen = Counter()
    for step in range(1, STEPS + 1):
        pairs = [row for row in rows_of_step(whole, step) if "which? A or B" in row]
        ordinary = Counter(row for row in rows_of_step(whole, step) if row not in pairs)
        assert sorted(ordinary.values()) == [ROLLOUTS] * ROWS
        seen.update(pairs)
    assert max(seen.values()) == 1
    keys = job_keys(data, tmp_path)
    before = run_trainer(keys, tmp_path, stop=lambda step: step >= 3, timeout=900)
    assert max(step for step, _ in before) == 3
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text().strip() == "2"
    for step in (1, 2):
        assert rows_of_step(tmp_path, step) == rows_of_step(whole, step)
    for file in (tmp_path / "rollouts").iterdir():
        file.unlink()

    after = run_trainer(keys, tmp_path, timeout=900)
    assert [step for step, metrics in after if "actor/contextrl/loss" in metrics] == [3, 4]
    for step in (3, 4):
        assert rows_of_step(tmp_path, step) == rows_of_step(whole, step)
    coefs = [metrics["actor/contextrl/coef"] for _, metrics in after if "actor/contextrl/coef" in metrics]
    assert coefs == pytest.approx([0.375, 0.5])
