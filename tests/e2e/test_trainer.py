"""verl's trainer, Ray, FSDP2 and vLLM on a user's own job with image pairs, and what follows a failure or a kill."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import image_job
import pytest
import small_job
from small_job import rows_of_step

from contextrl_verl.demo.evidence_pairs import DATA_SOURCE as SOURCE
from contextrl_verl.launch import JobError, overrides_of, run_trainer, watch
from contextrl_verl.patches.cpu.environment import cpu_environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

TESTS = Path(__file__).parent.parent
METRICS = (
    "loss accuracy order_free_accuracy margin_mean clipped_fraction stuck_fraction option_mass position_bias "
    "position_logit pairs coef zero_grpo_gradient"
).split()


@pytest.fixture(
    scope="module", params=["qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow)], ids=["2.5", "3"]
)
def run(request, tmp_path_factory):
    """The user's yaml in small, on a vision model: yaml, data set, reward, DAPO's filter; two epochs of two steps."""
    out = tmp_path_factory.mktemp(request.param)
    image_job.write_data(out, request.param)
    shutil.copy(TESTS / "users_own" / "mine.py", out)
    theirs = ["--config-path", str(TESTS / "users_own"), "--config-name=users_grpo", "+platform=cpu"]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *theirs, *overrides_of(image_job.job_keys(out, out))]
    path = os.pathsep.join(filter(None, [str(TESTS), str(TESTS / "e2e"), os.environ.get("PYTHONPATH", "")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        more = {"DATA": str(out), "CONTEXTRL_TEST_PROBE": str(out / "probe.jsonl")}
        history = watch(command, out, {**cpu_environment(), **more}, cwd=out, timeout=900)
    return out, [metrics for _, metrics in history if "actor/contextrl/loss" in metrics], history


def rows_of(out, step):
    """The ordinary rows and the pairs of a step, as verl wrote them down."""
    rows = [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
    pairs = [row for row in rows if "which? A or B" in row["input"]]
    return [row for row in rows if row not in pairs], pairs


def test_two_epochs_are_two_passes_and_every_step_reports_every_metric(run):
    _, steps, _ = run
    assert len(steps) == image_job.STEPS
    for metrics in steps:
        assert {f"actor/contextrl/{name}" for name in METRICS} <= set(metrics)
        # Means over the two mini-batches of a step.
        assert metrics["actor/contextrl/pairs"] == image_job.PAIRS / 2
        assert 0 < metrics["actor/contextrl/loss"] < 10
        assert -1e-6 <= metrics["actor/contextrl/accuracy"] <= 1 + 1e-6
        assert metrics["actor/grad_norm"] > 0


def test_lambda_follows_its_schedule(run):
    _, steps, _ = run
    # The engine learns the step from the rows.
    assert [metrics["actor/contextrl/coef"] for metrics in steps] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_every_batch_has_its_pairs_and_groups_that_differ(run):
    out, steps, _ = run
    for step, metrics in enumerate(steps, 1):
        rows, pairs = rows_of(out, step)
        assert len(pairs) == image_job.PAIRS
        groups = defaultdict(list)
        for row in rows:
            groups[row["input"]].append(row["score"])
        # Replacements may show a question twice in a batch.
        assert sum(map(len, groups.values())) == image_job.ROWS * image_job.ROLLOUTS
        assert all(len(scores) % image_job.ROLLOUTS == 0 and len(set(scores)) == 2 for scores in groups.values())
        assert not any("say 0 " in question for question in groups)
        assert 0 <= metrics["contextrl/pairs_waiting"] <= image_job.PAIRS
    assert sum(metrics.get("training/filter_groups/evicted_samples", 0) for metrics in steps) > 0


def test_rollout_and_trainer_agree_on_image_rows_and_text_rows(run):
    out, steps, _ = run
    # As verl compares them itself, in probabilities.
    assert all(metrics["training/rollout_probs_diff_max"] < 1e-3 for metrics in steps)
    batches = [json.loads(line) for line in (out / "probe.jsonl").read_text().splitlines()]
    assert len(batches) == 2 * image_job.STEPS
    for batch in batches:
        assert max(batch["image"] + batch["text"]) < 1e-3
    images, texts = (sum(len(batch[kind]) for batch in batches) for kind in ("image", "text"))
    assert images + texts == image_job.STEPS * image_job.ROWS * image_job.ROLLOUTS
    assert min(images, texts) > 0


def test_the_pair_loss_falls_and_held_out_pairs_are_answered_in_both_orders(run):
    _, steps, history = run
    losses = [metrics["actor/contextrl/loss"] for metrics in steps]
    # Both orders of every pair are in the batch, so only a model that sees the images gets below log 2.
    assert losses[-1] < min(0.5, losses[0] / 2)
    key = "val-core/contextrl/selection/acc/mean@1"
    first, last = (metrics[key] for _, metrics in history if key in metrics)
    for accuracy in (first, last):
        assert accuracy * 2 * image_job.HELD_OUT == pytest.approx(round(accuracy * 2 * image_job.HELD_OUT))
    assert last > first
    assert last >= 0.75


def test_the_users_function_scores_the_users_rows_and_ours_the_pairs(run):
    last = run[2][-1][1]
    assert "val-aux/mine/copy/length/mean@1" in last
    assert "val-aux/contextrl/selection/length/mean@1" not in last


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    small_job.write_data(folder)
    shutil.copy(TESTS / "users_own" / "mine.py", folder)
    return folder


# Engine, data set and agent loop are tested for it by themselves.
@pytest.mark.slow
def test_two_steps_with_averaged_margins(data, tmp_path):
    keys = small_job.job_keys(data, tmp_path) | {
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
        assert metrics["actor/contextrl/pairs"] == small_job.PAIRS / 2
        assert 0 < metrics["actor/contextrl/loss"] < 6
        assert metrics["training/rollout_probs_diff_max"] < 1e-3
        twice = metrics["actor/contextrl/accuracy"] * 2 * small_job.PAIRS
        assert twice == pytest.approx(round(twice), abs=1e-4)
        assert 0 <= metrics["actor/contextrl/order_free_accuracy"] <= 1
    for step in (1, 2):
        rows = rows_of_step(tmp_path, step)
        assert sum(row.count("which? A or B") == 2 for row in rows) == small_job.PAIRS
        assert len(rows) == small_job.PAIRS + small_job.ROWS * small_job.ROLLOUTS
    assert 0 <= history[-1][1]["val-core/contextrl/selection/acc/mean@1"] <= 1


@pytest.mark.slow
def test_a_reward_that_always_fails_ends_the_job_and_names_its_error(data, tmp_path):
    keys = small_job.job_keys(data, tmp_path) | {
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
    run_trainer(small_job.job_keys(data, whole), whole, timeout=900)
    seen = Counter()
    for step in range(1, small_job.STEPS + 1):
        pairs = [row for row in rows_of_step(whole, step) if "which? A or B" in row]
        ordinary = Counter(row for row in rows_of_step(whole, step) if row not in pairs)
        assert sorted(ordinary.values()) == [small_job.ROLLOUTS] * small_job.ROWS
        seen.update(pairs)
    assert max(seen.values()) == 1
    keys = small_job.job_keys(data, tmp_path)
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
